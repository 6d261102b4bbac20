//! Counters of rules, by their position in the document.

use aya::maps::IterableMap as _;
use hub_common::rule::{RULE_BASELINE, Rule};
use hub_common::segment::{Policy, Segment, policy_slot};
use hub_common::stats::RuleHits;

use super::batch;
use super::counts::{DIRECTIONS, SYNTHETIC, sum};
use super::maps::Maps;
use super::reader::ReadError;
use crate::datapath_view::{Count, RuleCount, Sweep};
use crate::model::SegmentId;

/// Rules of a run of slots, with what all counters that they use counted.
struct Slots {
    first: u32,
    rules: Vec<Shown>,
    first_counter: u32,
    hits: Vec<(Count, u64)>,
}

/// What is shown of a compiled rule.
#[derive(Clone, Copy)]
struct Shown {
    baseline: bool,
    index: u16,
    identity: u64,
    counter: u32,
}

impl Slots {
    /// Reads `length` slots in two sweeps.
    fn read(maps: &Maps, first: u32, length: u32) -> Result<Self, ReadError> {
        let mut slots = Self { first, rules: Vec::new(), first_counter: 0, hits: Vec::new() };
        batch::range(maps.slots.rules.map(), first, length, |_, rules: &[Rule]| {
            let shown = rules.first().map(|rule| Shown {
                baseline: is_baseline(rule),
                index: rule.index,
                identity: rule.identity,
                counter: rule.counter,
            });
            slots.rules.extend(shown);
        })
        .map_err(|source| ReadError::Map { map: "RULES", source })?;
        let capacity = maps.rule_hits.len();
        let used = slots.rules.iter().map(|rule| rule.counter).filter(|counter| *counter < capacity);
        let Some((least, most)) =
            used.map(|counter| (counter, counter)).reduce(|(a, b), (c, d)| (a.min(c), b.max(d)))
        else {
            return Ok(slots);
        };
        slots.first_counter = least;
        let note = |_, hits: &[RuleHits]| {
            let would_drop = hits.iter().map(|hits| hits.would_drop).sum();
            slots.hits.push((sum(hits.iter().map(|hits| hits.judged)), would_drop));
        };
        maps.sums
            .range(&maps.rule_hits, least, most - least + 1, note)
            .map_err(|source| ReadError::Map { map: "RULE_HITS", source })?;
        Ok(slots)
    }

    /// Adds the counts of one policy; compiled rules of one origin share a counter.
    fn add(&self, policy: &Policy, counters: &mut Vec<Counter>, counts: &mut Vec<RuleCount>) {
        counters.clear();
        for ((first, length), direction) in runs(policy).into_iter().zip(DIRECTIONS) {
            let first = first.wrapping_sub(self.first) as usize;
            let Some(rules) = self.rules.get(first..first.saturating_add(length as usize)) else { continue };
            let shown = rules.iter().filter(|rule| rule.index != SYNTHETIC);
            counters.extend(
                shown.map(|rule| ((!rule.baseline, rule.index, direction), rule.counter, rule.identity)),
            );
        }
        counters.sort_unstable();
        counters.dedup_by_key(|(origin, ..)| *origin);
        let count = |((own, rule, direction), counter, identity): &Counter| {
            let (count, would_drop) = *self.hits.get(counter.wrapping_sub(self.first_counter) as usize)?;
            let direction = (*direction).into();
            let (rule, identity) = (*rule, *identity);
            Some(RuleCount { rule, identity, baseline: !own, direction, count, would_drop })
        };
        counts.extend(counters.iter().filter_map(count));
    }
}

/// Whether a rule is a persona's own, its position, its direction; its counter and its identity.
type Counter = ((bool, u16, &'static str), u32, u64);

/// Whether the rule is one of the hub's.
pub(crate) const fn is_baseline(rule: &Rule) -> bool {
    rule.flags & RULE_BASELINE != 0
}

const fn runs(policy: &Policy) -> [(u32, u32); 2] {
    [(policy.ingress_first, policy.ingress_count), (policy.egress_first, policy.egress_count)]
}

/// First slot and number of slots from the first to the last of the policies.
fn span(policies: impl Iterator<Item = Policy>) -> Option<(u32, u32)> {
    let used = policies.flat_map(|policy| runs(&policy)).filter(|(_, length)| *length != 0);
    let ends = used.map(|(first, length)| (first, first.saturating_add(length)));
    let (first, end) = ends.reduce(|(first, end), (f, e)| (first.min(f), end.max(e)))?;
    Some((first, end - first))
}

/// Counters of the rules of one policy.
pub(crate) fn of_policy(maps: &Maps, policy: &Policy) -> Result<Vec<RuleCount>, ReadError> {
    let mut counts = Vec::new();
    // The runs may lie far apart.
    for (first, length) in runs(policy).into_iter().filter(|(_, length)| *length != 0) {
        Slots::read(maps, first, length)?.add(policy, &mut Vec::new(), &mut counts);
    }
    counts.sort_by(|a, b| (!a.baseline, a.rule, &a.direction).cmp(&(!b.baseline, b.rule, &b.direction)));
    Ok(counts)
}

/// Adds the counters of the rules of all segments, in sweeps over the maps.
pub(crate) fn of_segments(maps: &Maps, sweep: &mut Sweep) -> Result<(), ReadError> {
    let mut words = Vec::new();
    batch::range(maps.slots.segments.map(), 0, sweep.span(), |index, values: &[Segment]| {
        let live = values.first().filter(|segment| segment.policy != 0);
        words.extend(live.map(|segment| (SegmentId(index), segment.policy)));
    })
    .map_err(|source| ReadError::Map { map: "SEGMENTS", source })?;
    let Some(slots) = words.iter().map(|(_, word)| policy_slot(*word)).max() else { return Ok(()) };
    let mut policies = Vec::with_capacity(slots as usize + 1);
    batch::range(maps.slots.policies.map(), 0, slots + 1, |_, values: &[Policy]| {
        policies.push(values.first().copied().unwrap_or(Policy::ZERO));
    })
    .map_err(|source| ReadError::Map { map: "POLICIES", source })?;
    // A slot that changed hands in between holds another word.
    let policy = |word: u32| policies.get(policy_slot(word) as usize).filter(|policy| policy.word == word);
    let Some((first, length)) = span(words.iter().filter_map(|(_, word)| policy(*word).copied())) else {
        return Ok(());
    };
    let slots = Slots::read(maps, first, length)?;
    let mut counters = Vec::new();
    for (segment, word) in words {
        if let (Some(policy), Some(_)) = (policy(word), sweep.totals(segment)) {
            sweep.rules_of(segment, |rules| slots.add(policy, &mut counters, rules));
        }
    }
    Ok(())
}
