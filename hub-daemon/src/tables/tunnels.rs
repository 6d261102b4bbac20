//! WireGuard tunnels, in the hub's namespace or in those of members.
//!
//! Ours are links whose name begins with `hub` and whose group is ours, and those that a record below
//! `runtime_dir` names: that is written before anything is made, so that whatever a hub that died left behind is
//! found, in other namespaces too. The alias says which configuration was written last; it comes last of all.
//! Endpoints are not compared with what was found: peers may move. A change touches only what differs.

mod difference;
mod link;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Child;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkAttribute;
use nix::errno::Errno;
use tokio::sync::mpsc::Sender;

use self::difference::{alias, changes, is_written};
use self::link::{addresses, kernel_link, put_addresses};
use super::endpoints::GROUP;
use crate::desired::interfaces::{Tunnel, TunnelBackend};
use crate::desired::shared_map::SharedMap;
use crate::desired::{LINK_PREFIX, Namespace};
use crate::kernel::links::FoundLink;
use crate::kernel::member;
use crate::kernel::monitor::Change;
use crate::kernel::netlink::Netlink;
use crate::kernel::wireguard::keys;
use crate::kernel::wireguard::{Backend, Device, Place, WireguardError, process};
use crate::reconcile::Table;

/// A tunnel as found.
#[derive(Clone, Debug, Default)]
pub struct FoundTunnel {
    /// The link, if it is there.
    link: Option<FoundLink>,
    /// Its configuration; `None` also when its process died.
    device: Option<Device>,
    /// Its addresses where the hub's own table does not hold them.
    addresses: Option<BTreeSet<IpNet>>,
}

/// The tunnels.
pub struct Tunnels {
    netlink: Netlink,
    runtime_dir: PathBuf,
    /// Processes that this one started: whoever starts a process has to collect it.
    children: Vec<Child>,
    /// Processes whose ends are told, by tunnel.
    watched: BTreeMap<String, u32>,
    told: Option<Sender<Change>>,
}

impl Tunnels {
    /// Tunnels of the hub with this `runtime_dir`, in the namespace that the socket belongs to and in others.
    pub fn new(netlink: Netlink, runtime_dir: &Path) -> Self {
        Self {
            netlink,
            runtime_dir: runtime_dir.to_owned(),
            children: Vec::new(),
            watched: BTreeMap::new(),
            told: None,
        }
    }

    /// Says when a process of a tunnel ends, as if its link had changed.
    pub fn tell(&mut self, changes: Sender<Change>) {
        self.told = Some(changes);
    }

    fn place(&self, name: &str, namespace: Option<&Namespace>) -> Place {
        Place::new(&self.runtime_dir, name, namespace)
    }

    /// Tunnels by name: those of records, and links of the hub's namespace that look like ours.
    fn places(&mut self) -> Result<BTreeMap<String, Place>, WireguardError> {
        let mut places: BTreeMap<String, Place> = record::all(&self.runtime_dir)?
            .into_iter()
            .map(|(name, record)| (name.clone(), self.place(&name, record.namespace.as_ref())))
            .collect();
        for link in self.netlink.links()? {
            if looks_ours(&link) && !places.contains_key(&link.name) {
                let place = self.place(&link.name, None);
                places.insert(link.name, place);
            }
        }
        Ok(places)
    }

    fn found(place: &Place) -> FoundTunnel {
        let look = || {
            let mut netlink = Netlink::open()?;
            let link = netlink.link(&place.link)?;
            let addresses = match (&link, &place.namespace) {
                (Some(_), Some(_)) => Some(addresses(&place.link)?),
                _ => None,
            };
            Ok::<_, WireguardError>((link, addresses))
        };
        // A namespace that is gone holds nothing.
        let Ok(Ok((link, addresses))) = place.within(look) else { return FoundTunnel::default() };
        let device = link.as_ref().and_then(|link| {
            let device = place.status().ok()?;
            (device.backend == backend_of(&link.kind)).then_some(device)
        });
        FoundTunnel { link, device, addresses }
    }

    /// Makes the link, or starts the process of one that is there; whether the link is new.
    fn make(&mut self, place: &Place, tunnel: &Tunnel) -> Result<bool, WireguardError> {
        let recorded = record::find(&self.runtime_dir, &place.link)?;
        let there = place.within(|| Netlink::open()?.link(&place.link))??;
        if let Some(link) = &there {
            if !(looks_ours(link) || recorded.is_some() && is_tunnel(link)) {
                return Err(WireguardError::Foreign(place.link.clone()));
            }
            if recorded.as_ref().is_none_or(|record| record.namespace == tunnel.namespace)
                && suits(tunnel.backend, backend_of(&link.kind))
                && has_index(tunnel, link)
            {
                if backend_of(&link.kind) == Backend::Userspace && place.status().is_err() {
                    record::write(&self.runtime_dir, &place.link, tunnel.namespace.as_ref())?;
                    self.start(place, tunnel.index(&place.link))?;
                }
                return Ok(false);
            }
        }
        if there.is_some() || recorded.is_some() {
            self.remove(&place.link)?;
        }
        record::write(&self.runtime_dir, &place.link, tunnel.namespace.as_ref())?;
        match self.create(place, tunnel.backend, tunnel.index(&place.link)) {
            Ok(()) => Ok(true),
            Err(error) => Err(self.give_up(&place.link, error)),
        }
    }

    fn create(
        &mut self,
        place: &Place,
        backend: TunnelBackend,
        index: Option<u32>,
    ) -> Result<(), WireguardError> {
        if backend != TunnelBackend::Userspace {
            let made = place.within(|| {
                let message = RouteNetlinkMessage::NewLink(kernel_link(&place.link, index));
                let intent = format_args!("put tunnel {}", place.link);
                Netlink::open()?.change(message, NLM_F_CREATE | NLM_F_EXCL, intent)
            })?;
            match made {
                Err(error) if error.is(Errno::EOPNOTSUPP) => {}
                other => {
                    other?;
                    tracing::info!(tunnel = place.link, "the kernel encrypts");
                    return Ok(());
                }
            }
            if backend == TunnelBackend::Kernel {
                return Err(WireguardError::NoKernel(place.link.clone()));
            }
        }
        self.start(place, index)
    }

    fn start(&mut self, place: &Place, index: Option<u32>) -> Result<(), WireguardError> {
        if let Some(old) = process::find(&place.file("sock")) {
            end(place, old)?;
        }
        self.children.push(process::start(place, index)?);
        tracing::info!(tunnel = place.link, "a process encrypts: hub-wg");
        Ok(())
    }

    /// Configures a tunnel whose link is there.
    fn configure(place: &Place, tunnel: &Tunnel) -> Result<(), WireguardError> {
        let found = Self::found(place);
        let device = match found.device {
            Some(device) => device,
            None => place.status()?,
        };
        let written = found.link.as_ref().is_some_and(|link| is_written(tunnel, device.backend, &link.alias));
        let wanted = difference::read(tunnel)
            .map_err(|source| WireguardError::Key { link: place.link.clone(), source })?;
        let changes = changes(&wanted, &device, written);
        if !changes.is_empty() {
            place.change(&changes)?;
        }
        place.within(|| {
            let mut netlink = Netlink::open()?;
            let intent = format_args!("set up tunnel {}", place.link);
            let index = netlink.index(&place.link, intent)?;
            member::skip_duplicate_detection(&place.link);
            let attributes = vec![LinkAttribute::Mtu(tunnel.mtu), LinkAttribute::Group(GROUP)];
            if tunnel.segment.is_none() {
                netlink.set_up(index, attributes, intent)?;
            } else {
                netlink.set_link(index, attributes, intent)?;
            }
            if place.namespace.is_some() {
                put_addresses(&place.link, &tunnel.addresses)?;
            }
            let alias = alias(tunnel, device.backend);
            Ok(netlink.set_link(index, vec![LinkAttribute::IfAlias(alias)], intent)?)
        })?
    }

    /// Sets tunnels up whose packets are judged by now, if they are not; those that nobody judges are up already.
    pub fn raise(&mut self, tunnels: &SharedMap<String, Tunnel>, is_judged: impl Fn(&String) -> bool) {
        for (name, tunnel) in
            tunnels.iter().filter(|(name, tunnel)| tunnel.segment.is_some() && is_judged(name))
        {
            let place = self.place(name, tunnel.namespace.as_ref());
            let raised = place.within(|| {
                let mut netlink = Netlink::open()?;
                match netlink.link(name)? {
                    Some(link) if !link.up => {
                        netlink.set_up(link.index, Vec::new(), format_args!("set up tunnel {name}"))
                    }
                    Some(_) | None => Ok(()),
                }
            });
            // The next pass finds it down, and says why.
            if let Err(error) = raised.and_then(|raised| raised.map_err(WireguardError::from)) {
                tracing::warn!(tunnel = name, %error, "the tunnel is not up");
            }
        }
    }

    /// Removes a tunnel, its process and what is remembered of it.
    fn remove(&mut self, name: &str) -> Result<(), WireguardError> {
        let namespace = record::find(&self.runtime_dir, name)?.and_then(|record| record.namespace);
        let place = self.place(name, namespace.as_ref());
        if let Some(running) = process::find(&place.file("sock")) {
            end(&place, running)?;
        }
        match place.within(|| Netlink::open()?.delete_link(name)) {
            Ok(deleted) => deleted?,
            // It went with its namespace.
            Err(error) => tracing::debug!(tunnel = name, %error, "nothing to delete"),
        }
        for extension in ["sock", "log"] {
            let path = place.file(extension);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(WireguardError::Record { path, source });
                }
                Ok(()) | Err(_) => {}
            }
        }
        self.watched.remove(name);
        record::remove(&self.runtime_dir, name)
    }

    /// Takes back a tunnel that could not be made whole.
    fn give_up(&mut self, name: &str, error: WireguardError) -> WireguardError {
        if let Err(undo) = self.remove(name) {
            tracing::warn!(tunnel = name, error = %undo, "what was made of it is left behind");
        }
        error
    }

    /// Has the end of a tunnel's process told, once.
    fn watch(&mut self, place: &Place) {
        let (Some(told), Some(found)) = (&self.told, process::find(&place.file("sock"))) else { return };
        let (pid, told) = (found.pid, told.clone());
        if self.watched.insert(place.link.clone(), pid) == Some(pid) {
            return;
        }
        // Nobody listens any more when the daemon ends.
        let watched = found.watch(move || {
            told.blocking_send(Change::Links).ok();
        });
        if let Err(error) = watched {
            tracing::warn!(tunnel = place.link, %error, "the end of its process is seen late");
        }
    }

    fn collect(&mut self) {
        self.children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}

impl Table for Tunnels {
    type Key = String;
    type Value = Tunnel;
    type Found = FoundTunnel;
    type Error = WireguardError;
    const NAME: &'static str = "tunnels";
    // Namespaces are entered, and processes are waited for.
    const SLOW: bool = true;

    fn list(&mut self) -> Result<BTreeMap<String, FoundTunnel>, WireguardError> {
        self.collect();
        let mut found = BTreeMap::new();
        for (name, place) in self.places()? {
            self.watch(&place);
            found.insert(name, Self::found(&place));
        }
        Ok(found)
    }

    fn put(&mut self, name: &String, tunnel: &Tunnel) -> Result<(), WireguardError> {
        let key = |source| WireguardError::Key { link: name.clone(), source };
        // First, so that a bad key makes nothing.
        difference::read(tunnel).map_err(key)?;
        let place = self.place(name, tunnel.namespace.as_ref());
        let is_new = self.make(&place, tunnel);
        let put = is_new.and_then(|is_new| match Self::configure(&place, tunnel) {
            Err(error) if is_new => Err(self.give_up(name, error)),
            other => other,
        });
        self.watch(&place);
        put
    }

    fn delete(&mut self, name: &String) -> Result<(), WireguardError> {
        self.remove(name)?;
        self.collect();
        Ok(())
    }

    fn holds(wanted: &Tunnel, found: &FoundTunnel) -> bool {
        let (Some(link), Some(device)) = (&found.link, &found.device) else { return false };
        let same_key = match keys::read(&wanted.private_key_file) {
            Ok(key) => device.public_key == Some(keys::public(&key)),
            // What runs goes on without its file.
            Err(_) => device.public_key.is_some(),
        };
        same_key
            && has_index(wanted, link)
            && link.up
            && link.mtu == wanted.mtu
            && link.group == GROUP
            && suits(wanted.backend, device.backend)
            && is_written(wanted, device.backend, &link.alias)
            && difference::matches(wanted, device)
            && found.addresses.as_ref().is_none_or(|addresses| *addresses == wanted.addresses)
    }

    fn describe(name: &String) -> String {
        format!("tunnel {name}")
    }
}

fn end(place: &Place, running: process::Found) -> Result<(), WireguardError> {
    let failed = |source| WireguardError::Ask { intent: "end the process", link: place.link.clone(), source };
    running.end().map_err(failed)
}

/// Whether the hub made this link, by what the link says itself.
fn looks_ours(link: &FoundLink) -> bool {
    link.name.starts_with(LINK_PREFIX) && link.group == GROUP && is_tunnel(link)
}

/// Whether the link has the index that it must have, if it must have one.
fn has_index(tunnel: &Tunnel, link: &FoundLink) -> bool {
    tunnel.index(&link.name).is_none_or(|index| index == link.index)
}

fn is_tunnel(link: &FoundLink) -> bool {
    link.kind == "tun" || link.kind == "wireguard"
}

fn backend_of(kind: &str) -> Backend {
    if kind == "wireguard" { Backend::Kernel } else { Backend::Userspace }
}

const fn suits(wanted: TunnelBackend, found: Backend) -> bool {
    matches!(
        (wanted, found),
        (TunnelBackend::Auto, _)
            | (TunnelBackend::Kernel, Backend::Kernel)
            | (TunnelBackend::Userspace, Backend::Userspace)
    )
}
