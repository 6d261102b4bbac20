//! Numbers of the data path as people read them: addresses, interfaces, personas.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use hub_common::address::Address;
use hub_common::outcome::FROM_HOST;
use nix::net::if_::if_indextoname;

use crate::view::{PersonaState, PersonaView, Snapshot};

/// What an answer calls the machine itself where an interface is asked for.
pub(crate) const HOST: &str = "host";

/// An address of the data path.
pub(crate) fn ip(address: &Address) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(*address)).to_canonical()
}

/// Name of an interface; one that is gone is known by its number.
pub(crate) fn interface(ifindex: u32) -> String {
    if ifindex == 0 || ifindex == FROM_HOST {
        return HOST.to_owned();
    }
    let name = if_indextoname(ifindex).ok().and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| format!("#{ifindex}"))
}

/// The persona of a segment; one that lives before one that left the number behind.
pub(crate) fn persona(snapshot: &Snapshot, segment: u32) -> Option<&Arc<PersonaView>> {
    let found = snapshot.personas.values().filter(|persona| persona.segment.0 == segment && segment != 0);
    found.max_by_key(|persona| persona.state != PersonaState::Expired)
}

/// Names of all personas by segment, as far as they are in the data path: 0 is nobody's.
pub(crate) fn personas(snapshot: &Snapshot) -> BTreeMap<u32, String> {
    let mut names = BTreeMap::new();
    for persona in snapshot.personas.values() {
        let Some(segment) = persona.in_datapath() else { continue };
        if persona.state == PersonaState::Expired {
            names.entry(segment.0).or_insert_with(|| persona.definition.name.clone());
        } else {
            names.insert(segment.0, persona.definition.name.clone());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_ipv4() {
        assert_eq!(ip(&hub_common::address::mapped([192, 0, 2, 7])).to_string(), "192.0.2.7");
        assert!(ip(&[0x20; 16]).is_ipv6());
    }
}
