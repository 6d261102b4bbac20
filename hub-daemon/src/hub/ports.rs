//! Which port leads to an interface: named by its record, or the interface itself, under whatever name it has.
//!
//! An interface of the hub that is known by MAC or another name is followed when it is renamed or made anew. While a
//! switch is under way it stays where it was: its two personalities are of one port.

use jiff::Timestamp;

use super::{Hub, refused};
use crate::command::{Rejection, RejectionKind};
use crate::document::parts::InterfaceDocument;
use crate::model::interface::InterfaceRecord;
use crate::model::personality::{Personality, Version};

impl Hub {
    /// The port that leads to an interface, as long as nobody looked where the interface is by now.
    pub(super) fn port_of(&self, settings: &InterfaceRecord) -> String {
        let known = settings.port.clone().or_else(|| self.carried_by(&settings.name));
        known.unwrap_or_else(|| self.found_port(settings))
    }

    /// Why a personality is of another VLAN than the link that leads to an interface, as far as the link is known.
    pub(super) fn off_vlan(&self, settings: &InterfaceRecord, personality: &Personality) -> Option<String> {
        let name = personality.subnet()?;
        let wanted = self.config.subnets.get(name)?.vlan?;
        let port = self.port_of(settings);
        let link = self.inventory.links.get(&port)?;
        let subnet = format!("subnet `{name}` is on VLAN {wanted}, and {port} is");
        match link.vlan {
            Some(vlan) if vlan == wanted => None,
            Some(vlan) => Some(format!("{subnet} a device of VLAN {vlan}: use one of VLAN {wanted}")),
            None => Some(format!(
                "{subnet} no device of a VLAN: use one, like that of `ip link add link {port} name {port}.{wanted} type \
                 vlan id {wanted}`"
            )),
        }
    }

    /// Refuses a personality of another VLAN than the link that leads to the interface.
    pub(super) fn on_vlan(
        &self,
        settings: &InterfaceRecord,
        version: &Version,
        pointer: &str,
    ) -> Result<(), Rejection> {
        match self.off_vlan(settings, &self.kept(version)?.personality) {
            None => Ok(()),
            Some(detail) => Err(refused(RejectionKind::Invalid, pointer, detail)),
        }
    }

    /// The name that an interface of the hub has by now.
    fn found_port(&self, settings: &InterfaceRecord) -> String {
        let selector = &settings.place.selector;
        self.inventory.name_of(selector).cloned().unwrap_or_else(|| selector.stand_in())
    }

    /// The port of the persona that carries the personality of an interface.
    fn carried_by(&self, name: &str) -> Option<String> {
        let record = self.interfaces.records.get(name)?;
        let ports = self.records.get(&record.carrier)?.document.interfaces.as_ref()?;
        match ports.first()? {
            InterfaceDocument::Name(port) => Some(port.clone()),
            InterfaceDocument::Placed(placed) => Some(placed.name.clone()),
        }
    }

    /// Follows interfaces of the hub that have another name by now, are gone or are there again.
    pub(super) fn follow_ports(&mut self, now: Timestamp) {
        let records = self.interfaces.records.iter();
        let own = records.filter(|(_, record)| record.settings.port.is_none() && record.switch.is_none());
        let moved = own.filter_map(|(name, record)| {
            let port = self.found_port(&record.settings);
            (self.carried_by(name).as_ref() != Some(&port))
                .then(|| (name.clone(), record.layout.clone(), port))
        });
        for (name, layout, port) in moved.collect::<Vec<_>>() {
            let said = match self.lay_on(&name, layout, &port, now) {
                Ok(()) => format!("its port is {port}"),
                Err(rejection) => {
                    let why = rejection.problems.first().map_or("", |problem| problem.detail.as_str());
                    format!("its packets are not judged: port {port}: {why}")
                }
            };
            self.interfaces_mut().notices.push((name, said));
        }
    }
}
