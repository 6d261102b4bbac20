//! Collects connections that nobody uses any more, so that the table has room for others.
//!
//! Programs refuse stale entries whether they are collected or not, so being late costs room only. Half-open
//! connections need no collection: theirs is a table that forgets the least recently used.
//!
//! An entry that a packet revives between being read and being removed is lost; the programs make stale
//! entries anew rather than revive them, so that takes the same connection opened and answered within the
//! time for one batch.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use aya::maps::{Array, HashMap, IterableMap as _, MapData};
use hub_common::flow::{Flow, FlowKey};
use hub_common::segment::{SEGMENT_CONNECTIONS, STATE_EMPTY, Segment, Settings};

use super::batch;
use super::clock::{Clock, TickSource};
use super::maps::{self, at};
use super::masquerades::Masquerades;
use super::reader::ReadError;
use super::recount::Recount;
use crate::model::SegmentId;

/// Stale entries that are removed together.
const REMOVED_AT_ONCE: usize = 1_024;

/// How long connections of a persona that ended stay: whoever sends on one of TCP is answered by a reset.
const TOLD: Duration = Duration::from_secs(30);

/// What one pass did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Entries looked at.
    pub seen: usize,
    /// Entries removed because they were idle for too long.
    pub stale: usize,
    /// Entries removed because a persona of theirs is gone.
    pub orphaned: usize,
    /// Entries of masqueraded connections removed, each way one.
    pub ports: usize,
    /// Counts of connections by source that were wrong.
    pub recounted: usize,
    /// Connections of which the hub sees one direction only, by segment.
    pub one_sided: BTreeMap<SegmentId, u64>,
}

/// What matters of a segment here.
#[derive(Clone, Copy)]
struct Known {
    lives: bool,
    is_limited: bool,
}

/// The table of connections, and what says which of them are over.
pub struct Collector {
    flows: HashMap<MapData, FlowKey, Flow>,
    segments: Array<MapData, Segment>,
    settings: Array<MapData, Settings>,
    masquerades: Masquerades,
    recount: Recount,
    ticks: TickSource,
}

impl Collector {
    /// Opens the maps pinned in `pins` and the clock program pinned in `pins/prog`.
    pub fn open(pins: &Path) -> Result<Self, ReadError> {
        Ok(Self {
            flows: maps::open(pins, "FLOWS")?,
            segments: maps::array(pins, "SEGMENTS")?,
            settings: maps::array(pins, "SETTINGS")?,
            masquerades: Masquerades::open(pins)?,
            recount: Recount::open(pins)?,
            ticks: TickSource::open(pins)?,
        })
    }

    /// Removes the connections that are over as of now. Blocks: some 100 ns for each entry of the table.
    pub fn collect(&mut self) -> Result<Collected, ReadError> {
        self.collect_at(&self.ticks.read()?)
    }

    /// As [`Self::collect`], as of a moment.
    pub fn collect_at(&mut self, clock: &Clock) -> Result<Collected, ReadError> {
        let failed = |source| ReadError::Map { map: "FLOWS", source };
        let timeouts = at(&self.settings, "SETTINGS", 0)?.map(|settings| settings.timeout_ticks);
        let timeout_ticks = timeouts.unwrap_or_default();
        // Without timeouts the daemon has not written its settings yet.
        if timeout_ticks == [0; 8] {
            return Ok(Collected::default());
        }
        let known = self.known(clock)?;
        let is_gone =
            |segment: &u32| *segment != 0 && !known.get(*segment as usize).is_some_and(|known| known.lives);
        let mut collected = Collected::default();
        let mut over = Vec::with_capacity(REMOVED_AT_ONCE);
        let mut result = Ok(());
        batch::entries(self.flows.map(), |key: &FlowKey, flows: &[Flow]| {
            for flow in flows {
                collected.seen += 1;
                if flow.is_stale(clock.tick(), &timeout_ticks) {
                    collected.stale += 1;
                    over.push(*key);
                } else if flow.segment.iter().any(is_gone) {
                    collected.orphaned += 1;
                    over.push(*key);
                }
            }
            if over.len() < REMOVED_AT_ONCE {
                return ControlFlow::Continue(());
            }
            result = batch::remove(self.flows.map(), &over).map(drop);
            over.clear();
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .map_err(failed)?;
        result.and_then(|()| batch::remove(self.flows.map(), &over)).map_err(failed)?;
        collected.ports = self.masquerades.collect(clock.tick(), &timeout_ticks)?;
        let is_limited = |segment: u32| known.get(segment as usize).is_some_and(|known| known.is_limited);
        let is_needed = known.iter().any(|known| known.is_limited);
        collected.one_sided = self.recount.one_sided(clock.tick(), &timeout_ticks)?;
        collected.recounted = self.recount.run(clock.tick(), &timeout_ticks, is_limited, is_needed)?;
        Ok(collected)
    }

    /// Which segments there are, those included whose connections are still to be told of their end.
    fn known(&self, clock: &Clock) -> Result<Vec<Known>, ReadError> {
        let told = clock.ticks(TOLD);
        let mut known = Vec::with_capacity(self.segments.len() as usize);
        batch::range(self.segments.map(), 0, self.segments.len(), |_, segments: &[Segment]| {
            known.extend(segments.first().map(|segment| Known {
                lives: segment.state != STATE_EMPTY
                    && clock.tick() < segment.expires_tick.saturating_add(told),
                is_limited: segment.flags & SEGMENT_CONNECTIONS != 0,
            }));
        })
        .map_err(|source| ReadError::Map { map: "SEGMENTS", source })?;
        Ok(known)
    }
}
