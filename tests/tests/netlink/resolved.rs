//! The part of systemd-resolved that the hub speaks to, on a bus of the test's own.

use zbus::blocking::Connection;
use zbus::blocking::connection::Builder;
use zbus::object_server::ObjectServer;
use zbus::zvariant::OwnedObjectPath;

use crate::lab::Folder;

const NAME: &str = "org.freedesktop.resolve1";
const PATH: &str = "/org/freedesktop/resolve1";
const LINK: &str = "/org/freedesktop/resolve1/link/one";

#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.freedesktop.resolve1")]
enum Refusal {
    #[zbus(error)]
    Bus(zbus::Error),
    NoSuchLink(String),
}

/// Family, address, port and name of a server.
pub(crate) type ServerEx = (i32, Vec<u8>, u16, String);

/// What it knows of one link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) servers: Vec<ServerEx>,
    pub(crate) domains: Vec<(String, bool)>,
    pub(crate) default_route: bool,
}

#[zbus::interface(name = "org.freedesktop.resolve1.Link")]
impl Link {
    #[zbus(property, name = "DNS")]
    fn dns(&self) -> Vec<(i32, Vec<u8>)> {
        self.servers.iter().map(|(family, bytes, _, _)| (*family, bytes.clone())).collect()
    }

    #[zbus(property, name = "DNSEx")]
    fn dns_ex(&self) -> Vec<ServerEx> {
        self.servers.clone()
    }

    #[zbus(property)]
    fn domains(&self) -> Vec<(String, bool)> {
        self.domains.clone()
    }

    #[zbus(property)]
    fn default_route(&self) -> bool {
        self.default_route
    }
}

/// How it behaves, and what it was asked for.
#[derive(Debug, Default)]
pub(crate) struct Manager {
    pub(crate) index: i32,
    /// How often it does not know the link.
    pub(crate) unknown: u32,
    /// How often it loses what is set.
    pub(crate) loses: u32,
    pub(crate) flushes: u32,
    pub(crate) reverts: u32,
}

impl Manager {
    async fn change(
        &self,
        index: i32,
        server: &ObjectServer,
        change: impl FnOnce(&mut Link),
    ) -> Result<(), Refusal> {
        if index != self.index {
            return Err(Refusal::NoSuchLink(format!("Link {index} not known")));
        }
        let link = server.interface::<_, Link>(LINK).await.map_err(Refusal::Bus)?;
        change(&mut *link.get_mut().await);
        Ok(())
    }
}

#[zbus::interface(name = "org.freedesktop.resolve1.Manager")]
impl Manager {
    fn get_link(&mut self, index: i32) -> Result<OwnedObjectPath, Refusal> {
        if index != self.index || self.unknown > 0 {
            self.unknown = self.unknown.saturating_sub(1);
            return Err(Refusal::NoSuchLink(format!("Link {index} not known")));
        }
        Ok(LINK.try_into().unwrap())
    }

    #[zbus(name = "SetLinkDNS")]
    async fn set_link_dns(
        &mut self,
        index: i32,
        servers: Vec<(i32, Vec<u8>)>,
        #[zbus(object_server)] server: &ObjectServer,
    ) -> Result<(), Refusal> {
        if self.loses > 0 {
            self.loses -= 1;
            return Ok(());
        }
        let plain = |(family, bytes): (i32, Vec<u8>)| (family, bytes, 0, String::new());
        let servers = servers.into_iter().map(plain).collect();
        self.change(index, server, |link| link.servers = servers).await
    }

    #[zbus(name = "SetLinkDNSEx")]
    async fn set_link_dns_ex(
        &mut self,
        index: i32,
        servers: Vec<ServerEx>,
        #[zbus(object_server)] server: &ObjectServer,
    ) -> Result<(), Refusal> {
        self.change(index, server, |link| link.servers = servers).await
    }

    async fn set_link_domains(
        &mut self,
        index: i32,
        domains: Vec<(String, bool)>,
        #[zbus(object_server)] server: &ObjectServer,
    ) -> Result<(), Refusal> {
        self.change(index, server, |link| link.domains = domains).await
    }

    async fn set_link_default_route(
        &mut self,
        index: i32,
        enable: bool,
        #[zbus(object_server)] server: &ObjectServer,
    ) -> Result<(), Refusal> {
        self.change(index, server, |link| link.default_route = enable).await
    }

    async fn revert_link(
        &mut self,
        index: i32,
        #[zbus(object_server)] server: &ObjectServer,
    ) -> Result<(), Refusal> {
        self.reverts += 1;
        self.change(index, server, |link| *link = Link::default()).await
    }

    fn flush_caches(&mut self) {
        self.flushes += 1;
    }
}

/// The service; it goes with the value.
pub(crate) struct Resolved(Connection);

impl Resolved {
    pub(crate) fn start(folder: &Folder, index: u32, mut manager: Manager) -> Self {
        let address = format!("unix:path={}", folder.path().join("bus").display());
        manager.index = index.cast_signed();
        let builder = Builder::address(address.as_str()).unwrap().name(NAME).unwrap();
        let builder = builder.serve_at(PATH, manager).unwrap().serve_at(LINK, Link::default()).unwrap();
        Self(builder.build().unwrap())
    }

    pub(crate) fn link(&self) -> Link {
        self.0.object_server().interface::<_, Link>(LINK).unwrap().get().clone()
    }

    pub(crate) fn set(&self, link: Link) {
        *self.0.object_server().interface::<_, Link>(LINK).unwrap().get_mut() = link;
    }

    pub(crate) fn flushes(&self) -> u32 {
        self.0.object_server().interface::<_, Manager>(PATH).unwrap().get().flushes
    }

    pub(crate) fn reverts(&self) -> u32 {
        self.0.object_server().interface::<_, Manager>(PATH).unwrap().get().reverts
    }
}
