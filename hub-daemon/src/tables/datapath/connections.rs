//! How many connections each source may have with members of a segment.
//!
//! A number is one word, which packets read by itself. It comes before the segment that says that there is one,
//! and goes after.

use aya::Ebpf;
use aya::maps::{HashMap, MapData};

use super::{MapFault, failure, take};
use crate::desired::Desired;
use crate::reconcile::Report;

const NAME: &str = "connections";
const MAP: &str = "CONNECTION_MAX";

/// The map.
pub struct Connections {
    most: HashMap<MapData, u32, u32>,
}

impl Connections {
    /// Takes the map of an object.
    pub fn new(ebpf: &mut Ebpf) -> Result<Self, MapFault> {
        Ok(Self { most: take(ebpf, MAP)? })
    }

    /// Puts what is missing or different.
    pub fn put(&mut self, desired: &Desired) -> Report {
        let mut report = Report { table: NAME, ..Report::default() };
        for (segment, most) in &desired.connections {
            if self.most.get(&segment.0, 0).ok() == Some(*most) {
                continue;
            }
            match self.most.insert(segment.0, most, 0) {
                Ok(()) => report.put += 1,
                Err(source) => {
                    let error = MapFault::Kernel { map: MAP, source };
                    report.failures.extend(failure(NAME, &error).failures);
                }
            }
        }
        report
    }

    /// Deletes what is no longer wanted.
    pub fn delete(&mut self, desired: &Desired) -> Report {
        let mut report = Report { table: NAME, ..Report::default() };
        let there: Vec<u32> = self.most.keys().filter_map(Result::ok).collect();
        for segment in there {
            let wanted = desired.connections.keys().any(|id| id.0 == segment);
            if !wanted && self.most.remove(&segment).is_ok() {
                report.deleted += 1;
            }
        }
        report
    }
}
