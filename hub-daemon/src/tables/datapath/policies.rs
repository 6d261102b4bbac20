//! Policies as immutable values: built into free slots, named by one word.

use std::collections::{BTreeMap, BTreeSet};

use aya::Ebpf;
use aya::maps::{Array, IterableMap as _, MapData, MapError};
use hub_common::rule::Rule;
use hub_common::segment::{Policy as Compiled, policy_slot, policy_word};
use hub_common::shape::Shape;

use super::ends::Ends;
use super::origins::Origins;
use super::port_sets::PortSets;
use super::signatures::Signatures;
use super::slots::Slots;
use super::{MapFault, fault, take};
use crate::kernel::batch::{self, Store};
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
    shapes: Array<MapData, Shape>,
    rules: Array<MapData, Rule>,
    /// Both are written where nobody looks yet.
    stores: (Store<Compiled>, Store<Rule>),
    origins: Origins,
    port_sets: PortSets,
    signatures: Signatures,
    policy_slots: Slots,
    rule_slots: Slots,
    /// Version of the last content of each slot that was used.
    versions: BTreeMap<u32, u32>,
    /// Slots whose shape is not zero.
    shaped: BTreeSet<u32>,
    retired: Vec<Built>,
}

/// What a policy is built from.
pub(crate) struct Site<'a> {
    /// Whose it is, and the series of its limits: policies that stand side by side have different ones.
    pub(crate) owner: (SegmentId, u8),
    pub(crate) policy: &'a Policy,
    /// What packets get beside a verdict; zero for nothing.
    pub(crate) shape: &'a Shape,
    pub(crate) ends: &'a Ends,
    pub(crate) clock: &'a Clock,
}

impl Policies {
    /// Takes the maps of an object; `live` are the words that segments of an earlier run point with, and the series
    /// of what hangs on them.
    pub fn new(
        ebpf: &mut Ebpf,
        live: impl Iterator<Item = ((SegmentId, u8), u32)>,
        adopted: bool,
    ) -> Result<Self, MapFault> {
        let policies: Array<_, Compiled> = take(ebpf, "POLICIES")?;
        let rules: Array<_, Rule> = take(ebpf, "RULES")?;
        let mut made = Self {
            // Slot 0 is never used: the word 0 means none.
            policy_slots: Slots::new(1, policies.len()),
            rule_slots: Slots::new(0, rules.len()),
            versions: BTreeMap::new(),
            shaped: BTreeSet::new(),
            shapes: take(ebpf, "SHAPES")?,
            retired: Vec::new(),
            origins: Origins::new(ebpf, adopted)?,
            port_sets: PortSets::new(ebpf)?,
            signatures: Signatures::new(ebpf, adopted)?,
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
    fn adopt(&mut self, live: impl Iterator<Item = ((SegmentId, u8), u32)>) -> Result<(), MapFault> {
        batch::range(self.map.map(), 1, self.map.len(), |slot, policies: &[Compiled]| {
            for policy in policies.iter().filter(|policy| policy.word != 0) {
                self.versions.insert(slot, policy.word >> hub_common::limits::POLICY_SLOT_BITS);
                self.shaped.insert(slot);
            }
        })
        .map_err(fault("POLICIES"))?;
        for (owner, word) in live {
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
                let mut rules = Vec::new();
                batch::range(self.rules.map(), first, count, |_, found: &[Rule]| rules.extend(found))
                    .map_err(fault("RULES"))?;
                for rule in &rules {
                    self.origins.adopt(owner, egress, rule)?;
                    self.signatures.adopt(word, rule.signature);
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

    /// Gives up the counters and limits that no rule of a segment's policies uses.
    pub(crate) fn keep(&mut self, segment: SegmentId, policies: &[(u8, &Policy)]) {
        self.origins.keep(segment, policies);
    }

    /// Writes a policy into free slots. Nothing points at it yet; on an error nothing is kept.
    pub(crate) fn build(&mut self, site: &Site<'_>) -> Result<Built, MapFault> {
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
        let asked = policy.signatures.iter();
        let names = asked.map(|asked| self.signatures.intern(built.word, asked, site.clock.now()));
        let names = names.collect::<Result<Vec<u8>, _>>()?;
        built.ingress = self.write_rules(site, &names, false)?;
        built.egress = self.write_rules(site, &names, true)?;
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
        self.write_shape(policy_slot(built.word), site.shape)?;
        let stored = self.stores.0.set(self.map.map(), policy_slot(built.word), &[compiled]);
        stored.map_err(|error| kernel("POLICIES", MapError::IoError(error)))
    }

    /// Most policies have no shape, and most slots had none before.
    fn write_shape(&mut self, slot: u32, shape: &Shape) -> Result<(), MapFault> {
        let is_none = *shape == Shape::ZERO;
        if is_none && !self.shaped.contains(&slot) {
            return Ok(());
        }
        self.shapes.set(slot, shape, 0).map_err(|source| kernel("SHAPES", source))?;
        if is_none {
            self.shaped.remove(&slot);
        } else {
            self.shaped.insert(slot);
        }
        Ok(())
    }

    /// Writes the rules of one direction; `names` are what the policy's signatures are called in the data path.
    fn write_rules(&mut self, site: &Site<'_>, names: &[u8], egress: bool) -> Result<(u32, u32), MapFault> {
        let rules = if egress { &site.policy.egress } else { &site.policy.ingress };
        let count = u32::try_from(rules.len()).unwrap_or(u32::MAX);
        let capacity = self.rule_slots.capacity();
        let first = self.rule_slots.take(count).ok_or(MapFault::Full { map: "RULES", capacity })?;
        let finished = rules.iter().map(|rule| self.finish(site, names, egress, rule));
        let written = finished.collect::<Result<Vec<Rule>, MapFault>>().and_then(|rules| {
            let stored = self.stores.1.set(self.rules.map(), first, &rules);
            stored.map_err(|error| kernel("RULES", MapError::IoError(error)))
        });
        written.inspect_err(|_| self.rule_slots.give(first, count))?;
        Ok((first, count))
    }

    /// A rule with what only the data path knows: its counter, its limit, the name of its signature, ticks.
    fn finish(&mut self, site: &Site<'_>, names: &[u8], egress: bool, rule: &Rule) -> Result<Rule, MapFault> {
        let terms = site.policy.terms.get(&rule.identity);
        let limit = terms.and_then(Terms::limit);
        let quarantine = terms.and_then(|terms| terms.quarantine).map_or(0, |time| site.clock.ticks(time));
        let counter = self.origins.counter(site.owner.0, egress, rule)?;
        let limit = limit.map_or(Ok(0), |limit| self.origins.limit(site.owner, rule, limit))?;
        let signature = usize::from(rule.signature).checked_sub(1);
        let signature = signature.and_then(|place| names.get(place)).copied().unwrap_or_default();
        Ok(Rule {
            counter,
            limit,
            signature,
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
        self.signatures.release(built.word);
    }
}

fn kernel(map: &'static str, source: MapError) -> MapFault {
    MapFault::Kernel { map, source }
}
