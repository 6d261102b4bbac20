//! One emulated machine: boots, is listened to, and ends in bounded time.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::clock::deadline;

/// What boots.
pub(super) struct Machine<'a> {
    pub(super) kernel: &'a Path,
    pub(super) root: Root<'a>,
    pub(super) memory_mib: u32,
    /// Further words for the kernel.
    pub(super) more: &'a str,
    pub(super) time: Time,
}

/// Where a machine has its files.
#[derive(Clone, Copy, Debug)]
pub(super) enum Root<'a> {
    /// In memory, out of an archive: they go with the machine.
    Archive(&'a Path),
    /// On a disk, an ext4 file system that the next machine finds as this one left it. Debian's cloud kernels have
    /// what reads it built in.
    Disk(&'a Path),
}

/// What makes time pass in a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Time {
    /// This machine's clock: a machine that is held up loses time.
    Clock,
    /// Its own instructions, and nothing while it has none to do: a slow and even machine, whoever else works here.
    Instructions,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The machine switched itself off, or would have begun anew.
    Halted,
    /// Its time was up.
    TimedOut,
}

/// Everything that a machine said.
pub(super) struct Report {
    pub(super) end: End,
    lines: Vec<String>,
}

impl Report {
    pub(super) fn lines(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// What failed tests said.
    pub(super) fn failures(&self) -> impl Iterator<Item = &str> {
        let mut inside = false;
        self.lines().filter(move |line| {
            if line.starts_with("failures:") {
                inside = true;
            } else if line.starts_with("@@ ") {
                inside = false;
            }
            inside
        })
    }
}

/// Words for the kernel: everything to the serial line, and an oops ends the machine. QEMU runs `rep` instructions
/// (feature 112) step by step, so pages are cleared without them, and only where they must be.
const WORDS: &str = "console=ttyS0 loglevel=4 panic=-1 oops=panic mitigations=off net.ifnames=0 \
                     clearcpuid=112 init_on_alloc=0";
/// A processor without the features that make kernel and libraries copy by `rep movsb`, byte by byte.
const PROCESSOR: &str = "max,erms=off,fsrm=off";
/// Words for a machine that has this one's time: a read of the time stamp counter is cheaper than one of a timer.
const CLOCK: &str = "tsc=reliable";
/// Words for one with a disk.
const DISK: &str = "root=/dev/nvme0n1 rootfstype=ext4 rootwait rw";

impl Machine<'_> {
    /// Runs until the machine is off or begins anew; hands each line to `hear` and writes it to a file.
    pub(super) fn run(&self, log: &Path, limit: Duration, mut hear: impl FnMut(&str)) -> Result<Report> {
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(match self.time {
            Time::Clock => &["-accel", "tcg,thread=multi", "-smp", "2"][..],
            // Two nanoseconds for each. One CPU: of two, QEMU lets each stand still for 100 ms while the other works.
            Time::Instructions => {
                &["-accel", "tcg,thread=single", "-icount", "shift=1,sleep=off", "-smp", "1"]
            }
        });
        qemu.args(["-cpu", PROCESSOR, "-nodefaults", "-no-reboot"]);
        qemu.args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-net", "none"]);
        qemu.args(["-m", &self.memory_mib.to_string()]).arg("-kernel").arg(self.kernel);
        let root = match self.root {
            Root::Archive(archive) => {
                qemu.arg("-initrd").arg(archive);
                ""
            }
            Root::Disk(disk) => {
                // What the machine has written is in this machine's memory at least, however the machine ends.
                let drive = format!("file={},format=raw,if=none,id=root,cache=unsafe", disk.display());
                qemu.args(["-drive", &drive, "-device", "nvme,drive=root,serial=root"]);
                DISK
            }
        };
        let clock = if matches!(self.time, Time::Clock) { CLOCK } else { "" };
        qemu.args(["-append", &format!("{WORDS} {clock} {root} {}", self.more)]);
        let mut child = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("start QEMU")?;
        let output = child.stdout.take().context("standard output is a pipe")?;
        let (sender, lines) = channel();
        let reader = thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                    break;
                }
            }
        });
        let mut file = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let mut report = Report { end: End::Halted, lines: Vec::new() };
        let left = deadline(limit);
        loop {
            match lines.recv_timeout(left()) {
                Ok(line) => {
                    writeln!(file, "{line}")?;
                    hear(&line);
                    report.lines.push(line);
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    report.end = End::TimedOut;
                    child.kill().context("stop QEMU")?;
                    break;
                }
            }
        }
        child.wait().context("wait for QEMU")?;
        drop(lines);
        reader.join().ok().context("read what QEMU says")?;
        Ok(report)
    }
}
