//! Addresses in quarantine: those that operators want there, beside those that rules and detectors put there.
//!
//! What those put in is nobody's wish, so it stays until it ends or is released by name. The map has one end for each
//! address, the latest: what an operator asks neither shortens what is there nor takes it out with its own end.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::ops::ControlFlow;

use aya::Ebpf;
use aya::maps::{HashMap, IterableMap as _, MapData, MapError};
use hub_common::address;
use hub_common::set::QuarantineKey;
use jiff::Timestamp;

use super::{MapFault, failure, fault, take};
use crate::desired::shared_map::SharedMap;
use crate::kernel::batch::{self, from_map};
use crate::kernel::clock::Clock;
use crate::model::SegmentId;
use crate::reconcile::Report;

const NAME: &str = "quarantine";
const MAP: &str = "QUARANTINE";

/// Whom an entry is about.
type Name = (SegmentId, IpAddr);

/// The map of addresses in quarantine.
pub(crate) struct Quarantine {
    map: HashMap<MapData, QuarantineKey, u64>,
    /// What operators wanted last, and until when.
    ours: BTreeMap<Name, u64>,
    /// What is to go: with a tick if only the entry that ends then is meant, without one whoever put it in.
    going: BTreeMap<Name, Option<u64>>,
}

impl Quarantine {
    /// Takes the map of an object; what is in it stays until it ends.
    pub(crate) fn new(ebpf: &mut Ebpf) -> Result<Self, MapFault> {
        Ok(Self { map: take(ebpf, MAP)?, ours: BTreeMap::new(), going: BTreeMap::new() })
    }

    /// Puts what operators want in, and takes out what they want no longer.
    pub(crate) fn put(&mut self, wanted: &SharedMap<Name, Timestamp>, clock: &Clock) -> Report {
        let mut report = Report { table: NAME, ..Report::default() };
        let gone = self.ours.extract_if(.., |name, _| !wanted.contains_key(name));
        self.going.extend(gone.map(|(name, until)| (name, Some(until))));
        self.going.retain(|name, _| !wanted.contains_key(name));
        let mut errors = self.take_out(&mut report.deleted);
        for (name, end) in wanted {
            let until = clock.deadline_tick(Some(*end));
            if self.ours.get(name).is_some_and(|there| there.abs_diff(until) <= 1) {
                continue;
            }
            match self.put_in(*name, until) {
                Ok(is_written) => report.put += usize::from(is_written),
                Err(error) => errors.push(error),
            }
        }
        report.failures.extend(errors.iter().flat_map(|error| failure(NAME, error).failures));
        report
    }

    /// Puts an address in, unless somebody else put it there for longer. Says whether it was written.
    fn put_in(&mut self, name: Name, until: u64) -> Result<bool, MapFault> {
        let ours = self.ours.get(&name).copied();
        let is_ours = |there: u64| ours.is_some_and(|ours| ours.abs_diff(there) <= 1);
        let is_longer = self.until(name)?.is_some_and(|there| there >= until && !is_ours(there));
        if !is_longer {
            self.map.insert(key(name), until, 0).map_err(kernel)?;
        }
        self.ours.insert(name, until);
        Ok(!is_longer)
    }

    /// Takes out what is to go, and counts it. What cannot go now does so the next time.
    fn take_out(&mut self, deleted: &mut usize) -> Vec<MapFault> {
        let mut errors = Vec::new();
        for (name, only) in std::mem::take(&mut self.going) {
            match self.remove(name, only) {
                Ok(is_removed) => *deleted += usize::from(is_removed),
                Err(error) => {
                    self.going.insert(name, only);
                    errors.push(error);
                }
            }
        }
        errors
    }

    /// Whether there was such an entry.
    fn remove(&mut self, name: Name, only: Option<u64>) -> Result<bool, MapFault> {
        if let Some(only) = only
            && self.until(name)?.is_none_or(|there| there.abs_diff(only) > 1)
        {
            return Ok(false);
        }
        match self.map.remove(&key(name)).map_err(from_map) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(fault(MAP)(error)),
        }
    }

    /// Until when an address is in.
    fn until(&self, name: Name) -> Result<Option<u64>, MapFault> {
        match self.map.get(&key(name), 0) {
            Ok(until) => Ok(Some(until)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(kernel(source)),
        }
    }

    /// Those of `asked` for which an address is in quarantine, whoever put it in. Where the map cannot be read, that is
    /// all of them.
    pub(crate) fn held(&self, asked: BTreeSet<SegmentId>, now_tick: u64) -> BTreeSet<SegmentId> {
        let mut held = BTreeSet::new();
        let read = self.read(|key, until| {
            held.extend(Some(SegmentId(key.segment)).filter(|id| until > now_tick && asked.contains(id)));
        });
        match read {
            Ok(()) => held,
            Err(error) => {
                tracing::warn!(%error, "whom quarantine holds is not known: segments go on looking for them");
                asked
            }
        }
    }

    /// Takes an address out, whoever put it in.
    pub(crate) fn release(&mut self, segment: SegmentId, address: IpAddr) {
        let name = (segment, address);
        self.ours.remove(&name);
        self.going.insert(name, None);
        self.take_out_and_tell();
    }

    fn take_out_and_tell(&mut self) {
        for error in self.take_out(&mut 0) {
            tracing::warn!(%error, "an address stays in quarantine until the next look");
        }
    }

    /// Takes out what has ended, and everything of segments that there are no longer.
    pub(crate) fn sweep(&mut self, now_tick: u64, is_live: impl Fn(SegmentId) -> bool) {
        self.take_out_and_tell();
        let mut gone = Vec::new();
        let read = self.read(|key, until| {
            gone.extend((until <= now_tick || !is_live(SegmentId(key.segment))).then_some(*key));
        });
        if let Err(error) = read.and_then(|()| batch::remove(self.map.map(), &gone)) {
            tracing::warn!(%error, "what ended in quarantine stays until the next look");
        }
    }

    fn read(&self, mut each: impl FnMut(&QuarantineKey, u64)) -> io::Result<()> {
        batch::entries(self.map.map(), |key, until: &[u64]| {
            for until in until {
                each(key, *until);
            }
            ControlFlow::Continue(())
        })
    }
}

fn key((segment, address): Name) -> QuarantineKey {
    QuarantineKey { segment: segment.0, pad: 0, address: address::of(address) }
}

fn kernel(source: MapError) -> MapFault {
    MapFault::Kernel { map: MAP, source }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::SignedDuration;

    use super::*;
    use crate::kernel::{BPF_F_RDONLY, may_make_maps};

    /// What programs may do, the daemon may not: read.
    const BPF_F_WRONLY: u32 = 1 << 4;

    fn of(flags: u32) -> Quarantine {
        let mut map = HashMap::create(16, flags).unwrap();
        for (segment, until) in [(1, 50), (2, 10), (3, 50)] {
            map.insert(key((SegmentId(segment), IpAddr::from([10, 0, 0, 1]))), until, 0).unwrap();
        }
        Quarantine { map, ours: BTreeMap::new(), going: BTreeMap::new() }
    }

    #[test]
    fn who_is_held_stays_so_where_nobody_can_say() {
        if !may_make_maps() {
            return;
        }
        let asked: BTreeSet<SegmentId> = [1, 2, 4].map(SegmentId).into();
        assert_eq!(of(0).held(asked.clone(), 20), [SegmentId(1)].into(), "the time of 2 is over");
        assert_eq!(of(BPF_F_WRONLY).held(asked.clone(), 20), asked);
    }

    #[test]
    fn what_ended_goes_and_the_rest_stays() {
        if !may_make_maps() {
            return;
        }
        let mut quarantine = of(0);
        quarantine.sweep(20, |segment| segment != SegmentId(3));
        let left: Vec<u32> = quarantine.map.keys().map(|key| key.unwrap().segment).collect();
        assert_eq!(left, [1]);
    }

    /// What the map has of an address of a segment.
    fn end_of(quarantine: &Quarantine, segment: u32) -> Option<u64> {
        quarantine.until((SegmentId(segment), IpAddr::from([10, 0, 0, 1]))).unwrap()
    }

    #[test]
    fn an_operator_neither_shortens_nor_takes_out_what_others_put_in() {
        if !may_make_maps() {
            return;
        }
        let clock = Clock::new(0, 0, 4_000_000);
        let name = |segment| (SegmentId(segment), IpAddr::from([10, 0, 0, 1]));
        let until = |ahead: i64| Timestamp::now() + SignedDuration::from_secs(ahead);
        let tick = |ahead: i64| clock.deadline_tick(Some(until(ahead)));
        let is_about = |there: Option<u64>, ahead: i64| {
            there.is_some_and(|there| there.abs_diff(tick(ahead)) < clock.ticks(Duration::from_secs(5)))
        };
        let mut quarantine = of(0);
        quarantine.map.insert(key(name(1)), tick(3_600), 0).unwrap();
        let wanted = |ahead| [(name(1), until(ahead)), (name(7), until(ahead))].into_iter().collect();
        let report = quarantine.put(&wanted(600), &clock);
        assert_eq!((report.put, report.failures.len()), (1, 0));
        assert!(is_about(end_of(&quarantine, 1), 3_600) && is_about(end_of(&quarantine, 7), 600));
        // Its own it may shorten, and make longer than what is there.
        quarantine.put(&wanted(300), &clock);
        assert!(is_about(end_of(&quarantine, 1), 3_600) && is_about(end_of(&quarantine, 7), 300));
        quarantine.put(&wanted(7_200), &clock);
        assert!([1, 7].into_iter().all(|segment| is_about(end_of(&quarantine, segment), 7_200)));
        // A detector that finds it again.
        quarantine.map.insert(key(name(7)), tick(9_000), 0).unwrap();
        assert_eq!(quarantine.put(&SharedMap::new(), &clock).deleted, 1);
        assert!(end_of(&quarantine, 1).is_none() && is_about(end_of(&quarantine, 7), 9_000));
        quarantine.release(SegmentId(7), IpAddr::from([10, 0, 0, 1]));
        assert_eq!(end_of(&quarantine, 7), None);
    }

    #[test]
    fn what_cannot_be_taken_out_is_tried_again() {
        if !may_make_maps() {
            return;
        }
        let clock = Clock::new(0, 0, 4_000_000);
        // The daemon may only read it.
        let mut quarantine = of(0);
        let writable = std::mem::replace(&mut quarantine.map, HashMap::create(16, BPF_F_RDONLY).unwrap());
        quarantine.release(SegmentId(1), IpAddr::from([10, 0, 0, 1]));
        assert_eq!(quarantine.put(&SharedMap::new(), &clock).failures.len(), 1);
        quarantine.map = writable;
        assert!(end_of(&quarantine, 1).is_some());
        assert_eq!(quarantine.put(&SharedMap::new(), &clock).deleted, 1);
        assert_eq!(end_of(&quarantine, 1), None);
    }
}
