//! What is told of personas that only changes of them change: read once for each snapshot, since very many
//! personas lie all over the memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use tokio::sync::watch;

use super::text::Text;
use crate::model::{SegmentId, span};
use crate::outputs::status::count_states;
use crate::view::{Condition, Snapshot};

/// One persona that has not ended.
pub(super) struct Row {
    /// Where its name begins and ends in [`Roster::labels`].
    name: (u32, u32),
    pub(super) segment: SegmentId,
    /// When it ends, seconds since 1970.
    pub(super) expires: Option<u64>,
    /// The latency that it asks for, in microseconds.
    pub(super) latency_us: Option<u128>,
    /// Its TCP connections that pass the hub in one direction only.
    pub(super) one_sided: u64,
}

/// All personas of a snapshot.
pub(super) struct Roster {
    of: Weak<Snapshot>,
    pub(super) rows: Vec<Row>,
    /// Names as they stand between quotes, one behind the other.
    labels: String,
    /// Segments of all personas, those that have ended included.
    pub(super) segments: Vec<SegmentId>,
    pub(super) has_qos: bool,
    pub(super) states: BTreeMap<&'static str, u64>,
    /// How many conditions personas have, by reason.
    pub(super) conditions: BTreeMap<String, u64>,
}

impl Roster {
    fn new(snapshot: &Arc<Snapshot>) -> Self {
        let mut rows = Vec::with_capacity(snapshot.personas.len());
        let mut labels = Text::with_capacity(16 * snapshot.personas.len());
        let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        for persona in snapshot.personas.values() {
            if !persona.state.is_here() {
                continue;
            }
            let start = labels.len();
            labels.label(&persona.definition.name);
            let latency = persona.definition.qos.as_ref().and_then(|qos| qos.latency.as_ref());
            rows.push(Row {
                name: (place(start), place(labels.len())),
                segment: persona.segment,
                expires: persona.expires_at.and_then(|end| u64::try_from(end.as_second()).ok()),
                latency_us: latency.and_then(|text| Some(span::parse(text).ok()?.as_micros())),
                one_sided: snapshot.one_sided.get(&persona.segment).copied().unwrap_or_default(),
            });
        }
        let personas = || snapshot.personas.values();
        Self {
            of: Arc::downgrade(snapshot),
            rows,
            labels: labels.into_string(),
            segments: snapshot.segments(),
            has_qos: personas().any(|persona| persona.definition.qos.is_some()),
            states: count_states(snapshot),
            conditions: by_reason(&mut personas().flat_map(|persona| &persona.conditions)),
        }
    }

    /// Its name, to stand between quotes.
    #[inline(always)]
    pub(super) fn name(&self, row: &Row) -> &str {
        self.labels.get(row.name.0 as usize..row.name.1 as usize).unwrap_or_default()
    }
}

/// How many conditions there are, by reason.
pub(super) fn by_reason(conditions: &mut dyn Iterator<Item = &Condition>) -> BTreeMap<String, u64> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for condition in conditions {
        match counts.get_mut(&condition.reason) {
            Some(count) => *count += 1,
            None => drop(counts.insert(condition.reason.clone(), 1)),
        }
    }
    counts
}

/// The roster of the last snapshot that anybody asked of.
#[derive(Clone)]
pub(super) struct Last(Arc<watch::Sender<Option<Arc<Roster>>>>);

impl Last {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// The roster of a snapshot.
    pub(super) fn of(&self, snapshot: &Arc<Snapshot>) -> Arc<Roster> {
        // A roster keeps the place of its snapshot in memory, so that no other one can be there.
        let known =
            self.0.borrow().clone().filter(|roster| Weak::as_ptr(&roster.of) == Arc::as_ptr(snapshot));
        known.unwrap_or_else(|| {
            let roster = Arc::new(Roster::new(snapshot));
            self.0.send_replace(Some(Arc::clone(&roster)));
            roster
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_snapshot_has_a_roster_of_its_own() {
        let last = Last::new();
        let [one, other] = [1, 2].map(|_| Arc::new(Snapshot::default()));
        let first = last.of(&one);
        assert!(Arc::ptr_eq(&first, &last.of(&one)), "kept");
        assert!(!Arc::ptr_eq(&first, &last.of(&other)), "made anew");
    }
}
