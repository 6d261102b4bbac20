//! Frees the ports of masqueraded connections that are over: an entry lives as long as its flow.
//!
//! A connection has an entry for each way, which names the other. The way out is keyed as the flow is; an
//! entry of the way back whose way out has moved on is nobody's.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use aya::maps::{HashMap, IterableMap as _, MapData};
use hub_common::flow::{Flow, FlowKey};
use hub_common::translation::{Masquerade, ZONE_OUTSIDE};

use super::batch;
use super::maps;
use super::reader::ReadError;

/// The tables that say which connections there are.
pub struct Masquerades {
    entries: HashMap<MapData, FlowKey, Masquerade>,
    flows: HashMap<MapData, FlowKey, Flow>,
    opening: HashMap<MapData, FlowKey, Flow>,
}

impl Masquerades {
    /// Opens the maps pinned in `pins`.
    pub fn open(pins: &Path) -> Result<Self, ReadError> {
        Ok(Self {
            entries: maps::open(pins, "MASQUERADES")?,
            flows: maps::open(pins, "FLOWS")?,
            opening: maps::open(pins, "FLOWS_NEW")?,
        })
    }

    /// Removes entries without a flow, or with one that was idle for too long, and says how many.
    pub fn collect(&self, tick: u64, timeout_ticks: &[u32; 8]) -> Result<usize, ReadError> {
        let lives = |flow: Flow| !flow.is_stale(tick, timeout_ticks);
        let mut over = Vec::new();
        batch::entries(self.entries.map(), |key: &FlowKey, entries: &[Masquerade]| {
            over.extend(entries.iter().filter(|entry| self.is_over(key, entry, &lives)).map(|_| *key));
            ControlFlow::Continue(())
        })
        .map_err(failed)?;
        batch::remove(self.entries.map(), &over).map(drop).map_err(failed)?;
        Ok(over.len())
    }

    fn is_over(&self, key: &FlowKey, entry: &Masquerade, lives: &dyn Fn(Flow) -> bool) -> bool {
        let way_out = if key.zone == ZONE_OUTSIDE { &entry.pair } else { key };
        let has_flow =
            self.flows.get(way_out, 0).is_ok_and(lives) || self.opening.get(way_out, 0).is_ok_and(lives);
        let is_named = key.zone != ZONE_OUTSIDE
            || self.entries.get(way_out, 0).is_ok_and(|way_out| way_out.pair == *key);
        !has_flow || !is_named
    }
}

fn failed(source: io::Error) -> ReadError {
    ReadError::Map { map: "MASQUERADES", source }
}
