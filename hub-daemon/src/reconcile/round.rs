//! One pass over all tables: who comes first, who has to wait for the next pass, and of whom something failed.
//!
//! What ends sooner is put first. A pass does not take on what is slow to make for longer than it has time:
//! personas that were not begun wait for the next one, which begins with what has ended meanwhile.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::desired::Desired;
use crate::model::PersonaId;

type Deadlines<'a> = Box<dyn FnOnce() -> BTreeMap<PersonaId, Timestamp> + 'a>;

/// The order and the state of one pass.
pub struct Round<'a> {
    /// When personas end, found when it is asked for.
    deadlines: LazyCell<BTreeMap<PersonaId, Timestamp>, Deadlines<'a>>,
    has_time: Box<dyn Fn() -> bool + 'a>,
    /// Personas of which something could not be put, or that wait: their further puts are left out.
    pub failed: BTreeSet<PersonaId>,
    /// Personas among them that wait for the next pass.
    pub postponed: BTreeSet<PersonaId>,
}

impl Default for Round<'_> {
    fn default() -> Self {
        Self {
            deadlines: LazyCell::new(Box::new(BTreeMap::new)),
            has_time: Box::new(|| true),
            failed: BTreeSet::new(),
            postponed: BTreeSet::new(),
        }
    }
}

impl<'a> Round<'a> {
    /// A pass that makes the kernel equal to `desired`, and takes on what is slow while `has_time` says so.
    pub fn new(desired: &'a Desired, has_time: impl Fn() -> bool + 'a) -> Self {
        let deadlines = || {
            let segments = desired.segments.values();
            segments.filter_map(|segment| Some((segment.persona.clone(), segment.expires?))).collect()
        };
        let deadlines = LazyCell::new(Box::new(deadlines) as Deadlines<'a>);
        Self { deadlines, has_time: Box::new(has_time), ..Self::default() }
    }

    /// A pass over personas that end at these times.
    #[cfg(test)]
    pub(super) fn by(deadlines: BTreeMap<PersonaId, Timestamp>, has_time: impl Fn() -> bool + 'a) -> Self {
        let deadlines = LazyCell::new(Box::new(move || deadlines) as Deadlines<'a>);
        Self { deadlines, has_time: Box::new(has_time), ..Self::default() }
    }

    /// Sorts: what belongs to nobody first, for everything else builds on it; then what ends sooner.
    pub(super) fn urgency(&self, owner: Option<&PersonaId>) -> Urgency {
        let Some(owner) = owner else { return Urgency::Ground };
        self.deadlines.get(owner).map_or(Urgency::Endless, |end| Urgency::Until(*end))
    }

    /// Whether the pass still takes on what is slow to make.
    pub(super) fn has_time(&self) -> bool {
        (self.has_time)()
    }

    pub(super) fn leaves_out(&self, owner: Option<&PersonaId>) -> bool {
        owner.is_some_and(|owner| self.failed.contains(owner))
    }

    /// Leaves a persona to the next pass.
    pub(super) fn postpone(&mut self, owner: PersonaId) {
        self.failed.insert(owner.clone());
        self.postponed.insert(owner);
    }
}

/// How soon an entry is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// Of no persona.
    Ground,
    /// Of one that ends then.
    Until(Timestamp),
    /// Of one without an end.
    Endless,
}
