//! The filters of traces. A slot is written while no packet looks at it: the settings say which ones do.

use std::time::Duration;

use aya::Ebpf;
use aya::maps::{Array, MapData};
use hub_common::trace::TraceFilter;

use super::settings::SettingsMap;
use super::{MapFault, grace, take};
use crate::kernel::clock::Clock;

/// The table of filters.
pub struct Traces {
    map: Array<MapData, TraceFilter>,
}

impl Traces {
    /// Takes the map of an object.
    pub fn new(ebpf: &mut Ebpf) -> Result<Self, MapFault> {
        Ok(Self { map: take(ebpf, "TRACES")? })
    }

    /// Begins or ends a trace.
    pub fn place(
        &mut self,
        slot: u32,
        filter: Option<(TraceFilter, Duration)>,
        settings: &mut SettingsMap,
        clock: &Clock,
    ) -> Result<(), MapFault> {
        let Some((filter, life)) = filter else {
            settings.trace(slot, false)?;
            grace::wait();
            return Ok(());
        };
        let until_tick = clock.now().saturating_add(clock.ticks(life));
        self.map
            .set(slot, TraceFilter { until_tick, ..filter }, 0)
            .map_err(|source| MapFault::Kernel { map: "TRACES", source })?;
        settings.trace(slot, true)
    }
}
