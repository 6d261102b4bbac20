//! Work inside network namespaces of others.
//!
//! A thread belongs to one network namespace at a time, and the threads of the async runtime are shared by
//! everything. So each piece of work gets a thread of its own that enters, works and ends; no other thread
//! ever leaves the hub's namespace.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

use crate::desired::Namespace;

/// Where `ip netns` keeps namespaces.
const NAMED: &str = "/run/netns";
/// The namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// Why a namespace cannot be worked in.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// There is nothing to open.
    #[error("open network namespace {path}: {source}", path = path.display())]
    Open {
        /// The file tried.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The name leads out of the folder of namespaces.
    #[error("network namespace `{0}`: use a name without slashes, or an absolute path")]
    Name(String),
    /// It is the hub's own.
    #[error("network namespace {path} is the hub's own: members need one of their own", path = path.display())]
    Own {
        /// The file opened.
        path: PathBuf,
    },
    /// The thread could not enter.
    #[error("enter network namespace {path}: {source}", path = path.display())]
    Enter {
        /// The file opened.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The system has no thread left.
    #[error("start a thread for network namespace {path}: {source}", path = path.display())]
    Thread {
        /// The file opened.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// An open network namespace, which stays alive at least as long as this value.
#[derive(Debug)]
pub struct OpenNamespace {
    file: File,
    path: PathBuf,
    identity: (u64, u64),
}

impl OpenNamespace {
    /// Opens a namespace that is not the hub's own.
    pub fn open(namespace: &Namespace) -> Result<Self, NamespaceError> {
        let path = path(namespace)?;
        let opened = File::open(&path).and_then(|file| Ok((identity(&file)?, file)));
        let (found, file) = opened.map_err(|source| NamespaceError::Open { path: path.clone(), source })?;
        let own = File::open(OWN).and_then(|file| identity(&file));
        let own = own.map_err(|source| NamespaceError::Open { path: PathBuf::from(OWN), source })?;
        if found == own {
            return Err(NamespaceError::Own { path });
        }
        Ok(Self { file, path, identity: found })
    }

    /// What tells it apart from others that exist at the same time.
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// The file that stands for the namespace.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Runs `work` on a thread inside the namespace and waits for it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
        let inside = || {
            setns(&self.file, CloneFlags::CLONE_NEWNET)
                .map_err(|errno| NamespaceError::Enter { path: self.path.clone(), source: errno.into() })?;
            Ok(work())
        };
        let ran = crate::thread::run("namespace", inside);
        ran.unwrap_or_else(|source| Err(NamespaceError::Thread { path: self.path.clone(), source }))
    }
}

/// The file of a namespace.
fn path(namespace: &Namespace) -> Result<PathBuf, NamespaceError> {
    match namespace {
        Namespace::Pid(pid) => Ok(PathBuf::from(format!("/proc/{pid}/ns/net"))),
        Namespace::Name(name) if name.starts_with('/') => Ok(PathBuf::from(name)),
        Namespace::Name(name) if name.is_empty() || name.contains('/') || name == "." || name == ".." => {
            Err(NamespaceError::Name(name.clone()))
        }
        Namespace::Name(name) => Ok(Path::new(NAMED).join(name)),
    }
}

/// What tells namespaces apart: the same numbers, the same namespace.
fn identity(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        for name in ["", "..", "../etc", "a/b"] {
            assert!(path(&Namespace::Name(name.into())).is_err(), "{name}");
        }
        assert_eq!(path(&Namespace::Name("red".into())).unwrap(), Path::new("/run/netns/red"));
        assert_eq!(path(&Namespace::Pid(7)).unwrap(), Path::new("/proc/7/ns/net"));
    }

    #[test]
    fn own_namespace_is_refused() {
        let own = Namespace::Pid(std::process::id());
        assert!(matches!(OpenNamespace::open(&own), Err(NamespaceError::Own { .. })));
    }
}
