//! Ctrl-C: the bench ends early but still by its own way out, so that everything it made is removed.

use std::{
    process,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{SigSet, Signal};

static STOP: AtomicBool = AtomicBool::new(false);

/// Takes SIGINT, SIGTERM and SIGHUP from here on; to be called before any thread is started.
pub(super) fn watch() -> Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().context("block signals")?;
    thread::spawn(move || {
        while signals.wait().is_ok() {
            if STOP.swap(true, Ordering::Relaxed) {
                process::exit(130);
            }
        }
    });
    Ok(())
}

/// Fails once someone asked to stop.
pub(super) fn check() -> Result<()> {
    if STOP.load(Ordering::Relaxed) {
        bail!("stopped");
    }
    Ok(())
}
