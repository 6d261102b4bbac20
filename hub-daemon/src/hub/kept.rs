//! What was wanted last, kept to be amended: a change among very many personas costs what that one contributes.
//!
//! Most personas are lone: what they contribute depends on nothing but their record and the ground. While the
//! ground stays and only lone ones changed, what those contributed is taken out and what they contribute goes in.
//! Whatever else happens, and wherever entries would meet, everything is made anew by [`Hub::desired`], which this
//! always equals.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hub_common::segment::SEGMENT_SHAPED;
use ipnet::IpNet;
use jiff::Timestamp;

use super::Hub;
use super::services::Uses;
use crate::desired::shared_map::SharedMap;
use crate::desired::{Desired, RouteKey};
use crate::model::PersonaId;
use crate::model::translation::Nat;
use crate::systems::persona::Record;
use crate::systems::persona::place::{Ground, METRIC_BASE, METRIC_STEP};
use crate::systems::persona::seats::link_name;
use crate::systems::persona::shaping;
use crate::tables::sysctls;

/// What was wanted, and of whom.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    desired: Desired,
    records: BTreeMap<PersonaId, Was>,
    counts: Counts,
    /// The interface that lone personas share.
    shared: Option<String>,
}

/// A record as it was, and whether it worked.
#[derive(Clone, Debug)]
struct Was {
    record: Arc<Record>,
    works: bool,
}

/// How many working personas ask for what several may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    works: usize,
    shared: usize,
    shared_v6: usize,
    v6: usize,
    masquerade: usize,
}

impl Counts {
    fn of(was: &Was) -> Self {
        let persona = &was.record.persona;
        let shares = was.works && persona.attachments().is_empty() && persona.endpoints().is_empty();
        let v6 = was.works && persona.has_family(false);
        let masquerade = was.works && matches!(persona.nat(), Nat::Masquerade { .. });
        Self {
            works: was.works.into(),
            shared: shares.into(),
            shared_v6: (shares && v6).into(),
            v6: v6.into(),
            masquerade: masquerade.into(),
        }
    }

    fn each(self) -> [usize; 5] {
        [self.works, self.shared, self.shared_v6, self.v6, self.masquerade]
    }

    fn without(self, other: Self) -> Self {
        Self {
            works: self.works - other.works,
            shared: self.shared - other.shared,
            shared_v6: self.shared_v6 - other.shared_v6,
            v6: self.v6 - other.v6,
            masquerade: self.masquerade - other.masquerade,
        }
    }

    fn with(self, other: Self) -> Self {
        Self {
            works: self.works + other.works,
            shared: self.shared + other.shared,
            shared_v6: self.shared_v6 + other.shared_v6,
            v6: self.v6 + other.v6,
            masquerade: self.masquerade + other.masquerade,
        }
    }

    /// Whether each is asked for by somebody in both, or by nobody.
    fn asks_as(self, other: Self) -> bool {
        self.each().iter().zip(other.each()).all(|(one, other)| (*one == 0) == (other == 0))
    }
}

impl Hub {
    /// What [`Self::desired`] says, out of what was said last where only lone personas changed since.
    pub fn wanted(&mut self, now: Timestamp) -> Desired {
        if let Some(desired) = self.amend(now) {
            return desired;
        }
        let desired = self.desired(now);
        // Once there, they stay until there is no persona.
        self.queues_stand = !desired.queues.is_empty();
        let records: BTreeMap<PersonaId, Was> = self
            .records
            .shared()
            .map(|(id, record)| (id.clone(), Was { record: Arc::clone(record), works: record.works(now) }))
            .collect();
        let counts = records.values().map(Counts::of).fold(Counts::default(), Counts::with);
        let holders = records.values().filter(|was| was.record.holds_segment());
        let ranges: usize = holders.map(|was| was.record.persona.ranges().len()).sum();
        let shared = self.ground().shared;
        // Where a range is there twice, one of its owners hides another.
        self.kept = (ranges == desired.prefixes.len()).then(|| Kept {
            desired: desired.clone(),
            records,
            counts,
            shared,
        });
        desired
    }

    /// Amends what was wanted; `None` where everything is to be made anew.
    pub(super) fn amend(&mut self, now: Timestamp) -> Option<Desired> {
        let mut kept = self.kept.take()?;
        // What a switch makes of segments is laid over what their personas contribute.
        if !self.interfaces.records.is_empty() {
            return None;
        }
        let ground = self.ground();
        if ground.shared != kept.shared {
            return None;
        }
        let changed = self.changed_since(&kept, now);
        if changed.len() > kept.records.len() / 8 + 8 {
            return None;
        }
        let before = kept.counts;
        for (id, is) in changed {
            let was = match &is {
                Some(is) => kept.records.insert(id.clone(), is.clone()),
                None => kept.records.remove(&id),
            };
            let [old, new] = [&was, &is].map(|one| one.as_ref().map(|one| self.part(one, &ground, now)));
            let (old, new) = (old.unwrap_or(Some(Part::default()))?, new.unwrap_or(Some(Part::default()))?);
            let counts = [&was, &is].map(|one| one.as_ref().map(Counts::of).unwrap_or_default());
            let [gone, come] = counts;
            kept.counts = kept.counts.without(gone).with(come);
            kept.desired.amend(&old, &new)?;
        }
        if !kept.counts.asks_as(before) {
            return None;
        }
        let desired = kept.desired.clone();
        self.kept = Some(kept);
        Some(desired)
    }

    /// Records that are not what they were, with what they are.
    fn changed_since(&self, kept: &Kept, now: Timestamp) -> Vec<(PersonaId, Option<Was>)> {
        let mut changed = Vec::new();
        let mut old = kept.records.iter().peekable();
        for (id, record) in self.records.shared() {
            while let Some((gone, _)) = old.next_if(|(held, _)| *held < id) {
                changed.push((gone.clone(), None));
            }
            let was = old.next_if(|(held, _)| *held == id).map(|(_, was)| was);
            let works = record.works(now);
            if !was.is_some_and(|was| Arc::ptr_eq(&was.record, record) && was.works == works) {
                changed.push((id.clone(), Some(Was { record: Arc::clone(record), works })));
            }
        }
        changed.extend(old.map(|(gone, _)| (gone.clone(), None)));
        changed
    }

    /// What a record contributes by itself; `None` if it is not lone.
    fn part(&self, was: &Was, ground: &Ground<'_>, now: Timestamp) -> Option<Part> {
        let record = was.record.as_ref();
        if !self.is_lone(record) {
            return None;
        }
        let mut whole = Desired::default();
        let nobody = Uses::new(std::iter::empty());
        self.contribute(&mut whole, [(record, was.works)].into_iter(), ground, &nobody, now);
        let links: BTreeSet<String> =
            record.seats.values().map(|seat| link_name(record.segment, seat.number)).collect();
        Some(Part { has_ports: !record.persona.attachments().is_empty(), links, whole })
    }

    /// Whether a record and no other decides what it contributes, and it decides nothing of others.
    fn is_lone(&self, record: &Record) -> bool {
        let persona = &record.persona;
        let knows_nobody = persona.peers().is_empty()
            && persona.uses().is_empty()
            && persona.services().is_empty()
            && persona.next_hops().is_empty()
            && !persona.overrides();
        let has_own_ranges =
            record.virtuals.is_empty() && record.aliases.is_empty() && record.overridden.is_empty();
        let holders = |range: &IpNet| self.claims.holders(range);
        knows_nobody
            && has_own_ranges
            && shaping::flags(persona) & SEGMENT_SHAPED == 0
            && persona.ranges().iter().flat_map(holders).all(|(_, id)| id == record.id)
    }
}

/// What one record contributes.
#[derive(Debug, Default)]
struct Part {
    /// It has interfaces that are there without it.
    has_ports: bool,
    /// Interfaces that are there with it only.
    links: BTreeSet<String>,
    whole: Desired,
}

impl Part {
    fn owns(&self, switch: &str) -> bool {
        sysctls::interface(switch).is_some_and(|name| self.links.contains(name))
    }
}

impl Desired {
    /// Takes one part out and puts another in. Breaks off where an entry is not the part's alone.
    fn amend(&mut self, old: &Part, new: &Part) -> Option<()> {
        let same_ports = old.whole.ports == new.whole.ports
            && old.whole.sysctls == new.whole.sysctls
            && old.whole.gates == new.whole.gates;
        if (old.has_ports || new.has_ports) && !same_ports {
            return None;
        }
        let routes = old.whole.routes.keys().chain(new.whole.routes.keys());
        let next = |key: &RouteKey| RouteKey { metric: METRIC_BASE + METRIC_STEP, ..key.clone() };
        if routes.filter(|key| key.metric == METRIC_BASE).any(|key| self.routes.contains_key(&next(key))) {
            return None;
        }
        let (from, to) = (&old.whole, &new.whole);
        amend(&mut self.segments, &from.segments, &to.segments, |_| true)?;
        amend(&mut self.prefixes, &from.prefixes, &to.prefixes, |_| true)?;
        amend(&mut self.sets, &from.sets, &to.sets, |_| true)?;
        amend(&mut self.quarantine, &from.quarantine, &to.quarantine, |_| true)?;
        amend(&mut self.endpoints, &from.endpoints, &to.endpoints, |_| true)?;
        amend(&mut self.addresses, &from.addresses, &to.addresses, |_| true)?;
        amend(&mut self.gateways, &from.gateways, &to.gateways, |_| true)?;
        amend(&mut self.routes, &from.routes, &to.routes, |_| true)?;
        amend(&mut self.translations, &from.translations, &to.translations, |_| true)?;
        amend(&mut self.mtus, &from.mtus, &to.mtus, |_| true)?;
        amend(&mut self.connections, &from.connections, &to.connections, |_| true)?;
        amend(&mut self.detectors, &from.detectors, &to.detectors, |_| true)?;
        let owns = |name: &String| old.links.contains(name) || new.links.contains(name);
        amend(&mut self.ports, &from.ports, &to.ports, owns)?;
        amend(&mut self.queues, &from.queues, &to.queues, |key| owns(&key.interface))?;
        amend(&mut self.sysctls, &from.sysctls, &to.sysctls, |key| old.owns(key) || new.owns(key))
    }
}

/// Makes a table have the entries of one part instead of those of another, where it has none of somebody else.
/// What is not `own` is there as long as anybody asks for it.
fn amend<K: Ord + Clone, V: PartialEq + Clone>(
    table: &mut SharedMap<K, V>,
    old: &SharedMap<K, V>,
    new: &SharedMap<K, V>,
    own: impl Fn(&K) -> bool,
) -> Option<()> {
    for (key, before, after) in old.changes(new).filter(|(key, _, _)| own(key)) {
        if table.get(key) != before {
            return None;
        }
        match after {
            Some(after) => table.insert(key.clone(), after.clone()),
            None => table.remove(key),
        };
    }
    Some(())
}
