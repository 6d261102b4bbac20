//! Which personas have handshakes that take longer than their `qos.latency`. No IO, no clock.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::recent::Recent;
use crate::model::span;
use crate::model::{PersonaId, SegmentId};
use crate::qos_view::HandshakeTimes;
use crate::view::Snapshot;

/// What was seen of personas with a latency.
#[derive(Debug, Default)]
pub(super) struct Lateness {
    looks: BTreeMap<PersonaId, Recent<Vec<u64>>>,
    /// Who is late by which latency, as the hub knows.
    told: Vec<(PersonaId, Duration)>,
}

impl Lateness {
    /// Personas whose latency is watched, with that.
    pub(super) fn watched(snapshot: &Snapshot) -> BTreeMap<PersonaId, (SegmentId, Duration)> {
        let live = snapshot.personas.values().filter(|persona| persona.state.is_here());
        let latency = |written: &Option<String>| span::parse(written.as_ref()?).ok();
        live.filter_map(|persona| {
            let latency = latency(&persona.definition.qos.as_ref()?.latency)?;
            Some((persona.id.clone(), (persona.segment, latency)))
        })
        .collect()
    }

    /// Takes a look; who is late by now, with the time within which 95 of a hundred handshakes of the last
    /// minute were done, if that are others than before.
    pub(super) fn look(
        &mut self,
        watched: &BTreeMap<PersonaId, (SegmentId, Duration)>,
        times: &BTreeMap<SegmentId, HandshakeTimes>,
        now: Timestamp,
    ) -> Option<BTreeMap<PersonaId, Duration>> {
        self.looks.retain(|id, _| watched.contains_key(id));
        let mut late = BTreeMap::new();
        for (id, (segment, latency)) in watched {
            let seen = self.looks.entry(id.clone()).or_default();
            seen.add(now, times.get(segment).map_or_else(Vec::new, |times| times.buckets.clone()));
            let p95 = seen.quantile_us(950).map(Duration::from_micros);
            late.extend(p95.filter(|p95| p95 > latency).map(|p95| (id.clone(), p95)));
        }
        let told = watched.iter().filter(|(id, _)| late.contains_key(*id));
        let told: Vec<_> = told.map(|(id, (_, latency))| (id.clone(), *latency)).collect();
        if told == self.told {
            return None;
        }
        self.told = told;
        Some(late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times of segment 7: so many handshakes of a millisecond, and of half a second.
    fn times(quick: u64, slow: u64) -> BTreeMap<SegmentId, HandshakeTimes> {
        let mut buckets = vec![0; 20];
        buckets[10] = quick;
        buckets[19] = slow;
        [(SegmentId(7), HandshakeTimes { buckets, ..HandshakeTimes::default() })].into()
    }

    #[test]
    fn who_is_late_is_told_when_it_begins_and_when_it_ends() {
        let id = PersonaId("a".into());
        let watched = [(id.clone(), (SegmentId(7), Duration::from_millis(20)))].into();
        let mut lateness = Lateness::default();
        let mut look = |second, times: &BTreeMap<_, _>| {
            let told = lateness.look(&watched, times, Timestamp::from_second(second).unwrap());
            told.map(|late| late.into_iter().collect::<Vec<_>>())
        };
        assert_eq!(look(0, &times(0, 50)), None, "nobody knows when those were");
        assert_eq!(look(1, &times(99, 51)), None, "one of a hundred is late");
        let told = look(2, &times(99, 60)).unwrap();
        assert!(told[0].0 == id && told[0].1 > Duration::from_millis(260), "{told:?}");
        assert_eq!(look(3, &times(99, 70)), None, "it is known");
        assert_eq!(look(62, &times(99, 70)), None);
        assert_eq!(look(64, &times(99, 70)), Some(Vec::new()), "a minute later it is over");
        assert_eq!(lateness.look(&BTreeMap::new(), &times(0, 0), Timestamp::UNIX_EPOCH), None);
    }
}
