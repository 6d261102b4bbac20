//! Counts connections of sources from the tables of connections, and corrects what the programs counted.
//!
//! Programs add when a connection begins and take when it closes or is cut. Who was idle for too long, or had to
//! make room in the table of half-open connections, is seen here. Packets go on meanwhile: a count that moved while
//! the tables were read is believed as long as what was found lies between its two values.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;

use aya::maps::{HashMap, IterableMap as _, MapData};
use hub_common::address::Address;
use hub_common::flow::{FLOW_TCP_CLOSED, Flow, FlowKey};
use hub_common::limit::LimitSource;

use super::batch;
use super::reader::ReadError;
use super::{maps, one_sided};
use crate::model::SegmentId;

const MAP: &str = "CONNECTIONS";

/// Segment, limit and source, in an order.
type Counted = (u32, u32, Address);

/// The tables that say which connections there are, and the counts.
pub(crate) struct Recount {
    counts: HashMap<MapData, LimitSource, u64>,
    flows: HashMap<MapData, FlowKey, Flow>,
    opening: HashMap<MapData, FlowKey, Flow>,
}

impl Recount {
    /// Opens the maps pinned in `pins`.
    pub(crate) fn open(pins: &Path) -> Result<Self, ReadError> {
        Ok(Self {
            counts: maps::open(pins, MAP)?,
            flows: maps::open(pins, "FLOWS")?,
            opening: maps::open(pins, "FLOWS_NEW")?,
        })
    }

    /// Counts again, and says how many counts were wrong. `is_limited` names segments that limit all connections
    /// to their members.
    pub(crate) fn run(
        &mut self,
        tick: u64,
        timeout_ticks: &[u32; 8],
        is_limited: impl Fn(u32) -> bool,
        is_needed: bool,
    ) -> Result<usize, ReadError> {
        let before = self.read()?;
        if before.is_empty() && !is_needed {
            return Ok(0);
        }
        let mut found: BTreeMap<Counted, u64> = BTreeMap::new();
        for (map, name) in [(self.flows.map(), "FLOWS"), (self.opening.map(), "FLOWS_NEW")] {
            batch::entries(map, |key: &FlowKey, flows: &[Flow]| {
                let alive =
                    |flow: &&Flow| flow.state != FLOW_TCP_CLOSED && !flow.is_stale(tick, timeout_ticks);
                for flow in flows.iter().filter(alive) {
                    for counted in counted(key, flow, &is_limited) {
                        *found.entry(counted).or_default() += 1;
                    }
                }
                ControlFlow::Continue(())
            })
            .map_err(|source| ReadError::Map { map: name, source })?;
        }
        let after = self.read()?;
        let mut corrected = 0;
        let known: BTreeSet<&Counted> = found.keys().chain(before.keys()).chain(after.keys()).collect();
        for counted in known {
            // Below zero when more ended than were counted to begin.
            let value =
                |map: &BTreeMap<Counted, u64>| map.get(counted).copied().unwrap_or_default().cast_signed();
            let (then, now, found) = (value(&before), value(&after), value(&found));
            if found < then.min(now) || found > then.max(now) {
                self.set(counted, found.cast_unsigned())?;
                corrected += 1;
            } else if found == 0 && now == 0 && after.contains_key(counted) {
                self.set(counted, 0)?;
            }
        }
        Ok(corrected)
    }

    /// Connections of which one direction was seen, by segment.
    pub(crate) fn one_sided(
        &self,
        tick: u64,
        timeout_ticks: &[u32; 8],
    ) -> Result<BTreeMap<SegmentId, u64>, ReadError> {
        one_sided::count(self.opening.map(), tick, timeout_ticks)
            .map_err(|source| ReadError::Map { map: "FLOWS_NEW", source })
    }

    fn read(&self) -> Result<BTreeMap<Counted, u64>, ReadError> {
        let mut counts = BTreeMap::new();
        batch::entries(self.counts.map(), |key: &LimitSource, values: &[u64]| {
            counts.extend(values.first().map(|count| ((key.segment, key.limit, key.address), *count)));
            ControlFlow::Continue(())
        })
        .map_err(|source| ReadError::Map { map: MAP, source })?;
        Ok(counts)
    }

    /// Sets a count; one of nothing is forgotten.
    fn set(&mut self, (segment, limit, address): &Counted, count: u64) -> Result<(), ReadError> {
        let key = LimitSource { limit: *limit, segment: *segment, address: *address };
        if count == 0 {
            let removed = batch::remove(self.counts.map(), &[key]);
            return removed.map(drop).map_err(|source| ReadError::Map { map: MAP, source });
        }
        self.counts.insert(key, count, 0).map_err(|error| maps::failed(MAP, error))
    }
}

/// The counts that a connection is part of.
fn counted(key: &FlowKey, flow: &Flow, is_limited: impl Fn(u32) -> bool) -> Vec<Counted> {
    let source = if flow.from_high == 0 { key.low } else { key.high };
    let [_, receiver] = flow.segment;
    let total = is_limited(receiver).then_some((receiver, 0, source));
    let by_rules = flow.segment.into_iter().zip(flow.counted);
    let by_rules = by_rules.filter(|(_, limit)| *limit != 0);
    by_rules.map(|(segment, limit)| (segment, u32::from(limit), source)).chain(total).collect()
}
