//! What a start stands on: sizes of maps, the lock, the hook.

use std::fs::{self, File};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use super::StartError;
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
