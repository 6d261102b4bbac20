//! Addresses in quarantine: those that operators want there, beside those that rules and detectors put there.
//!
//! What those put in is nobody's wish, so it stays until it ends or is released by name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use aya::Ebpf;
use aya::maps::{HashMap, MapData};
use hub_common::address;
use hub_common::set::QuarantineKey;
use jiff::Timestamp;

use super::{MapFault, failure, take};
use crate::desired::shared_map::SharedMap;
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

    /// Segments for which an address is in quarantine, whoever put it in.
    pub(crate) fn held(&self, now_tick: u64) -> BTreeSet<SegmentId> {
        let entries = self.map.iter().filter_map(Result::ok);
        entries.filter(|(_, until)| *until > now_tick).map(|(key, _)| SegmentId(key.segment)).collect()
    }

    /// Takes an address out, whoever put it in.
    pub(crate) fn release(&mut self, segment: SegmentId, address: IpAddr) {
        self.ours.remove(&(segment, address));
        // It may have ended already.
        drop(self.map.remove(&key(segment, address)));
    }

    /// Takes out what has ended, and everything of segments that there are no longer.
    pub(crate) fn sweep(&mut self, now_tick: u64, is_live: impl Fn(SegmentId) -> bool) {
        let entries: Vec<_> = self.map.iter().filter_map(Result::ok).collect();
        for (key, until) in entries {
            if until <= now_tick || !is_live(SegmentId(key.segment)) {
                drop(self.map.remove(&key));
            }
        }
    }
}

fn key(segment: SegmentId, address: IpAddr) -> QuarantineKey {
    QuarantineKey { segment: segment.0, pad: 0, address: address::of(address) }
}
