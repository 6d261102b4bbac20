//! What is in force on an interface, as far as packets can show it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use hub_common::address::{self, V4_OFFSET_BITS};
use hub_common::set::set_number;
use ipnet::IpNet;

use super::one_of;
use crate::model::SegmentId;
use crate::model::persona::Persona;
use crate::model::policy::Policy;
use crate::model::set::Elements;
use crate::systems::persona::lists::Lists;
use crate::view::switch::TunnelView;

/// What is in force on an interface: whose packets are judged by what.
#[derive(Clone, Debug, PartialEq)]
pub struct InForce {
    /// Whose packets they are to the data path.
    pub segment: SegmentId,
    /// Where they come in that members send.
    pub port: String,
    /// A member of each family.
    pub members: Vec<IpAddr>,
    /// The tunnel by which others reach the interface at addresses inside.
    pub tunnel: Option<TunnelView>,
    /// The rules that decide.
    pub deciding: Rules,
    /// Those of the personality beside.
    pub other: Option<Rules>,
}

/// Rules with what their sets hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// The rules.
    pub policy: Arc<Policy>,
    /// The sets, by number.
    pub sets: BTreeMap<u32, Members>,
}

/// What a set holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Members {
    pub(super) written: Arc<Elements>,
    pub(super) added: Elements,
}

impl Members {
    /// What the sets of a definition hold, and what was put into them at run time.
    pub fn of(persona: &Persona, lists: &Lists) -> BTreeMap<u32, Self> {
        let sets = persona.sets().iter().map(|(name, set)| {
            let added = lists.sets.get(name).cloned().unwrap_or_default();
            (set_number(name), Self { written: Arc::clone(&set.entries), added })
        });
        sets.collect()
    }

    /// Whether an address is in the set; nothing if that may be otherwise any moment.
    pub(super) fn has(&self, address: IpAddr) -> Option<bool> {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let mut comes_and_goes = false;
        for prefix in (0..=longest).filter_map(|length| IpNet::new(address, length).ok()) {
            let prefix = prefix.trunc();
            if self.written.get(&prefix) == Some(&None) {
                return Some(true);
            }
            comes_and_goes |= self.written.contains_key(&prefix) || self.added.contains_key(&prefix);
        }
        (!comes_and_goes).then_some(false)
    }

    /// An address of a family that is in the set for good.
    pub(super) fn one(&self, v4: bool) -> Option<IpAddr> {
        let mut for_good =
            self.written.iter().filter(|(net, end)| end.is_none() && net.addr().is_ipv4() == v4);
        for_good.next().map(|(net, _)| {
            let bits = net.prefix_len() + if v4 { V4_OFFSET_BITS } else { 0 };
            one_of(address::of(net.trunc().addr()), bits)
        })
    }
}
