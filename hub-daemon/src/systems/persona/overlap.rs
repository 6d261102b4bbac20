//! Ranges that several personas have: whoever came first keeps its range, the others get virtual ones.

use ipnet::IpNet;

use super::claims::{Claims, Prefixes, World};
use crate::command::Problem;
use crate::model::persona::Persona;
use crate::model::prefix;
use crate::model::translation::{self, Virtual};

/// Gives a persona virtual ranges where others hold its own. One that it had stays, also when its range
/// would be free now: others know it.
pub fn assign(
    persona: &Persona,
    before: &Virtual,
    claims: &Claims,
    graves: &Prefixes,
    made_up: IpNet,
    world: &World<'_>,
) -> Result<Virtual, Problem> {
    let mut virtuals = Virtual::default();
    if !persona.may_overlap() {
        return Ok(virtuals);
    }
    let mut pools = world.config.overlap_pool.clone();
    pools.push(made_up);
    for range in persona.ranges() {
        if let Some(kept) = before.get(range) {
            virtuals.insert(*range, kept);
            continue;
        }
        let Some(holder) = claims.holder(range) else { continue };
        let given = |candidate: &IpNet| {
            let given = virtuals.iter().map(|(_, given)| given);
            let mut own = given.chain(persona.ranges()).chain(persona.nat().external());
            own.find(|other| prefix::overlaps(other, candidate)).copied()
        };
        let in_the_way =
            |candidate: &IpNet| given(candidate).or_else(|| taken(candidate, claims, graves, world));
        let Some(free) = translation::free(range, &pools, &in_the_way) else {
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

/// Gives the range of somebody who keeps it another name, for those who have the same range.
pub fn alias(
    range: &IpNet,
    claims: &Claims,
    graves: &Prefixes,
    made_up: IpNet,
    world: &World<'_>,
) -> Option<IpNet> {
    let mut pools = world.config.overlap_pool.clone();
    pools.push(made_up);
    translation::free(range, &pools, &|candidate| taken(candidate, claims, graves, world))
}

/// What is in the way of a virtual range.
fn taken(candidate: &IpNet, claims: &Claims, graves: &Prefixes, world: &World<'_>) -> Option<IpNet> {
    let pools = world.config.pools.values().flat_map(|pool| &pool.prefixes);
    let routes = world.inventory.foreign_routes.iter().filter(|route| route.prefix_len() >= 8);
    let found = pools.chain(routes).find(|other| prefix::overlaps(other, candidate)).copied();
    let grave = || graves.overlapping(candidate).first().map(|(grave, _)| *grave);
    found.or_else(|| claims.holder(candidate)).or_else(grave)
}
