//! Processes of tunnels: started apart from the daemon, found again by their sockets, ended with their tunnels.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::Instant;

use super::{Place, WireguardError};

/// Folder of what is remembered of tunnels, below `runtime_dir`.
pub const TUNNELS: &str = "tunnels";
/// Where packages put the program.
pub const FOLDER: &str = "/usr/libexec/hub";
/// Name of the program.
const PROGRAM: &str = "hub-wg";
/// How long a process may take until it answers, or until it is gone.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time between looks at one that starts.
const LOOK: Duration = Duration::from_millis(5);

/// The program: beside the daemon, one folder further up (tests), or where packages put it.
fn program() -> Option<PathBuf> {
    let own = std::env::current_exe().unwrap_or_default();
    let folders = own.ancestors().skip(1).take(2).chain([Path::new(FOLDER)]);
    folders.map(|folder| folder.join(PROGRAM)).find(|program| program.is_file())
}

/// Starts a process in the namespace of its tunnel and waits until it answers. `index` is the interface index of a
/// device that it has to make.
pub fn start(place: &Place, index: Option<u32>) -> Result<Child, WireguardError> {
    let program = program().ok_or_else(|| WireguardError::NoProgram(place.link.clone()))?;
    let (socket, log) = (place.file("sock"), place.file("log"));
    let failed = |source: io::Error| {
        let said = fs::read_to_string(&log).unwrap_or_default();
        let said = if said.is_empty() { said } else { format!(": {}", said.trim_end()) };
        WireguardError::Start { link: place.link.clone(), source, said }
    };
    let words = File::create(&log).map_err(failed)?;
    let mut command = Command::new(program);
    command.arg(&place.link).arg("--socket").arg(&socket);
    if let Some(index) = index {
        command.arg("--index").arg(index.to_string());
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(words).current_dir("/").env_clear();
    let mut child = place.within(|| command.spawn())?.map_err(failed)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if place.status().is_ok()
            && number(&socket).is_some_and(|pid| pid.as_raw_nonzero().get().cast_unsigned() == child.id())
        {
            return Ok(child);
        }
        match child.try_wait() {
            Ok(None) if Instant::now() < deadline => std::thread::sleep(LOOK),
            Ok(None) => {
                let stopped = child.kill().and_then(|()| child.wait());
                return Err(failed(stopped.map_or_else(|error| error, |_| io::ErrorKind::TimedOut.into())));
            }
            Ok(Some(status)) => return Err(failed(io::Error::other(status.to_string()))),
            Err(error) => return Err(failed(error)),
        }
    }
}

/// A process of a tunnel, known for as long as this value lives even if its number is used again.
#[derive(Debug)]
pub struct Found {
    /// Its number.
    pub pid: u32,
    file: OwnedFd,
}

/// The process behind a socket, if it runs.
pub fn find(socket: &Path) -> Option<Found> {
    let pid = number(socket)?;
    let file = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    // Still the same: it answers after its file was opened.
    (number(socket) == Some(pid)).then_some(Found { pid: pid.as_raw_nonzero().get().cast_unsigned(), file })
}

/// Who listens on a socket.
fn number(socket: &Path) -> Option<Pid> {
    let stream = UnixStream::connect(socket).ok()?;
    Pid::from_raw(getsockopt(&stream, sockopt::PeerCredentials).ok()?.pid())
}

impl Found {
    /// Ends it and waits until it is gone.
    pub fn end(self) -> io::Result<()> {
        match pidfd_send_signal(&self.file, Signal::TERM) {
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            other => other?,
        }
        if self.wait(PATIENCE.as_millis().try_into().unwrap_or(PollTimeout::MAX))? {
            return Ok(());
        }
        pidfd_send_signal(&self.file, Signal::KILL)?;
        self.wait(PollTimeout::NONE).map(drop)
    }

    /// Waits until it has ended; whether it has.
    fn wait(&self, limit: PollTimeout) -> io::Result<bool> {
        loop {
            match poll(&mut [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)], limit) {
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(ready) => return Ok(ready > 0),
            }
        }
    }

    /// Tells when it has ended, from a thread of its own, which ends with it.
    pub fn watch(self, ended: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let watch = move || {
            if self.wait(PollTimeout::NONE).is_ok_and(|gone| gone) {
                ended();
            }
        };
        crate::thread::start("tunnel", watch)
    }
}
