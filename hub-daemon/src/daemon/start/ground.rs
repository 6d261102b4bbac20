//! What a start stands on: sizes of maps, the lock, the hook, the thread of the owner.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use super::{Owner, StartError};
use crate::desired::TcHook;
use crate::kernel::load::Capacities;
use crate::model::config::Limits;

/// What operators should know of programs that are filters.
pub(super) fn clsact_advice(wanted: TcHook) -> String {
    let why = match wanted {
        TcHook::Auto => "this kernel has no TCX links (Linux 6.6)",
        TcHook::Tcx | TcHook::Clsact => "hub.yaml says `attach.tc: clsact`",
    };
    format!("TC programs are filters of clsact: {why}; if others remove them, they are put back within 5 s")
}

pub(super) fn capacities(limits: &Limits) -> Capacities {
    Capacities {
        segments: limits.segments(),
        rules: limits.rules,
        flows: limits.flows,
        opening_flows: limits.opening_flows,
        v6_prefixes: limits.ipv6_prefixes,
        peers: limits.peers,
        ..Capacities::default()
    }
}

/// Keeps a second hub away.
pub(super) fn lock(runtime_dir: &Path) -> Result<Flock<File>, StartError> {
    let path = runtime_dir.join("hubd.lock");
    let failed = |source| StartError::Folder { path: path.clone(), source };
    fs::create_dir_all(runtime_dir).map_err(failed)?;
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_held| StartError::Running(path.clone()))
}

/// Lets the owner work on a thread of its own until `closed`: what takes it long on a large hub keeps nobody
/// waiting who reads. Returns what ends when the owner does.
pub(super) fn on_its_own(
    owner: Owner,
    mut closed: watch::Receiver<bool>,
) -> io::Result<oneshot::Receiver<()>> {
    let runtime = Handle::current();
    let (ended, end) = oneshot::channel();
    std::thread::Builder::new().name("owner".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                () = owner.work() => {}
                _ = closed.wait_for(|closed| *closed) => {}
            }
        });
        drop(ended);
    })?;
    Ok(end)
}
