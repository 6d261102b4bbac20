//! What follows a document's rule from one policy to the next: its hit counter and its limit.
//!
//! Compiled rules of one origin share both. They are known by segment and identity, which the compiled rules
//! carry, so that a later run finds them in the maps. Slots that no rule uses any more rest for a grace period.

use std::collections::{BTreeMap, BTreeSet};

use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuArray, PerCpuValues};
use hub_common::limit::Limit;
use hub_common::rule::{RULE_NONE, Rule};
use hub_common::stats::RuleHits;

use super::slots::Slots;
use super::{MapFault, take};
use crate::compile::SYNTHETIC_RULE;
use crate::model::SegmentId;
use crate::model::policy::{Policy, Terms};

/// Direction (true is egress) and identity.
type Counted = (bool, u64);
/// Series and identity, then everything that is fixed of a limit.
type Limited = (u8, u64, u64, u64, u32, u32);

/// The maps of hit counters and limits.
pub(crate) struct Origins {
    hits: PerCpuArray<MapData, RuleHits>,
    limits: Array<MapData, Limit>,
    hit_slots: Slots,
    limit_slots: Slots,
    counters: BTreeMap<SegmentId, BTreeMap<Counted, u32>>,
    buckets: BTreeMap<SegmentId, BTreeMap<Limited, u32>>,
    retired: Vec<u32>,
    retired_limits: Vec<u32>,
    /// Every counter from here on was never used, so it is zero.
    unused: u32,
    cpus: usize,
}

impl Origins {
    pub(crate) fn new(ebpf: &mut Ebpf, adopted: bool) -> Result<Self, MapFault> {
        let hits: PerCpuArray<_, RuleHits> = take(ebpf, "RULE_HITS")?;
        let limits: Array<_, Limit> = take(ebpf, "LIMITS")?;
        let cpus = aya::util::nr_cpus().map_err(|(_, source)| kernel("RULE_HITS", source.into()))?;
        Ok(Self {
            hit_slots: Slots::new(0, hits.len()),
            // Slot 0 means no limit.
            limit_slots: Slots::new(1, limits.len()),
            unused: if adopted { hits.len() } else { 0 },
            hits,
            limits,
            counters: BTreeMap::new(),
            buckets: BTreeMap::new(),
            retired: Vec::new(),
            retired_limits: Vec::new(),
            cpus,
        })
    }

    /// Takes over what a rule of an earlier run had.
    pub(crate) fn adopt(
        &mut self,
        (segment, series): (SegmentId, u8),
        egress: bool,
        rule: &Rule,
    ) -> Result<(), MapFault> {
        if rule.counter != RULE_NONE && self.hit_slots.claim(rule.counter, 1) {
            self.counters.entry(segment).or_default().insert((egress, rule.identity), rule.counter);
        }
        if rule.limit != 0 && self.limit_slots.claim(rule.limit, 1) {
            let limit = self.limits.get(&rule.limit, 0).map_err(|source| kernel("LIMITS", source))?;
            self.buckets.entry(segment).or_default().insert(key(series, rule.identity, &limit), rule.limit);
        }
        Ok(())
    }

    /// The counter of a rule: the one that it had before, or one that begins at zero.
    pub(crate) fn counter(&mut self, segment: SegmentId, egress: bool, rule: &Rule) -> Result<u32, MapFault> {
        if rule.index == SYNTHETIC_RULE {
            return Ok(RULE_NONE);
        }
        let known = self.counters.entry(segment).or_default();
        if let Some(slot) = known.get(&(egress, rule.identity)) {
            return Ok(*slot);
        }
        let capacity = self.hit_slots.capacity();
        let slot = self.hit_slots.take(1).ok_or(MapFault::Full { map: "RULE_HITS", capacity })?;
        if slot >= self.unused {
            self.unused = slot + 1;
        } else {
            let zeros = PerCpuValues::try_from(vec![RuleHits::ZERO; self.cpus]).map_err(Into::into);
            if let Err(source) = zeros.and_then(|zeros| self.hits.set(slot, zeros, 0)) {
                self.hit_slots.give(slot, 1);
                return Err(kernel("RULE_HITS", source));
            }
        }
        known.insert((egress, rule.identity), slot);
        Ok(slot)
    }

    /// The limit of a rule: the one that it had before, if it says the same, or one whose bucket is full. Policies
    /// that stand side by side are of different series: what one lets pass takes nothing from the other.
    pub(crate) fn limit(
        &mut self,
        (segment, series): (SegmentId, u8),
        rule: &Rule,
        limit: Limit,
    ) -> Result<u32, MapFault> {
        let known = self.buckets.entry(segment).or_default();
        let key = key(series, rule.identity, &limit);
        if let Some(slot) = known.get(&key) {
            if !limit.has_rate() {
                // One word of it may have changed, which packets read by itself.
                self.limits.set(*slot, limit, 0).map_err(|source| kernel("LIMITS", source))?;
            }
            return Ok(*slot);
        }
        let capacity = self.limit_slots.capacity();
        let slot = self.limit_slots.take(1).ok_or(MapFault::Full { map: "LIMITS", capacity })?;
        // Without what it says, the slot would be no limit, or another rule's.
        if let Err(source) = self.limits.set(slot, limit, 0) {
            self.limit_slots.give(slot, 1);
            return Err(kernel("LIMITS", source));
        }
        known.insert(key, slot);
        Ok(slot)
    }

    /// Gives up what no rule of a segment's policies uses.
    pub(crate) fn keep(&mut self, segment: SegmentId, policies: &[(u8, &Policy)]) {
        let lists =
            policies.iter().flat_map(|(_, policy)| [(false, &policy.ingress), (true, &policy.egress)]);
        let used: BTreeSet<Counted> =
            lists.flat_map(|(egress, rules)| rules.iter().map(move |rule| (egress, rule.identity))).collect();
        if let Some(counters) = self.counters.get_mut(&segment) {
            self.retired.extend(counters.extract_if(.., |key, _| !used.contains(key)).map(|(_, slot)| slot));
        }
        if let Some(buckets) = self.buckets.get_mut(&segment) {
            let says = |(series, policy): &(u8, &Policy), found: &Limited| {
                let limit = policy.terms.get(&found.1).and_then(Terms::limit);
                limit.is_some_and(|limit| key(*series, found.1, &limit) == *found)
            };
            let gone = buckets.extract_if(.., |found, _| !policies.iter().any(|policy| says(policy, found)));
            self.retired_limits.extend(gone.map(|(_, slot)| slot));
        }
    }

    /// Gives up everything of a segment.
    pub(crate) fn forget(&mut self, segment: SegmentId) {
        self.retired.extend(self.counters.remove(&segment).into_iter().flat_map(BTreeMap::into_values));
        self.retired_limits.extend(self.buckets.remove(&segment).into_iter().flat_map(BTreeMap::into_values));
    }

    /// Whether slots wait for a grace period.
    pub(crate) fn has_retired(&self) -> bool {
        !self.retired.is_empty() || !self.retired_limits.is_empty()
    }

    /// Frees the slots that were given up; call after a grace period.
    pub(crate) fn reuse(&mut self) {
        for slot in self.retired.drain(..) {
            self.hit_slots.give(slot, 1);
        }
        for slot in self.retired_limits.drain(..) {
            self.limit_slots.give(slot, 1);
        }
    }
}

fn key(series: u8, identity: u64, limit: &Limit) -> Limited {
    // Connections that exist go on counting when their number changes.
    let connections = if limit.has_rate() { limit.connections } else { 0 };
    (series, identity, limit.cost, limit.tolerance, limit.flags, connections)
}

fn kernel(map: &'static str, source: aya::maps::MapError) -> MapFault {
    MapFault::Kernel { map, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{BPF_F_RDONLY, may_make_maps};

    #[test]
    fn what_could_not_be_written_is_written_the_next_time() {
        if !may_make_maps() {
            return;
        }
        let mut origins = Origins {
            hits: PerCpuArray::create(4, BPF_F_RDONLY).unwrap(),
            limits: Array::create(4, BPF_F_RDONLY).unwrap(),
            hit_slots: Slots::new(0, 4),
            limit_slots: Slots::new(1, 4),
            counters: BTreeMap::new(),
            buckets: BTreeMap::new(),
            retired: Vec::new(),
            retired_limits: Vec::new(),
            unused: 4,
            cpus: aya::util::nr_cpus().unwrap(),
        };
        let rule = Rule { identity: 7, ..Rule::ZERO };
        let limit = Limit { cost: 5, tolerance: 50, ..Limit::ZERO };
        let segment = SegmentId(1);
        for _ in 0..10 {
            assert!(matches!(origins.limit((segment, 0), &rule, limit), Err(MapFault::Kernel { .. })));
            assert!(matches!(origins.counter(segment, false, &rule), Err(MapFault::Kernel { .. })));
        }
        origins.limits = Array::create(4, 0).unwrap();
        origins.hits = PerCpuArray::create(4, 0).unwrap();
        let slot = origins.limit((segment, 0), &rule, limit).unwrap();
        assert_eq!(origins.limits.get(&slot, 0).unwrap().cost, 5);
        let counter = origins.counter(segment, false, &rule).unwrap();
        assert_eq!(
            (
                origins.limit((segment, 0), &rule, limit).unwrap(),
                origins.counter(segment, false, &rule).unwrap()
            ),
            (slot, counter)
        );
    }
}
