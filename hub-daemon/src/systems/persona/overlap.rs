//! Ranges that several personas have: whoever came first keeps its range, the others get virtual ones.

use ipnet::IpNet;

use super::claims::{Claims, Prefixes, World};
use crate::command::Problem;
use crate::model::persona::Persona;
use crate::model::prefix;
use crate::model::translation::{self, Virtual};

/// What virtual ranges come from, and what is in their way.
pub struct Room<'a> {
    /// What personas hold.
    pub claims: &'a Claims,
    /// Ranges of personas that ended.
    pub graves: &'a Prefixes,
    /// Where IPv6 ranges come from that the configuration says nothing about.
    pub made_up: IpNet,
    /// Configuration and kernel.
    pub world: &'a World<'a>,
}

impl Room<'_> {
    /// The first range as long as this one that nothing is in the way of, nor of what is to be avoided.
    pub fn free(&self, range: &IpNet, avoid: &dyn Fn(&IpNet) -> Option<IpNet>) -> Option<IpNet> {
        let mut pools = self.world.config.overlap_pool.clone();
        pools.push(self.made_up);
        translation::free(range, &pools, &|candidate| avoid(candidate).or_else(|| self.taken(candidate)))
    }

    /// What is in the way of a virtual range.
    fn taken(&self, candidate: &IpNet) -> Option<IpNet> {
        let pools = self.world.config.pools.values().flat_map(|pool| &pool.prefixes);
        let routes = self.world.inventory.foreign_routes.iter().filter(|route| route.prefix_len() >= 8);
        let found = pools.chain(routes).find(|other| prefix::overlaps(other, candidate)).copied();
        let grave = || self.graves.overlapping(candidate).first().map(|(grave, _)| *grave);
        found.or_else(|| self.claims.holder(candidate)).or_else(grave)
    }
}

/// The virtual ranges that a persona had for ranges which it still has.
pub fn kept(persona: &Persona, before: &Virtual) -> Virtual {
    let mut virtuals = Virtual::default();
    for range in persona.ranges().iter().filter(|_| persona.may_be_translated()) {
        if let Some(kept) = before.get(range) {
            virtuals.insert(*range, kept);
        }
    }
    virtuals
}

/// Gives a persona virtual ranges where others hold its own. One that it had stays, also when its range
/// would be free now: others know it.
pub fn assign(persona: &Persona, before: &Virtual, room: &Room<'_>) -> Result<Virtual, Problem> {
    let mut virtuals = kept(persona, before);
    for range in persona.ranges().iter().filter(|_| persona.may_be_translated()) {
        let Some(holder) = room.claims.holder(range).filter(|_| virtuals.get(range).is_none()) else {
            continue;
        };
        let own = |candidate: &IpNet| {
            let given = virtuals.iter().map(|(_, given)| given);
            let mut own = given.chain(persona.ranges()).chain(persona.nat().external());
            own.find(|other| prefix::overlaps(other, candidate)).copied()
        };
        let Some(free) = room.free(range, &own) else {
            let detail = format!(
                "{range} overlaps {holder}, and overlap_pool has no free /{}: enlarge it in hub.yaml",
                range.prefix_len()
            );
            return Err(Problem::new("/ip_range", detail));
        };
        virtuals.insert(*range, free);
    }
    Ok(virtuals)
}
