//! Who may ask for the link addresses of the hub.

use std::net::IpAddr;

use hub_common::event::Reason;

use super::judge::{Step, refuse};
use super::kinds::is_link_local;
use super::{Model, Role, Verdict};

impl Model {
    /// What becomes of ARP.
    pub(super) fn arp(&self, role: Role, message: Result<Option<[IpAddr; 2]>, Reason>) -> Verdict {
        let judged = match message {
            _ if role == Role::Uplink => Ok(()),
            Err(reason) => refuse(reason),
            Ok(Some([sender, asked])) => self.own_gateway(role, sender, asked),
            Ok(None) => Ok(()),
        };
        judged.err().unwrap_or(Verdict::Skip)
    }

    /// Members get the addresses of the hub that are their persona's, and no others.
    pub(super) fn own_gateway(&self, role: Role, sender: IpAddr, asked: IpAddr) -> Step {
        if is_link_local(asked) || !self.locals.contains(&asked) {
            return Ok(());
        }
        let owner = self.segment_of(asked);
        let persona = match role {
            Role::Segment(bound) => Some(bound),
            Role::Shared => self.segment_of(sender),
            Role::Uplink => return Ok(()),
        };
        let own = match persona {
            Some(persona) => owner == Some(persona) || self.gateways.contains(&(persona, asked)),
            // A probe for duplicates, or a host that names itself by its link alone.
            None => owner.is_some(),
        };
        if own { Ok(()) } else { refuse(Reason::ForeignGateway) }
    }
}
