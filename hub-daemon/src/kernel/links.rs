//! Links as the kernel lists them, reduced to what the hub looks at.

use std::collections::BTreeMap;
use std::fmt::Display;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoVlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, Prop,
    VlanProtocol,
};
use nix::errno::Errno;

use super::netlink::{Netlink, NetlinkError};
use crate::desired::interfaces::{Known, Selector};

/// One link of a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundLink {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// Kind (`veth`, `bridge`, …), empty for physical devices.
    pub kind: String,
    /// Its number, if it is a device of one VLAN (802.1Q).
    pub vlan: Option<u16>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Whether an administrator wants it up.
    pub up: bool,
    /// Whether it is up and has a carrier.
    pub running: bool,
    /// Whether frames have no Ethernet header.
    pub l3_only: bool,
    /// MAC address, zeros where it has none.
    pub mac: [u8; 6],
    /// Group number; 0 unless somebody set one.
    pub group: u32,
    /// Text that somebody attached to it.
    pub alias: String,
    /// Other names that it was given.
    pub other_names: Vec<String>,
}

/// Why no link, or no single one, is meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// None fits.
    #[error("there is no interface {0}")]
    None(String),
    /// Several fit.
    #[error("interfaces {} are all {selector}: name the one that is meant", names.join(", "))]
    Several {
        /// What was looked for.
        selector: String,
        /// Their names.
        names: Vec<String>,
    },
}

/// The link that is meant.
pub fn select<'a>(links: &'a [FoundLink], selector: &Selector) -> Result<&'a FoundLink, SelectError> {
    let found = selector.among(links.iter(), |link| Known {
        name: &link.name,
        mac: link.mac,
        other_names: &link.other_names,
        kind: &link.kind,
    });
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(SelectError::None(selector.to_string())),
        several => Err(SelectError::Several {
            selector: selector.to_string(),
            names: several.iter().map(|link| link.name.clone()).collect(),
        }),
    }
}

impl From<LinkMessage> for FoundLink {
    fn from(message: LinkMessage) -> Self {
        let header = message.header;
        let mut link = Self {
            index: header.index,
            up: header.flags.contains(LinkFlags::Up),
            running: header.flags.contains(LinkFlags::Up | LinkFlags::Running),
            // The loopback has an Ethernet header of zeros.
            l3_only: !matches!(header.link_layer_type, LinkLayerType::Ether | LinkLayerType::Loopback),
            ..Self::default()
        };
        for attribute in message.attributes {
            if let LinkAttribute::IfName(name) = attribute {
                link.name = name;
            } else if let LinkAttribute::Mtu(mtu) = attribute {
                link.mtu = mtu;
            } else if let LinkAttribute::Address(address) = attribute {
                link.mac = address.try_into().unwrap_or_default();
            } else if let LinkAttribute::Group(group) = attribute {
                link.group = group;
            } else if let LinkAttribute::IfAlias(alias) = attribute {
                link.alias = alias;
            } else if let LinkAttribute::PropList(list) = attribute {
                link.other_names = list.into_iter().filter_map(other_name).collect();
            } else if let LinkAttribute::LinkInfo(info) = attribute {
                link.kind = info.iter().find_map(kind).unwrap_or_default();
                link.vlan = info.iter().find_map(vlan);
            }
        }
        link
    }
}

fn other_name(property: Prop) -> Option<String> {
    if let Prop::AltIfName(name) = property { Some(name) } else { None }
}

fn kind(info: &LinkInfo) -> Option<String> {
    if let LinkInfo::Kind(kind) = info { Some(kind.to_string()) } else { None }
}

/// The number of a VLAN of 802.1Q, and not of a service provider (802.1ad).
fn vlan(info: &LinkInfo) -> Option<u16> {
    let LinkInfo::Data(InfoData::Vlan(facts)) = info else { return None };
    let is_q = facts.iter().all(|fact| !matches!(fact, InfoVlan::Protocol(VlanProtocol::Ieee8021Ad)));
    let number = |fact: &InfoVlan| if let InfoVlan::Id(number) = fact { Some(*number) } else { None };
    facts.iter().find_map(number).filter(|_| is_q)
}

/// Names of links by index and the other way round, as of one moment.
#[derive(Clone, Debug, Default)]
pub struct LinkNames {
    by_name: BTreeMap<String, u32>,
    by_index: BTreeMap<u32, String>,
}

impl LinkNames {
    /// Index of the link of this name.
    pub fn index(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// Name of the link of this index.
    pub fn name(&self, index: u32) -> Option<&str> {
        self.by_index.get(&index).map(String::as_str)
    }
}

impl Netlink {
    /// Every link of the namespace.
    pub fn links(&mut self) -> Result<Vec<FoundLink>, NetlinkError> {
        let found = self.dump(&RouteNetlinkMessage::GetLink(question()), "list links")?;
        Ok(found.into_iter().filter_map(link).collect())
    }

    /// Names of every link.
    pub fn link_names(&mut self) -> Result<LinkNames, NetlinkError> {
        let mut names = LinkNames::default();
        for link in self.links()? {
            names.by_name.insert(link.name.clone(), link.index);
            names.by_index.insert(link.index, link.name);
        }
        Ok(names)
    }

    /// One link, if it exists.
    pub fn link(&mut self, name: &str) -> Result<Option<FoundLink>, NetlinkError> {
        let mut message = question();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.get(RouteNetlinkMessage::GetLink(message), format_args!("look up interface `{name}`")) {
            Ok(found) => Ok(found.into_iter().find_map(link)),
            Err(error) if error.is(Errno::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Index of a link that an object needs.
    pub fn index(&mut self, name: &str, intent: impl Display) -> Result<u32, NetlinkError> {
        match self.link(name)? {
            Some(link) => Ok(link.index),
            None => Err(NetlinkError::NoInterface { intent: intent.to_string(), interface: name.to_owned() }),
        }
    }

    /// Sets a link up and gives it what `attributes` say.
    pub fn set_up(
        &mut self,
        index: u32,
        attributes: Vec<LinkAttribute>,
        intent: impl Display,
    ) -> Result<(), NetlinkError> {
        self.set(index, LinkFlags::Up, attributes, intent)
    }

    /// Gives a link what `attributes` say; it stays up, or down.
    pub fn set_link(
        &mut self,
        index: u32,
        attributes: Vec<LinkAttribute>,
        intent: impl Display,
    ) -> Result<(), NetlinkError> {
        self.set(index, LinkFlags::empty(), attributes, intent)
    }

    /// Turns these flags of a link on, and gives it these attributes.
    fn set(
        &mut self,
        index: u32,
        flags: LinkFlags,
        attributes: Vec<LinkAttribute>,
        intent: impl Display,
    ) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = flags;
        message.header.change_mask = flags;
        message.attributes = attributes;
        self.change(RouteNetlinkMessage::SetLink(message), 0, intent)
    }

    /// Sets the largest packet of a link.
    pub fn set_mtu(&mut self, index: u32, mtu: u32, intent: impl Display) -> Result<(), NetlinkError> {
        self.set_link(index, vec![LinkAttribute::Mtu(mtu)], intent)
    }

    /// Moves a link to another group; success if it is gone.
    pub fn set_group(&mut self, name: &str, group: u32) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::Group(group)];
        let intent = format_args!("set the group of interface `{name}`");
        match self.change(RouteNetlinkMessage::SetLink(message), 0, intent) {
            Err(error) if !error.is(Errno::ENODEV) => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes all links of a group in one step; success if there are none.
    pub fn delete_group(&mut self, group: u32) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::Group(group));
        let intent = format_args!("delete the interfaces of group {group}");
        match self.change(RouteNetlinkMessage::DelLink(message), 0, intent) {
            Err(error) if !error.is(Errno::ENODEV) => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes a link; success if it is gone already.
    pub fn delete_link(&mut self, name: &str) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.change(RouteNetlinkMessage::DelLink(message), 0, format_args!("delete interface `{name}`"))
        {
            Err(error) if !error.is(Errno::ENODEV) => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Counters make up most of a link message, and nobody here reads them.
fn question() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

fn link(message: RouteNetlinkMessage) -> Option<FoundLink> {
    if let RouteNetlinkMessage::NewLink(message) = message { Some(message.into()) } else { None }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::InfoKind;

    use super::*;

    fn link(name: &str, kind: &str, mac: u8, other: &[&str]) -> FoundLink {
        FoundLink {
            name: name.into(),
            kind: kind.into(),
            mac: [2, 0, 0, 0, 0, mac],
            other_names: other.iter().map(ToString::to_string).collect(),
            ..FoundLink::default()
        }
    }

    #[test]
    fn devices_of_vlans_have_their_number() {
        let found = |facts: Vec<InfoVlan>| {
            let info = vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(InfoData::Vlan(facts))];
            let mut message = LinkMessage::default();
            message.attributes.push(LinkAttribute::LinkInfo(info));
            let link = FoundLink::from(message);
            assert_eq!(link.kind, "vlan");
            link.vlan
        };
        let protocol = InfoVlan::Protocol;
        assert_eq!(found(vec![protocol(VlanProtocol::Ieee8021Q), InfoVlan::Id(7)]), Some(7));
        assert_eq!(found(vec![protocol(VlanProtocol::Ieee8021Ad), InfoVlan::Id(7)]), None);
        assert_eq!(found(Vec::new()), None);
    }

    #[test]
    fn links_are_known_by_name_mac_and_other_name() {
        let links =
            [link("eth0", "", 1, &["uplink"]), link("eth0.5", "vlan", 1, &[]), link("eth1", "veth", 2, &[])];
        let name = |selector| select(&links, &selector).map(|link| link.name.clone());
        assert_eq!(name(Selector::Name("eth1".into())).unwrap(), "eth1");
        assert_eq!(name(Selector::AltName("uplink".into())).unwrap(), "eth0");
        assert_eq!(name(Selector::Mac([2, 0, 0, 0, 0, 1])).unwrap(), "eth0", "not what is on top of it");
        let error = name(Selector::AltName("eth1".into())).unwrap_err();
        assert_eq!(error.to_string(), "there is no interface with the other name `eth1`");
        let twins = [link("a", "veth", 1, &[]), link("b", "veth", 1, &[])];
        let error = select(&twins, &Selector::Mac([2, 0, 0, 0, 0, 1])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "interfaces a, b are all with the MAC 02:00:00:00:00:01: name the one that is meant"
        );
    }
}
