//! hub-wg: one WireGuard tunnel, for kernels that have none.
//!
//! It makes the TUN device, answers the configuration protocol of WireGuard's userspace implementations on a
//! unix socket, and moves packets. `hubd` starts it in a session of its own, so that a tunnel outlives the
//! daemon. It ends when its device is deleted. The private key comes over the socket and stays in memory.

mod api;
mod clock;
mod device;
mod peer;
mod privileges;
mod request;
mod sockets;
mod tun;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};
use nix::unistd::setsid;

use self::device::Device;
use self::tun::Tun;

/// A WireGuard tunnel as a process of its own.
#[derive(Parser)]
#[command(name = "hub-wg", version)]
struct Arguments {
    /// Name of the device; one that is there already, without a process, is taken over.
    device: String,
    /// Where the configuration socket goes.
    #[arg(long, value_name = "FILE")]
    socket: PathBuf,
    /// Interface index of the device, if it has to be made; else the kernel chooses.
    #[arg(long, value_name = "NUMBER")]
    index: Option<u32>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{}: {error:#}", arguments.device));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match setsid() {
        // A group leader is apart from the daemon's group already.
        Err(Errno::EPERM) | Ok(_) => {}
        Err(errno) => return Err(errno).context("begin a session"),
    }
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    let listener = api::listen(&arguments.socket)
        .with_context(|| format!("listen on {}", arguments.socket.display()))?;
    let tun = Tun::open(&arguments.device, arguments.index).context("open the TUN device")?;
    privileges::drop_all_but_marking().context("drop privileges")?;
    let requests = api::serve(listener).context("start the thread of the socket")?;
    Device::new(tun, requests).context("open UDP sockets")?.run()
}

#[expect(clippy::print_stderr, reason = "what starts the process keeps its words")]
fn complain(text: &str) {
    eprintln!("hub-wg: {text}");
}
