//! `hubctl down`: takes the hub out of the kernel, also when the daemon is dead.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::thread;

use nix::fcntl::{Flock, FlockArg};
use serde_json::json;

use super::arguments::Format;
use super::exit::Failure;
use super::output::Output;
use crate::kernel::down::down;

pub(super) fn run(output: Output, bpffs: &Path, runtime_dir: &Path, state_dir: &Path) -> Result<(), Failure> {
    let _lock = lock(runtime_dir)?;
    let teardown = apart(|| down(bpffs, runtime_dir, state_dir));
    if output.format() == Format::Table {
        for object in &teardown.removed {
            output.line(&format!("removed {object}"))?;
        }
        if teardown.removed.is_empty() && teardown.failures.is_empty() {
            output.line("nothing of the hub is in the kernel")?;
        }
    } else {
        let failures: Vec<String> = teardown.failures.iter().map(|failure| failure.error.clone()).collect();
        let answer = json!({ "removed": teardown.removed, "failures": failures });
        output.show(&answer, |_: &serde_json::Value| String::new())?;
    }
    match teardown.failures.first() {
        None => Ok(()),
        Some(first) => {
            let source = std::io::Error::other(first.error.clone());
            Err(Failure::local("remove", &first.object, source))
        }
    }
}

/// Runs what waits for D-Bus by a runtime of its own, which must not begin on a thread that has one.
fn apart<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    let ended = thread::scope(|scope| scope.spawn(run).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Takes the daemon's lock. A daemon that runs would put routes back that no program judges.
fn lock(runtime_dir: &Path) -> Result<Option<Flock<File>>, Failure> {
    let path = runtime_dir.join("hubd.lock");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::local("open", path.display(), error)),
    };
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
            Err(Failure::Refused(format!("hubd runs and holds {}: stop it first", path.display())))
        }
        Err((_, errno)) => Err(Failure::local("lock", path.display(), errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_runtime_may_begin_below_the_one_of_the_command() {
        let answer = apart(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async { 7 })
        });
        assert_eq!(answer, 7);
    }

    #[test]
    fn a_daemon_that_runs_is_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        assert!(lock(folder.path()).unwrap().is_none(), "no daemon was ever here");
        let file = File::create(folder.path().join("hubd.lock")).unwrap();
        assert!(lock(folder.path()).unwrap().is_some(), "the daemon is gone");
        let held = Flock::lock(file, FlockArg::LockExclusiveNonblock).unwrap();
        assert!(matches!(lock(folder.path()), Err(Failure::Refused(_))));
        drop(held);
    }
}
