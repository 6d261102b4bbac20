//! Switches of the kernel that the hub changed.
//!
//! Ours are those whose value from before is remembered in a file of the runtime folder; deleting one puts
//! that value back. The file outlives the daemon but not a reboot, as do the switches.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::desired::Desired;
use crate::desired::shared_map::SharedMap;
use crate::kernel::sysctl::{self, SysctlError};
use crate::reconcile::Table;

/// Which switches a table holds: those of single interfaces need the interface first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Of the whole namespace.
    Host,
    /// Of single interfaces.
    Interface,
}

impl Scope {
    /// Name of the file in the runtime folder.
    fn file(self) -> &'static str {
        match self {
            Self::Host => "sysctls.json",
            Self::Interface => "sysctls-of-interfaces.json",
        }
    }
}

/// Why a switch could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum SysctlsError {
    /// The kernel refused.
    #[error(transparent)]
    Switch(#[from] SysctlError),
    /// The values from before cannot be kept.
    #[error("remember switches in {path}: {source}", path = path.display())]
    Memory {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The switches of the kernel.
pub struct Sysctls {
    path: PathBuf,
    /// Values from before the hub, by key; `None` until the file was read.
    before: Option<BTreeMap<String, String>>,
}

impl Sysctls {
    /// Switches whose values from before are kept in `runtime_dir`.
    pub fn new(runtime_dir: &Path, scope: Scope) -> Self {
        Self { path: runtime_dir.join(scope.file()), before: None }
    }

    fn memory(&self, source: io::Error) -> SysctlsError {
        SysctlsError::Memory { path: self.path.clone(), source }
    }

    fn before(&mut self) -> Result<&mut BTreeMap<String, String>, SysctlsError> {
        let before = match self.before.take() {
            Some(before) => before,
            None => match std::fs::read(&self.path) {
                Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| self.memory(error.into()))?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
                Err(error) => return Err(self.memory(error)),
            },
        };
        Ok(self.before.insert(before))
    }

    fn save(&self) -> Result<(), SysctlsError> {
        let next = self.path.with_extension("json.next");
        let write = || {
            if let Some(folder) = self.path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            std::fs::write(&next, serde_json::to_vec_pretty(&self.before)?)?;
            std::fs::rename(&next, &self.path)
        };
        write().map_err(|source| self.memory(source))
    }
}

impl Table for Sysctls {
    type Key = String;
    type Value = String;
    type Found = String;
    type Error = SysctlsError;
    const NAME: &'static str = "sysctls";

    fn list(&mut self) -> Result<BTreeMap<String, String>, SysctlsError> {
        let mut found = BTreeMap::new();
        for key in self.before()?.keys() {
            match sysctl::read(key) {
                Ok(value) => found.insert(key.clone(), value),
                // The switches of an interface go with it; what is remembered still needs deleting.
                Err(error) if error.is_absent() => found.insert(key.clone(), String::new()),
                Err(error) => return Err(error.into()),
            };
        }
        Ok(found)
    }

    fn put(&mut self, key: &String, value: &String) -> Result<(), SysctlsError> {
        let found = sysctl::read(key)?;
        if !self.before()?.contains_key(key) {
            self.before()?.insert(key.clone(), found);
            self.save()?;
        }
        Ok(sysctl::write(key, value)?)
    }

    fn delete(&mut self, key: &String) -> Result<(), SysctlsError> {
        let Some(value) = self.before()?.get(key).cloned() else { return Ok(()) };
        match sysctl::write(key, &value) {
            Err(error) if !error.is_absent() => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        self.before()?.remove(key);
        self.save()
    }

    fn holds(wanted: &String, found: &String) -> bool {
        wanted == found
    }

    fn describe(key: &String) -> String {
        format!("switch {key}")
    }
}

/// The switches of one scope that are wanted.
pub fn wanted(desired: &Desired, scope: Scope) -> SharedMap<String, String> {
    let single = scope == Scope::Interface;
    let those = desired.sysctls.iter().filter(|(key, _)| interface(key).is_some() == single);
    those.map(|(key, value)| (key.clone(), sysctl::normal(value))).collect()
}

/// The interface that a switch belongs to: `net/ipv4/conf/NAME/…`, `net/ipv6/neigh/NAME/…`.
pub fn interface(key: &str) -> Option<&str> {
    let mut parts = key.split('/');
    let (net, family, group, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let single = net == "net"
        && matches!(family, "ipv4" | "ipv6")
        && matches!(group, "conf" | "neigh")
        && !matches!(name, "all" | "default");
    single.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::interface;

    #[test]
    fn switches_of_interfaces_are_told_apart() {
        assert_eq!(interface("net/ipv4/conf/hub1/rp_filter"), Some("hub1"));
        assert_eq!(interface("net/ipv4/conf/all/rp_filter"), None);
        assert_eq!(interface("net/ipv4/ip_forward"), None);
    }
}
