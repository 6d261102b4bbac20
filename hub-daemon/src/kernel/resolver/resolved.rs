//! systemd-resolved, asked over D-Bus: servers and domains of single links.
//!
//! A link that just came is unknown to it for a moment, and what is set then may be lost. So the hub waits until
//! it knows the link, reads back what it set, and sets it again where that is not what it was.

use std::net::IpAddr;
use std::sync::mpsc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zbus::blocking::connection::Builder;
use zbus::blocking::{Connection, Proxy, proxy};
use zbus::proxy::CacheProperties;
use zbus::zvariant::OwnedObjectPath;

const NAME: &str = "org.freedesktop.resolve1";
const PATH: &str = "/org/freedesktop/resolve1";
const MANAGER: &str = "org.freedesktop.resolve1.Manager";
const LINK: &str = "org.freedesktop.resolve1.Link";
const NO_SUCH_LINK: &str = "org.freedesktop.resolve1.NoSuchLink";

/// Port of DNS.
const PORT: u16 = 53;
/// Most time for one question, which polkit may be asked about.
const ANSWER: Duration = Duration::from_secs(5);
/// How often a link is looked for, and how often something is set.
const TRIES: u32 = 10;
const BETWEEN: Duration = Duration::from_millis(50);

/// Why names of a link could not be set.
#[derive(Debug, thiserror::Error)]
pub enum ResolvedError {
    /// D-Bus, or what answers there.
    #[error("{intent}: systemd-resolved: {source}")]
    Bus {
        /// What was tried.
        intent: String,
        /// Why not.
        source: Box<zbus::Error>,
    },
    /// It does not know the link.
    #[error("set name servers of link {0}: systemd-resolved does not know it")]
    Unknown(u32),
    /// Something else was read than was written.
    #[error("set name servers of link {0}: systemd-resolved took them and tells others")]
    Lost(u32),
}

/// A server of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredServer")]
pub struct LinkServer {
    /// Its address.
    pub address: IpAddr,
    /// Its port; 0 is that of DNS.
    pub port: u16,
    /// Name that its certificate is for; empty if nothing asks for it.
    pub name: String,
}

/// A server as it is kept, or was when it was an address alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum StoredServer {
    Address(IpAddr),
    Whole { address: IpAddr, port: u16, name: String },
}

impl From<StoredServer> for LinkServer {
    fn from(stored: StoredServer) -> Self {
        match stored {
            StoredServer::Address(address) => Self::from(address),
            StoredServer::Whole { address, port, name } => Self { address, port, name },
        }
    }
}

impl From<IpAddr> for LinkServer {
    fn from(address: IpAddr) -> Self {
        Self { address, port: 0, name: String::new() }
    }
}

/// Family, address, port and name of a server on the bus.
type ServerEx = (i32, Vec<u8>, u16, String);

/// Servers and domains of one link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkNames {
    /// Servers in order.
    pub servers: Vec<LinkServer>,
    /// Domains; with `true` such that only decide which link is asked.
    pub domains: Vec<(String, bool)>,
    /// Whether it is asked for names of no link's domain.
    pub default_route: bool,
}

/// A connection to systemd-resolved.
pub struct Resolved(Connection);

impl Resolved {
    /// Connects to the system's bus, or to the bus at an address; `None` if nobody there is systemd-resolved.
    pub fn open(address: Option<&str>) -> Option<Self> {
        let address = address.map(str::to_owned);
        let connect = move || {
            let builder = address.as_deref().map_or_else(Builder::system, Builder::address);
            builder.and_then(|builder| builder.method_timeout(ANSWER).build()).ok()
        };
        // A bus that takes a connection and says nothing is not waited for.
        let (answer, answered) = mpsc::channel();
        crate::thread::start("bus", move || drop(answer.send(connect()))).ok()?;
        let connection = answered.recv_timeout(ANSWER).ok()??;
        let bus = zbus::blocking::fdo::DBusProxy::new(&connection).ok()?;
        let name = NAME.try_into().ok()?;
        let is_there = bus.name_has_owner(name).ok()?
            || bus.list_activatable_names().ok()?.iter().any(|found| found.as_str() == NAME);
        is_there.then_some(Self(connection))
    }

    /// What it knows of a link; `None` if it does not know the link.
    pub fn read(&self, index: u32) -> Result<Option<LinkNames>, ResolvedError> {
        let read = || -> zbus::Result<Option<LinkNames>> {
            let path: OwnedObjectPath = match self.manager()?.call("GetLink", &(index.cast_signed(),)) {
                Ok(path) => path,
                Err(zbus::Error::MethodError(name, _, _)) if name.as_str() == NO_SUCH_LINK => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            let link: Proxy<'_> = proxy::Builder::new(&self.0)
                .destination(NAME)?
                .path(path)?
                .interface(LINK)?
                .cache_properties(CacheProperties::No)
                .build()?;
            let servers = servers(&link)?;
            let domains: Vec<(String, bool)> = link.get_property("Domains")?;
            let default_route: bool = link.get_property("DefaultRoute")?;
            Ok(Some(LinkNames { servers, domains, default_route }))
        };
        let intent = || format!("read names of link {index}");
        read().map_err(|source| ResolvedError::Bus { intent: intent(), source: Box::new(source) })
    }

    /// What it knows of a link, once it knows it.
    pub fn wait(&self, index: u32) -> Result<LinkNames, ResolvedError> {
        for _ in 0..TRIES {
            if let Some(names) = self.read(index)? {
                return Ok(names);
            }
            std::thread::sleep(BETWEEN);
        }
        Err(ResolvedError::Unknown(index))
    }

    /// Makes a link have these, and forgets answers of before.
    pub fn write(&self, index: u32, names: &LinkNames) -> Result<(), ResolvedError> {
        for _ in 0..TRIES {
            self.set(index, names).map_err(|source| bus(index, source))?;
            if self.read(index)?.as_ref() == Some(names) {
                return self.flush(index);
            }
            std::thread::sleep(BETWEEN);
        }
        Err(ResolvedError::Lost(index))
    }

    /// Makes a link be as if nothing had ever been set.
    pub fn revert(&self, index: u32) -> Result<(), ResolvedError> {
        let result = self.manager().and_then(|manager| manager.call("RevertLink", &(index.cast_signed(),)));
        match result {
            Err(zbus::Error::MethodError(name, _, _)) if name.as_str() == NO_SUCH_LINK => Ok(()),
            Err(source) => Err(bus(index, source)),
            Ok(()) => self.flush(index),
        }
    }

    fn set(&self, index: u32, names: &LinkNames) -> zbus::Result<()> {
        let (manager, index) = (self.manager()?, index.cast_signed());
        let is_plain = |server: &LinkServer| server.port == 0 && server.name.is_empty();
        if names.servers.iter().all(is_plain) {
            let servers: Vec<_> = names.servers.iter().map(|server| bytes(&server.address)).collect();
            manager.call::<_, _, ()>("SetLinkDNS", &(index, servers))?;
        } else {
            let whole = |server: &LinkServer| -> ServerEx {
                let (family, bytes) = bytes(&server.address);
                (family, bytes, server.port, server.name.clone())
            };
            let servers: Vec<ServerEx> = names.servers.iter().map(whole).collect();
            manager.call::<_, _, ()>("SetLinkDNSEx", &(index, servers))?;
        }
        manager.call::<_, _, ()>("SetLinkDomains", &(index, &names.domains))?;
        manager.call("SetLinkDefaultRoute", &(index, names.default_route))
    }

    fn flush(&self, index: u32) -> Result<(), ResolvedError> {
        let flushed = self.manager().and_then(|manager| manager.call("FlushCaches", &()));
        flushed.map_err(|source| bus(index, source))
    }

    fn manager(&self) -> zbus::Result<Proxy<'_>> {
        Proxy::new(&self.0, NAME, PATH, MANAGER)
    }
}

/// Servers of a link; those before systemd 246 tell neither ports nor names, for they have none.
fn servers(link: &Proxy<'_>) -> zbus::Result<Vec<LinkServer>> {
    match link.get_property::<Vec<ServerEx>>("DNSEx") {
        Ok(servers) => {
            let whole = |(_, bytes, port, name): ServerEx| {
                let port = if port == PORT { 0 } else { port };
                Some(LinkServer { address: address(&bytes)?, port, name })
            };
            Ok(servers.into_iter().filter_map(whole).collect())
        }
        Err(zbus::Error::FDO(error)) if matches!(*error, zbus::fdo::Error::UnknownProperty(_)) => {
            let servers: Vec<(i32, Vec<u8>)> = link.get_property("DNS")?;
            Ok(servers.iter().filter_map(|(_, bytes)| address(bytes)).map(LinkServer::from).collect())
        }
        Err(error) => Err(error),
    }
}

fn bus(index: u32, source: zbus::Error) -> ResolvedError {
    ResolvedError::Bus { intent: format!("set name servers of link {index}"), source: Box::new(source) }
}

/// An address as systemd-resolved spells it: the family, and the bytes.
fn bytes(address: &IpAddr) -> (i32, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_were_kept_as_addresses_are_still_read() {
        let text = r#"{"servers": ["192.0.2.53", {"address": "fd00::53", "port": 853, "name": "dns.example"}],
            "domains": [], "default_route": true}"#;
        let names: LinkNames = serde_json::from_str(text).unwrap();
        assert_eq!(names.servers[0], LinkServer::from(IpAddr::from([192, 0, 2, 53])));
        assert_eq!((names.servers[1].port, names.servers[1].name.as_str()), (853, "dns.example"));
        let again: LinkNames = serde_json::from_str(&serde_json::to_string(&names).unwrap()).unwrap();
        assert_eq!(again, names);
    }
}
