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

/// Servers and domains of one link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkNames {
    /// Servers in order.
    pub servers: Vec<IpAddr>,
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
        let thread = std::thread::Builder::new().name("bus".to_owned());
        thread.spawn(move || drop(answer.send(connect()))).ok()?;
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
            let servers: Vec<(i32, Vec<u8>)> = link.get_property("DNS")?;
            let domains: Vec<(String, bool)> = link.get_property("Domains")?;
            let default_route: bool = link.get_property("DefaultRoute")?;
            let servers = servers.iter().filter_map(|(_, bytes)| address(bytes)).collect();
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
        let servers: Vec<(i32, Vec<u8>)> = names.servers.iter().map(bytes).collect();
        manager.call::<_, _, ()>("SetLinkDNS", &(index, servers))?;
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
