//! Which neighbours answer, and at which MAC: to tell changes that matter from the kernel's book-keeping.
//!
//! The kernel reports each neighbour several times a minute while it checks that it still answers. Next hops
//! cached by the data path care only about the MAC, and whether there is one.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};

use super::netlink::{Netlink, NetlinkError};

/// Permanent, reachable, probe, stale or delay. Not `NUD_NOARP`: such entries (multicast, links without
/// MACs) come and go, and their MAC follows from the address.
const VALID: u16 = 0x80 | 0x02 | 0x10 | 0x04 | 0x08;

/// MAC addresses of neighbours that have a valid one, by interface and address.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Neighbours(BTreeMap<(u32, IpAddr), Vec<u8>>);

impl Neighbours {
    /// What the kernel knows.
    pub fn read(netlink: &mut Netlink) -> Result<Self, NetlinkError> {
        let mut neighbours = Self::default();
        let question = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        for message in netlink.dump(&question, "list neighbours")? {
            neighbours.learn(&message);
        }
        Ok(neighbours)
    }

    /// Takes in one message; whether it changed something that matters.
    pub fn learn(&mut self, message: &RouteNetlinkMessage) -> bool {
        if let RouteNetlinkMessage::NewNeighbour(message) = message {
            let Some((key, mac)) = parts(message) else { return false };
            if u16::from(message.header.state) & VALID == 0 {
                return self.0.remove(&key).is_some();
            }
            return self.0.insert(key, mac.clone()) != Some(mac);
        }
        if let RouteNetlinkMessage::DelNeighbour(message) = message {
            return parts(message).is_some_and(|(key, _)| self.0.remove(&key).is_some());
        }
        false
    }
}

fn parts(message: &NeighbourMessage) -> Option<((u32, IpAddr), Vec<u8>)> {
    let (mut address, mut mac) = (None, Vec::new());
    for attribute in &message.attributes {
        if let NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) = attribute {
            address = Some(IpAddr::V4(*found));
        } else if let NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) = attribute {
            address = Some(IpAddr::V6(*found));
        } else if let NeighbourAttribute::LinkLayerAddress(found) = attribute {
            mac.clone_from(found);
        }
    }
    Some(((message.header.ifindex, address?), mac))
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::neighbour::NeighbourState;

    use super::*;

    fn neighbour(state: NeighbourState, mac: u8) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = 3;
        message.header.state = state;
        message.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet([10, 0, 0, 1].into())),
            NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, mac]),
        ];
        message
    }

    #[test]
    fn only_mac_and_validity_matter() {
        let mut neighbours = Neighbours::default();
        let mut learn =
            |state, mac| neighbours.learn(&RouteNetlinkMessage::NewNeighbour(neighbour(state, mac)));
        assert!(!learn(NeighbourState::Incomplete, 1), "not there yet");
        assert!(learn(NeighbourState::Reachable, 1));
        for state in [NeighbourState::Stale, NeighbourState::Delay, NeighbourState::Probe] {
            assert!(!learn(state, 1), "{state:?} is churn");
        }
        assert!(learn(NeighbourState::Reachable, 2), "another MAC");
        assert!(learn(NeighbourState::Failed, 2), "gone");
        assert!(!learn(NeighbourState::Failed, 2), "still gone");
        assert!(learn(NeighbourState::Permanent, 2));
        let gone = RouteNetlinkMessage::DelNeighbour(neighbour(NeighbourState::Permanent, 2));
        assert!(neighbours.learn(&gone));
        assert!(!neighbours.learn(&gone));
    }
}
