//! The numbers that apply to every packet.

use aya::Ebpf;
use aya::maps::{Array, MapData};
use hub_common::segment::{SETTINGS_NO_SHARED_HOPS, SETTINGS_ONE_BUFFER, Settings as Entry};

use super::{MapFault, failure, take};
use crate::command::Inventory;
use crate::desired::Settings;
use crate::kernel::clock::Clock;
use crate::kernel::clsact;
use crate::reconcile::Report;

const NAME: &str = "settings";
/// A next hop that was not confirmed for this long is confirmed by the kernel: the neighbour is probed as
/// if the kernel forwarded the packets. The kernel's own confirmation lasts 15 to 45 s.
const HOP_SECONDS: u64 = 20;

/// The settings map.
pub struct SettingsMap {
    map: Array<MapData, Entry>,
    entry: Entry,
    /// Whether XDP cannot redirect frames in several buffers.
    one_buffer: bool,
}

impl SettingsMap {
    /// Takes the map of an object; its generations go on from where an earlier run left them.
    pub fn new(ebpf: &mut Ebpf) -> Result<Self, MapFault> {
        let map: Array<_, Entry> = take(ebpf, "SETTINGS")?;
        let entry = map.get(&0, 0).map_err(|source| MapFault::Kernel { map: "SETTINGS", source })?;
        // Kernels without TCX are those before 6.6; the three releases in between lose nothing but speed.
        let mut made = Self { map, entry, one_buffer: clsact::is_needed() };
        made.entry.route_generation = next(made.entry.route_generation);
        made.entry.class_generation = next(made.entry.class_generation);
        // Whoever looked has gone with the daemon of before.
        made.entry.traces = 0;
        Ok(made)
    }

    /// Puts time-outs, and whether next hops may be shared between connections.
    pub fn put(&mut self, settings: &Settings, inventory: &Inventory, clock: &Clock) -> Report {
        let mut entry = self.entry;
        entry.timeout_ticks = settings.timeout_seconds.map(|seconds| {
            u32::try_from(clock.ticks(std::time::Duration::from_secs(seconds.into()))).unwrap_or(u32::MAX)
        });
        entry.hop_ticks =
            u32::try_from(clock.ticks(std::time::Duration::from_secs(HOP_SECONDS))).unwrap_or(u32::MAX);
        entry.flags = if inventory.foreign_rules { SETTINGS_NO_SHARED_HOPS } else { 0 };
        if self.one_buffer {
            entry.flags |= SETTINGS_ONE_BUFFER;
        }
        if entry.flags != self.entry.flags {
            entry.route_generation = next(entry.route_generation);
        }
        self.store(entry)
    }

    /// Lets TCP without SYN open flows until a tick, where the rules allow it.
    pub fn loose_tcp_until(&mut self, tick: u64) -> Report {
        self.store(Entry { loose_tcp_until_tick: tick, ..self.entry })
    }

    /// Makes every flow be classified again.
    pub fn classify_again(&mut self) -> Report {
        let class_generation = next(self.entry.class_generation);
        self.store(Entry { class_generation, ..self.entry })
    }

    /// Makes every cached next hop be looked up again.
    pub fn route_again(&mut self) -> Report {
        let route_generation = next(self.entry.route_generation);
        self.store(Entry { route_generation, ..self.entry })
    }

    /// Makes packets look at a slot of the trace table, or not any more.
    pub fn trace(&mut self, slot: u32, looks: bool) -> Result<(), MapFault> {
        let bit = 1_u32.checked_shl(slot).unwrap_or_default();
        let traces = if looks { self.entry.traces | bit } else { self.entry.traces & !bit };
        let entry = Entry { traces, ..self.entry };
        self.map.set(0, entry, 0).map_err(|source| MapFault::Kernel { map: "SETTINGS", source })?;
        self.entry = entry;
        Ok(())
    }

    fn store(&mut self, entry: Entry) -> Report {
        let there = self.map.get(&0, 0).ok();
        if there == Some(entry) {
            return Report { table: NAME, ..Report::default() };
        }
        // What cannot be stored is stored by the next pass: a generation that was due stays due.
        self.entry = entry;
        match self.map.set(0, entry, 0) {
            Ok(()) => Report { table: NAME, put: 1, ..Report::default() },
            Err(source) => failure(NAME, &MapFault::Kernel { map: "SETTINGS", source }),
        }
    }
}

/// The next generation; 0 means none.
fn next(generation: u32) -> u32 {
    generation.wrapping_add(1).max(1)
}
