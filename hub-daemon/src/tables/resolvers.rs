//! Resolvers of personalities: who is asked for names.
//!
//! In a namespace with a name it is `/etc/netns/NAME/resolv.conf`, which `ip netns exec` shows as
//! `/etc/resolv.conf`. In the hub's own namespace systemd-resolved is told, for the interface alone; without it
//! the host's `/etc/resolv.conf` is written, where the personality says that it may be.
//!
//! What was there before is kept in a file of the state folder and on the disk before anything is changed, so that
//! whoever comes next puts it back, also after a crash or a reboot.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::desired::interfaces::Resolver;
use crate::desired::{Desired, Namespace};
use crate::kernel::boot;
use crate::kernel::links::{SelectError, select};
use crate::kernel::netlink::{Netlink, NetlinkError};
use crate::kernel::resolver::file::{self, Before};
use crate::kernel::resolver::resolved::{LinkNames, Resolved, ResolvedError};
use crate::model::PersonaId;
use crate::reconcile::Table;

/// Where names are configured.
#[derive(Clone, Debug)]
pub struct Roots {
    /// File with what was there before.
    pub kept: PathBuf,
    /// Folder of namespaces' files.
    pub netns: PathBuf,
    /// The host's own file.
    pub resolv_conf: PathBuf,
    /// Address of the D-Bus that systemd-resolved is on; `None` is the system's.
    pub bus: Option<String>,
}

impl Roots {
    /// Those of the machine; what was there before is kept in a folder that outlives a reboot.
    pub fn of_machine(state_dir: &Path) -> Self {
        Self {
            kept: state_dir.join("resolvers.json"),
            netns: "/etc/netns".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            bus: None,
        }
    }
}

/// Why names could not be set or put back.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// A file.
    #[error("{intent} {path}: {source}", path = path.display())]
    File {
        /// What was tried.
        intent: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file leads elsewhere.
    #[error(
        "{path} is a symbolic link to {target}: whoever made it answers names; remove the link, or the personality's `dns_servers`",
        path = path.display(),
        target = target.display()
    )]
    Linked {
        /// The file.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// Another interface has it.
    #[error("{path} is written for interface {other} already", path = path.display())]
    Taken {
        /// The file.
        path: PathBuf,
        /// The other interface's record.
        other: String,
    },
    /// There is no place for the servers of a namespace.
    #[error("{0} has no name below /run/netns: name servers are read from /etc/netns/NAME/resolv.conf")]
    Nameless(String),
    /// Nothing may be written.
    #[error("systemd-resolved is not there: set `manage_resolv_conf: true` to let the hub write {0}")]
    Nobody(String),
    /// systemd-resolved.
    #[error(transparent)]
    Resolved(#[from] ResolvedError),
    /// Links cannot be read.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// No single interface is meant.
    #[error(transparent)]
    Select(#[from] SelectError),
}

/// What was there before, of one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kept {
    /// A file.
    File {
        /// Which.
        path: PathBuf,
        /// What it was.
        before: Before,
    },
    /// A link of systemd-resolved.
    Link {
        /// Its index, in this boot.
        index: u32,
        /// The boot: a link of another one knows nothing of ours.
        boot: String,
        /// What was set; `None` where nothing was.
        before: Option<LinkNames>,
    },
}

/// What the hub finds of what it set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names(Option<Found>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    File(Vec<u8>),
    Link(LinkNames),
}

/// The resolvers.
pub struct Resolvers {
    roots: Roots,
    /// `None` until the file was read.
    kept: Option<BTreeMap<String, Kept>>,
    resolved: Option<Resolved>,
}

impl Resolvers {
    /// Resolvers at these places.
    pub fn new(roots: Roots) -> Self {
        Self { roots, kept: None, resolved: None }
    }

    fn resolved(&mut self) -> Option<&Resolved> {
        if self.resolved.is_none() {
            self.resolved = Resolved::open(self.roots.bus.as_deref());
        }
        self.resolved.as_ref()
    }

    fn kept(&mut self) -> Result<&mut BTreeMap<String, Kept>, ResolverError> {
        let kept = match self.kept.take() {
            Some(kept) => kept,
            None => match std::fs::read(&self.roots.kept) {
                Ok(bytes) => serde_json::from_slice(&bytes)
                    .map_err(|error| failed("read", &self.roots.kept)(error.into()))?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
                Err(error) => return Err(failed("read", &self.roots.kept)(error)),
            },
        };
        Ok(self.kept.insert(kept))
    }

    /// Writes what was there before; it is on the disk when this returns.
    fn save(&self) -> Result<(), ResolverError> {
        let path = &self.roots.kept;
        let next = path.with_extension("json.next");
        let write = || {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            file::put(&next, &serde_json::to_vec_pretty(&self.kept)?, 0o600)?;
            std::fs::rename(&next, path)?;
            file::sync_folder(path)
        };
        write().map_err(failed("write", path))
    }

    /// Remembers what is there, unless that was done for the same place.
    fn keep(&mut self, record: &str, now: Kept) -> Result<(), ResolverError> {
        let same = |kept: &Kept| match (kept, &now) {
            (Kept::File { path, .. }, Kept::File { path: now, .. }) => path == now,
            (Kept::Link { index, boot, .. }, Kept::Link { index: now, boot: boot_now, .. }) => {
                (index, boot) == (now, boot_now)
            }
            (Kept::File { .. }, Kept::Link { .. }) | (Kept::Link { .. }, Kept::File { .. }) => false,
        };
        match self.kept()?.get(record) {
            Some(kept) if same(kept) => return Ok(()),
            // Another place: what was there comes back first.
            Some(_) => self.restore(record)?,
            None => {}
        }
        self.kept()?.insert(record.to_owned(), now);
        self.save()
    }

    /// What systemd-resolved tells of a link; who does not answer is asked anew the next time.
    fn told(&mut self, index: u32) -> Option<LinkNames> {
        let told = self.resolved()?.read(index);
        if told.is_err() {
            self.resolved = None;
        }
        told.ok().flatten()
    }

    fn put_file(&mut self, record: &str, path: PathBuf, resolver: &Resolver) -> Result<(), ResolverError> {
        let is_other = |(other, kept): &(&String, &Kept)| {
            *other != record && matches!(kept, Kept::File { path: taken, .. } if *taken == path)
        };
        if let Some((other, _)) = self.kept()?.iter().find(is_other) {
            return Err(ResolverError::Taken { path, other: other.clone() });
        }
        let before = match file::look(&path).map_err(failed("read", &path))? {
            // Left by a hub whose memory is gone: there is nothing to put back.
            Before::File { bytes, .. } if file::is_ours(&bytes) => Before::Absent { folder: true },
            before @ (Before::Absent { .. } | Before::File { .. } | Before::Link(_)) => before,
        };
        self.keep(record, Kept::File { path: path.clone(), before })?;
        file::write(&path, &file::text(&resolver.servers, &resolver.search)).map_err(failed("write", &path))
    }

    fn put_host(&mut self, record: &str, resolver: &Resolver) -> Result<(), ResolverError> {
        if self.resolved().is_some() {
            return self.put_link(record, resolver);
        }
        let path = self.roots.resolv_conf.clone();
        if !resolver.manage_resolv_conf {
            return Err(ResolverError::Nobody(path.display().to_string()));
        }
        if let Before::Link(target) = file::look(&path).map_err(failed("read", &path))? {
            return Err(ResolverError::Linked { path, target });
        }
        self.put_file(record, path, resolver)
    }

    fn put_link(&mut self, record: &str, resolver: &Resolver) -> Result<(), ResolverError> {
        let links = Netlink::open()?.links()?;
        let index = select(&links, &resolver.place.selector)?.index;
        let Some(resolved) = self.resolved() else { return Ok(()) };
        let before = Some(resolved.wait(index)?).filter(|names| *names != LinkNames::default());
        self.keep(record, Kept::Link { index, boot: boot::boot_id(), before })?;
        let Some(resolved) = self.resolved() else { return Ok(()) };
        let written = resolved.write(index, &names(resolver));
        if written.is_err() {
            // The next try connects anew: who answers may have started anew.
            self.resolved = None;
        }
        Ok(written?)
    }

    /// Puts back what was there before, and forgets it.
    fn restore(&mut self, record: &str) -> Result<(), ResolverError> {
        match self.kept()?.get(record).cloned() {
            None => return Ok(()),
            Some(Kept::File { path, before }) => {
                let restored = file::restore(&path, &before).map_err(failed("restore", &path))?;
                if !restored {
                    tracing::warn!(path = %path.display(), "somebody else changed it: it stays as it is");
                }
            }
            Some(Kept::Link { index, boot, before }) if boot == boot::boot_id() => {
                if let Some(resolved) = self.resolved() {
                    match before {
                        None => resolved.revert(index)?,
                        Some(names) if resolved.read(index)?.is_some() => resolved.write(index, &names)?,
                        // It went with its link.
                        Some(_) => {}
                    }
                }
            }
            Some(Kept::Link { .. }) => {}
        }
        self.kept()?.remove(record);
        self.save()
    }
}

impl Table for Resolvers {
    type Key = String;
    type Value = Resolver;
    type Found = Names;
    type Error = ResolverError;
    const NAME: &'static str = "resolvers";

    fn list(&mut self) -> Result<BTreeMap<String, Names>, ResolverError> {
        let kept = self.kept()?.clone();
        let mut found = BTreeMap::new();
        for (record, kept) in kept {
            let names = match kept {
                Kept::File { path, .. } => std::fs::read(&path).ok().map(Found::File),
                Kept::Link { index, boot, .. } if boot == boot::boot_id() => {
                    self.told(index).map(Found::Link)
                }
                Kept::Link { .. } => None,
            };
            found.insert(record, Names(names));
        }
        Ok(found)
    }

    fn put(&mut self, record: &String, resolver: &Resolver) -> Result<(), ResolverError> {
        match &resolver.place.namespace {
            None => self.put_host(record, resolver),
            Some(namespace) => {
                let name = name(namespace).ok_or_else(|| ResolverError::Nameless(place(namespace)))?;
                let path = self.roots.netns.join(name).join("resolv.conf");
                self.put_file(record, path, resolver)
            }
        }
    }

    fn delete(&mut self, record: &String) -> Result<(), ResolverError> {
        self.restore(record)
    }

    fn holds(wanted: &Resolver, Names(found): &Names) -> bool {
        match found {
            Some(Found::File(bytes)) => *bytes == file::text(&wanted.servers, &wanted.search),
            Some(Found::Link(link)) => *link == names(wanted),
            None => false,
        }
    }

    fn describe(record: &String) -> String {
        format!("name servers of {record}")
    }
}

/// Whose a resolver is.
pub fn owner(desired: &Desired, record: &str) -> Option<PersonaId> {
    Some(desired.resolvers.get(record)?.persona.clone())
}

/// What systemd-resolved is to know. Without domains, the link is asked for every name.
fn names(resolver: &Resolver) -> LinkNames {
    LinkNames {
        servers: resolver.servers.iter().copied().map(Into::into).collect(),
        domains: resolver.search.iter().map(|domain| (domain.clone(), false)).collect(),
        default_route: true,
    }
}

/// The name that `ip netns` knows a namespace by.
fn name(namespace: &Namespace) -> Option<&str> {
    match namespace {
        Namespace::Pid(_) => None,
        Namespace::Name(name) => {
            let name = name
                .strip_prefix("/run/netns/")
                .or_else(|| name.strip_prefix("/var/run/netns/"))
                .unwrap_or(name);
            (!name.is_empty() && !name.contains('/') && !matches!(name, "." | "..")).then_some(name)
        }
    }
}

fn place(namespace: &Namespace) -> String {
    match namespace {
        Namespace::Pid(pid) => format!("the namespace of process {pid}"),
        Namespace::Name(name) => format!("the namespace {name}"),
    }
}

fn failed(intent: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ResolverError {
    let path = path.to_owned();
    move |source| ResolverError::File { intent, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_have_a_name_or_none() {
        let of = |text: &str| name(&Namespace::Name(text.into())).map(str::to_owned);
        assert_eq!(of("red"), Some("red".into()));
        assert_eq!(of("/run/netns/red"), Some("red".into()));
        assert_eq!(of("/proc/7/ns/net"), None);
        assert_eq!(of(".."), None);
        assert_eq!(name(&Namespace::Pid(7)), None);
    }
}
