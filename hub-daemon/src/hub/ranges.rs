//! Ranges out of pools: who has which, and which rest before somebody else gets them.

use std::collections::BTreeMap;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};

use super::{Hub, after, refused};
use crate::command::{Rejection, RejectionKind};
use crate::document::persona::PersonaDocument;
use crate::model::PersonaId;
use crate::model::persona::Persona;
use crate::model::pool::Pool;
use crate::model::prefix;
use crate::model::range::{Auto, first_free};
use crate::systems::persona::Record;
use crate::view::{PoolRange, PoolView};

/// Ranges that were given out.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges {
    taken: BTreeMap<IpNet, PersonaId>,
    resting: BTreeMap<IpNet, Timestamp>,
}

impl Ranges {
    pub(super) fn insert(&mut self, record: &Record) {
        self.taken.extend(record.persona.allotted().values().map(|range| (*range, record.id.clone())));
    }

    /// A range rests until then.
    pub(super) fn rest(&mut self, range: IpNet, until: Timestamp) {
        self.taken.remove(&range);
        self.resting.insert(range, until);
    }

    /// What rests elsewhere rests here too, unless it is taken.
    pub(super) fn rest_too(&mut self, others: &Self) {
        for (range, until) in &others.resting {
            if self.busy(range).is_none() {
                self.resting.insert(*range, *until);
            }
        }
    }

    /// Frees the ranges that have rested.
    pub(super) fn wake(&mut self, now: Timestamp) {
        self.resting.retain(|_, until| *until > now);
    }

    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.resting.values().min().copied()
    }

    pub(super) fn resting(&self) -> &BTreeMap<IpNet, Timestamp> {
        &self.resting
    }

    /// The clock was set: rests last as long as before.
    pub(super) fn shift(&mut self, by: SignedDuration) {
        for until in self.resting.values_mut() {
            *until = after(*until, by);
        }
    }

    /// A range in the way of a candidate.
    fn busy(&self, candidate: &IpNet) -> Option<IpNet> {
        overlap(&self.taken, candidate).or_else(|| overlap(&self.resting, candidate))
    }
}

/// A key that overlaps the prefix; no two keys overlap.
fn overlap<T>(held: &BTreeMap<IpNet, T>, candidate: &IpNet) -> Option<IpNet> {
    let before = held.range(..candidate).next_back().filter(|(other, _)| other.contains(candidate));
    let inside = || held.range(candidate..).next().filter(|(other, _)| candidate.contains(*other));
    before.or_else(inside).map(|(other, _)| *other)
}

impl Hub {
    /// Chooses the ranges that a document leaves to the hub; those that `old` has for the same words stay.
    pub(super) fn allot(
        &self,
        document: &PersonaDocument,
        old: Option<&Record>,
    ) -> Result<BTreeMap<usize, IpNet>, Rejection> {
        let written = document.ip_range.as_slice();
        if !written.iter().any(|text| text.trim_start().starts_with("auto")) {
            return Ok(BTreeMap::new());
        }
        let persona = Persona::new(document).map_err(super::admit::invalid)?;
        let mut kept: Vec<(&Auto, IpNet)> = old.map_or_else(Vec::new, |old| {
            let ranges = old.persona.allotted();
            old.persona.autos().iter().filter_map(|(at, auto)| Some((auto, *ranges.get(at)?))).collect()
        });
        let mut allotted: BTreeMap<usize, IpNet> = BTreeMap::new();
        let mut fresh = Vec::new();
        for (index, auto) in persona.autos() {
            match kept.iter().position(|(other, _)| *other == auto) {
                Some(at) => _ = allotted.insert(*index, kept.remove(at).1),
                None => fresh.push((*index, auto)),
            }
        }
        for (index, auto) in fresh {
            let range = self.choose(auto, persona.ranges(), &allotted).map_err(|(kind, detail)| {
                let pointer = if matches!(document.ip_range, crate::document::parts::OneOrMany::One(_)) {
                    "/ip_range".to_owned()
                } else {
                    format!("/ip_range/{index}")
                };
                refused(kind, &pointer, detail)
            })?;
            allotted.insert(index, range);
        }
        Ok(allotted)
    }

    fn choose(
        &self,
        auto: &Auto,
        own: &[IpNet],
        allotted: &BTreeMap<usize, IpNet>,
    ) -> Result<IpNet, (RejectionKind, String)> {
        let named = |name: &str| auto.pool.as_deref().is_none_or(|wanted| wanted == name);
        let pools: Vec<(&String, &Pool)> = self.config.pools.iter().filter(|(name, _)| named(name)).collect();
        let family = if auto.v4 { "IPv4" } else { "IPv6" };
        let prefixes: Vec<&IpNet> = pools
            .iter()
            .flat_map(|(_, pool)| &pool.prefixes)
            .filter(|prefix| prefix.addr().is_ipv4() == auto.v4)
            .collect();
        if prefixes.is_empty() {
            let detail = match &auto.pool {
                Some(name) if pools.is_empty() => format!("there is no pool `{name}` in hub.yaml"),
                Some(name) => format!("pool `{name}` has no {family} prefix"),
                None => format!("no pool with {family} prefixes: add one to `pools` in hub.yaml"),
            };
            return Err((RejectionKind::Invalid, detail));
        }
        let busy = |candidate: &IpNet| {
            let near = |other: &&IpNet| prefix::overlaps(other, candidate);
            let claimed = || self.claims.holder(candidate);
            let foreign =
                || self.inventory.foreign_routes.iter().find(|route| route.prefix_len() >= 8 && near(route));
            self.ranges
                .busy(candidate)
                .or_else(claimed)
                .or_else(|| allotted.values().chain(own).find(near).copied())
                .or_else(|| foreign().copied())
        };
        prefixes.into_iter().find_map(|prefix| first_free(prefix, auto.length, busy)).ok_or_else(|| {
            let resting = self.ranges.resting.len();
            let detail = format!(
                "no free {family} /{} in the pools; {resting} ranges rest after use and are free again soon",
                auto.length
            );
            (RejectionKind::Full, detail)
        })
    }

    /// The ranges of a persona that is no more, or no longer has them, rest.
    pub(super) fn rest_ranges(&mut self, before: &Persona, kept: Option<&Persona>, now: Timestamp) {
        for range in before.allotted().values() {
            if kept.is_some_and(|persona| persona.allotted().values().any(|other| other == range)) {
                continue;
            }
            self.rest_range(*range, now);
        }
    }

    /// Ranges that a persona had in a change that went back rest, as far as nobody has them.
    pub(super) fn rest_lost_ranges(&mut self, tried: &Persona, now: Timestamp) {
        for range in tried.allotted().values() {
            if self.ranges.busy(range).is_none() {
                self.rest_range(*range, now);
            }
        }
    }

    fn rest_range(&mut self, range: IpNet, now: Timestamp) {
        let mut pools = self.config.pools.values();
        let pool = pools.find(|pool| pool.prefixes.iter().any(|prefix| prefix.contains(&range)));
        let quarantine = pool.map(|pool| pool.quarantine).unwrap_or_default();
        let quarantine = SignedDuration::try_from(quarantine).unwrap_or(SignedDuration::MAX);
        self.ranges.rest(range, after(now, quarantine));
    }

    /// Pools as the outside sees them.
    pub(super) fn pools(&self) -> Vec<PoolView> {
        let inside = |pool: &Pool, range: &IpNet| pool.prefixes.iter().any(|prefix| prefix.contains(range));
        let view = |(name, pool): (&String, &Pool)| {
            let taken = self.ranges.taken.iter().filter(|(range, _)| inside(pool, range));
            let allotted: Vec<PoolRange> = taken
                .map(|(range, id)| PoolRange { range: range.to_string(), persona: self.name_of(id) })
                .collect();
            let resting = self.ranges.resting.keys().filter(|range| inside(pool, range));
            let resting: Vec<String> = resting.map(ToString::to_string).collect();
            let share = |range: &IpNet| {
                let home = pool.prefixes.iter().find(|prefix| prefix.contains(range));
                let whole: f64 = pool
                    .prefixes
                    .iter()
                    .filter(|prefix| prefix.addr().is_ipv4() == range.addr().is_ipv4())
                    .map(size)
                    .sum();
                home.map_or(0.0, |_| size(range) / whole)
            };
            let used = |v4: bool| {
                let taken = self.ranges.taken.keys().chain(self.ranges.resting.keys());
                let of_family = taken.filter(|range| range.addr().is_ipv4() == v4);
                of_family.map(share).sum::<f64>()
            };
            PoolView {
                name: name.clone(),
                prefixes: pool.prefixes.iter().map(ToString::to_string).collect(),
                quarantine_seconds: pool.quarantine.as_secs(),
                allotted,
                resting,
                used_ipv4: used(true),
                used_ipv6: used(false),
            }
        };
        self.config.pools.iter().map(view).collect()
    }

    fn name_of(&self, id: &PersonaId) -> String {
        self.records.get(id).map_or_else(|| id.to_string(), |record| record.persona.name().to_owned())
    }
}

/// Addresses in a prefix, relative to one address.
fn size(prefix: &IpNet) -> f64 {
    let bits = prefix.max_prefix_len() - prefix.prefix_len();
    2_f64.powi(i32::from(bits))
}
