//! Addresses in quarantine: those that operators want there, beside those that rules and detectors put there.
//!
//! What those put in is nobody's wish, so it stays until it ends or is released by name.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::ops::ControlFlow;

use aya::Ebpf;
use aya::maps::{HashMap, IterableMap as _, MapData};
use hub_common::address;
use hub_common::set::QuarantineKey;
use jiff::Timestamp;

use super::{MapFault, failure, take};
use crate::desired::shared_map::SharedMap;
use crate::kernel::batch;
use crate::kernel::clock::Clock;
use crate::model::SegmentId;
use crate::reconcile::Report;

const NAME: &str = "quarantine";

/// The map of addresses in quarantine.
pub(crate) struct Quarantine {
    map: HashMap<MapData, QuarantineKey, u64>,
    /// What operators wanted last.
    ours: BTreeMap<(SegmentId, IpAddr), u64>,
}

impl Quarantine {
    /// Takes the map of an object; what is in it stays until it ends.
    pub(crate) fn new(ebpf: &mut Ebpf) -> Result<Self, MapFault> {
        Ok(Self { map: take(ebpf, "QUARANTINE")?, ours: BTreeMap::new() })
    }

    /// Puts what operators want in, and takes out what they want no longer.
    pub(crate) fn put(
        &mut self,
        wanted: &SharedMap<(SegmentId, IpAddr), Timestamp>,
        clock: &Clock,
    ) -> Report {
        let mut report = Report { table: NAME, ..Report::default() };
        let gone: Vec<_> = self.ours.extract_if(.., |name, _| !wanted.contains_key(name)).collect();
        for ((segment, address), _) in gone {
            report.deleted += usize::from(self.map.remove(&key(segment, address)).is_ok());
        }
        for (name, end) in wanted {
            let until = clock.deadline_tick(Some(*end));
            if self.ours.get(name).is_some_and(|there| there.abs_diff(until) <= 1) {
                continue;
            }
            match self.map.insert(key(name.0, name.1), until, 0) {
                Ok(()) => {
                    report.put += 1;
                    self.ours.insert(*name, until);
                }
                Err(source) => {
                    let error = MapFault::Kernel { map: "QUARANTINE", source };
                    report.failures.extend(failure(NAME, &error).failures);
                }
            }
        }
        report
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
        self.ours.remove(&(segment, address));
        // It may have ended already.
        drop(self.map.remove(&key(segment, address)));
    }

    /// Takes out what has ended, and everything of segments that there are no longer.
    pub(crate) fn sweep(&mut self, now_tick: u64, is_live: impl Fn(SegmentId) -> bool) {
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

fn key(segment: SegmentId, address: IpAddr) -> QuarantineKey {
    QuarantineKey { segment: segment.0, pad: 0, address: address::of(address) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::may_make_maps;

    /// What programs may do, the daemon may not: read.
    const BPF_F_WRONLY: u32 = 1 << 4;

    fn of(flags: u32) -> Quarantine {
        let mut map = HashMap::create(16, flags).unwrap();
        for (segment, until) in [(1, 50), (2, 10), (3, 50)] {
            map.insert(key(SegmentId(segment), IpAddr::from([10, 0, 0, 1])), until, 0).unwrap();
        }
        Quarantine { map, ours: BTreeMap::new() }
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
}
