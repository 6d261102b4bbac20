//! Policies as immutable values: built into free slots, named by one word.

use std::collections::BTreeMap;

use aya::Ebpf;
use aya::maps::{Array, IterableMap as _, MapData, MapError};
use hub_common::rule::{RULE_NONE, Rule};
use hub_common::segment::{Policy as Compiled, policy_slot, policy_word};

use super::ends::Ends;
use super::origins::Origins;
use super::port_sets::PortSets;
use super::slots::Slots;
use super::{MapFault, take};
use crate::kernel::batch::Store;
use crate::kernel::clock::Clock;
use crate::model::SegmentId;
use crate::model::policy::{Policy, Terms};

/// Slots that one policy occupies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Built {
    /// The word that a segment points with.
    pub word: u32,
    ingress: (u32, u32),
    egress: (u32, u32),
    /// Names of its port sets, by `hub_common::open::OPEN_*` place.
    pub(super) open: [u8; 4],
}

/// The policy and rule maps.
pub struct Policies {
    map: Array<MapData, Compiled>,
    rules: Array<MapData, Rule>,
    /// Both are written where nobody looks yet.
    stores: (Store<Compiled>, Store<Rule>),
    origins: Origins,
    port_sets: PortSets,
    policy_slots: Slots,
    rule_slots: Slots,
    /// Version of the last content of each slot that was used.
    versions: BTreeMap<u32, u32>,
    retired: Vec<Built>,
}

/// What a policy is built from beside itself.
struct Site<'a> {
    /// Whose live policy it is; `None` for one on trial.
    segment: Option<SegmentId>,
    policy: &'a Policy,
    ends: &'a Ends,
    clock: &'a Clock,
}

impl Policies {
    /// Takes the maps of an object; `live` are the words that segments of an earlier run point with.
    pub fn new(
        ebpf: &mut Ebpf,
        live: impl Iterator<Item = (SegmentId, u32)>,
        adopted: bool,
    ) -> Result<Self, MapFault> {
        let policies: Array<_, Compiled> = take(ebpf, "POLICIES")?;
        let rules: Array<_, Rule> = take(ebpf, "RULES")?;
        let mut made = Self {
            // Slot 0 is never used: the word 0 means none.
            policy_slots: Slots::new(1, policies.len()),
            rule_slots: Slots::new(0, rules.len()),
            versions: BTreeMap::new(),
            retired: Vec::new(),
            origins: Origins::new(ebpf, adopted)?,
            port_sets: PortSets::new(ebpf)?,
            stores: (Store::open(policies.map()), Store::open(rules.map())),
            map: policies,
            rules,
        };
        if adopted {
            made.adopt(live)?;
        }
        Ok(made)
    }

    /// Claims the slots of live policies, and notes the version of every slot ever used, so that a flow
    /// stamped with an old word never meets that word again.
    fn adopt(&mut self, live: impl Iterator<Item = (SegmentId, u32)>) -> Result<(), MapFault> {
        for slot in 1..self.map.len() {
            let policy = self.map.get(&slot, 0).map_err(|source| kernel("POLICIES", source))?;
            if policy.word != 0 {
                self.versions.insert(slot, policy.word >> hub_common::limits::POLICY_SLOT_BITS);
            }
        }
        for (segment, word) in live {
            let slot = policy_slot(word);
            let policy = self.map.get(&slot, 0).map_err(|source| kernel("POLICIES", source))?;
            self.policy_slots.claim(slot, 1);
            self.rule_slots.claim(policy.ingress_first, policy.ingress_count);
            self.rule_slots.claim(policy.egress_first, policy.egress_count);
            for name in policy.open {
                self.port_sets.adopt(name)?;
            }
            let runs =
                [(policy.ingress_first, policy.ingress_count), (policy.egress_first, policy.egress_count)];
            for (egress, (first, count)) in [false, true].into_iter().zip(runs) {
                for slot in first..first.saturating_add(count) {
                    let rule = self.rules.get(&slot, 0).map_err(|source| kernel("RULES", source))?;
                    self.origins.adopt(segment, egress, &rule)?;
                }
            }
        }
        Ok(())
    }

    /// The slots behind a word that an earlier run left.
    pub fn find(&self, word: u32) -> Option<Built> {
        let policy = self.map.get(&policy_slot(word), 0).ok()?;
        Some(Built {
            word,
            ingress: (policy.ingress_first, policy.ingress_count),
            egress: (policy.egress_first, policy.egress_count),
            open: policy.open,
        })
    }

    /// Writes a policy into free slots. Nothing points at it yet; on an error nothing is kept.
    pub(crate) fn build(
        &mut self,
        segment: SegmentId,
        policy: &Policy,
        ends: &Ends,
        clock: &Clock,
    ) -> Result<Built, MapFault> {
        let built = self.place(&Site { segment: Some(segment), policy, ends, clock })?;
        self.origins.keep(segment, policy);
        Ok(built)
    }

    /// As [`Self::build`], for a policy that decides nothing: its rules are not counted, and its limits
    /// always have room.
    pub(crate) fn build_on_trial(&mut self, policy: &Policy, clock: &Clock) -> Result<Built, MapFault> {
        self.place(&Site { segment: None, policy, ends: &Ends::new(policy, clock), clock })
    }

    fn place(&mut self, site: &Site<'_>) -> Result<Built, MapFault> {
        let full = |slots: &Slots, map| MapFault::Full { map, capacity: slots.capacity() };
        let slot = self.policy_slots.take(1).ok_or_else(|| full(&self.policy_slots, "POLICIES"))?;
        let version = self.versions.get(&slot).copied().unwrap_or_default().wrapping_add(1);
        let mut built =
            Built { word: policy_word(slot, version), ingress: (0, 0), egress: (0, 0), open: [0; 4] };
        let written = self.write(site, &mut built);
        match written {
            Ok(()) => {
                self.versions.insert(slot, version);
                Ok(built)
            }
            Err(error) => {
                self.give(&built);
                Err(error)
            }
        }
    }

    fn write(&mut self, site: &Site<'_>, built: &mut Built) -> Result<(), MapFault> {
        let policy = site.policy;
        built.ingress = self.write_rules(site, false, &policy.ingress)?;
        built.egress = self.write_rules(site, true, &policy.egress)?;
        for (name, ranges) in built.open.iter_mut().zip(&policy.open) {
            *name = self.port_sets.intern(ranges)?;
        }
        let compiled = Compiled {
            open: built.open,
            protocols: policy.protocols,
            ingress_default: policy.ingress_default,
            egress_default: policy.egress_default,
            ingress_first: built.ingress.0,
            ingress_count: built.ingress.1,
            egress_first: built.egress.0,
            egress_count: built.egress.1,
            flags: policy.flags,
            word: built.word,
            pad: 0,
        };
        let stored = self.stores.0.set(self.map.map(), policy_slot(built.word), &[compiled]);
        stored.map_err(|error| kernel("POLICIES", MapError::IoError(error)))
    }

    fn write_rules(&mut self, site: &Site<'_>, egress: bool, rules: &[Rule]) -> Result<(u32, u32), MapFault> {
        let count = u32::try_from(rules.len()).unwrap_or(u32::MAX);
        let capacity = self.rule_slots.capacity();
        let first = self.rule_slots.take(count).ok_or(MapFault::Full { map: "RULES", capacity })?;
        let finished = rules.iter().map(|rule| self.finish(site, egress, rule));
        let written = finished.collect::<Result<Vec<Rule>, MapFault>>().and_then(|rules| {
            let stored = self.stores.1.set(self.rules.map(), first, &rules);
            stored.map_err(|error| kernel("RULES", MapError::IoError(error)))
        });
        written.inspect_err(|_| self.rule_slots.give(first, count))?;
        Ok((first, count))
    }

    /// A rule with what only the data path knows: its counter, its limit, ticks.
    fn finish(&mut self, site: &Site<'_>, egress: bool, rule: &Rule) -> Result<Rule, MapFault> {
        let terms = site.policy.terms.get(&rule.identity);
        let limit = terms.and_then(Terms::limit);
        let quarantine = terms.and_then(|terms| terms.quarantine).map_or(0, |time| site.clock.ticks(time));
        let (counter, limit) = match site.segment {
            Some(segment) => (
                self.origins.counter(segment, egress, rule)?,
                limit.map_or(Ok(0), |limit| self.origins.limit(segment, rule, limit))?,
            ),
            None => (RULE_NONE, 0),
        };
        Ok(Rule {
            counter,
            limit,
            expires_tick: site.ends.of(rule.identity),
            quarantine_ticks: u32::try_from(quarantine).unwrap_or(u32::MAX),
            ..*rule
        })
    }

    /// Gives up everything that rules of a segment had.
    pub fn forget(&mut self, segment: SegmentId) {
        self.origins.forget(segment);
    }

    /// Takes a policy out of use: nothing points at it any more.
    pub fn retire(&mut self, built: Built) {
        self.retired.push(built);
    }

    /// Whether slots wait for a grace period.
    pub fn has_retired(&self) -> bool {
        !self.retired.is_empty() || self.origins.has_retired()
    }

    /// Frees the slots of retired policies; call after a grace period.
    pub fn reuse(&mut self) {
        for built in std::mem::take(&mut self.retired) {
            self.give(&built);
        }
        self.origins.reuse();
    }

    fn give(&mut self, built: &Built) {
        self.rule_slots.give(built.ingress.0, built.ingress.1);
        self.rule_slots.give(built.egress.0, built.egress.1);
        self.policy_slots.give(policy_slot(built.word), 1);
        for name in built.open {
            self.port_sets.release(name);
        }
    }
}

fn kernel(map: &'static str, source: MapError) -> MapFault {
    MapFault::Kernel { map, source }
}
