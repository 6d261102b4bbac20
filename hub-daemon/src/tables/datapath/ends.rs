//! Deadlines of a policy's rules in ticks.

use std::collections::BTreeMap;

use crate::kernel::clock::Clock;
use crate::model::policy::Policy;

/// First tick at which a rule no longer matches, by the rule's identity; only of rules that end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ends(BTreeMap<u64, u64>);

impl Ends {
    /// As of the clock.
    pub(crate) fn new(policy: &Policy, clock: &Clock) -> Self {
        let tick = |end| clock.deadline_tick(Some(end)).max(1);
        let ends = policy.terms.iter().filter_map(|(identity, terms)| Some((*identity, tick(terms.ends?))));
        Self(ends.collect())
    }

    /// The deadline of a rule; 0 is none.
    pub(crate) fn of(&self, identity: u64) -> u64 {
        self.0.get(&identity).copied().unwrap_or_default()
    }

    /// Whether the deadlines mean the same, read at two moments.
    pub(crate) fn is_close(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().zip(&other.0).all(|((a, at), (b, bt))| a == b && at.abs_diff(*bt) <= 1)
    }
}
