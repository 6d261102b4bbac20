//! The maps of the data path, made equal to what is wanted.
//!
//! The daemon is their only writer, so what they hold is remembered here instead of read back; only what
//! an earlier run left is read once. Changes go from what is referred to to what refers: policies before
//! the segments that point at them, segments before the prefixes that lead to them, the port table before
//! programs run on a port. Freed slots are used again after a grace period.

pub mod connections;
pub mod detectors;
mod ends;
mod entry;
pub mod grace;
pub mod local_bits;
pub mod nets;
mod origins;
pub mod policies;
pub mod port_sets;
pub mod ports;
pub mod prefixes;
mod quarantine;
pub mod segments;
mod sets;
pub mod settings;
pub mod shapes;
mod signatures;
mod slots;
pub mod small;
mod standing;
pub mod traces;
pub mod translations;
mod tunnels;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::MapError;
use hub_common::segment::Peer;
use hub_common::trace::TraceFilter;
use ipnet::IpNet;

use crate::command::Inventory;
use crate::desired::Desired;
use crate::desired::shared_map::SharedMap;
use crate::kernel::attach::Hook;
use crate::kernel::clock::Clock;
use crate::kernel::load::carry::Carry;
use crate::kernel::load::{Capacities, LoadError, Loaded, anew};
use crate::model::{PersonaId, SegmentId};
use crate::outputs::status::Attachment;
use crate::reconcile::{Against, Failure, Report};

/// How long a start that begins anew waits before it puts what was refused again: a kernel short of memory may have
/// some then.
const PATIENCE: [Duration; 3] =
    [Duration::from_millis(10), Duration::from_millis(50), Duration::from_millis(250)];

/// What went wrong with a map.
#[derive(Debug, thiserror::Error)]
pub enum MapFault {
    /// The kernel refused.
    #[error("map {map}: {source}")]
    Kernel {
        /// Name of the map.
        map: &'static str,
        /// What aya said.
        source: MapError,
    },
    /// There is no room.
    #[error("map {map} is full at {capacity} entries: raise `limits` in hub.yaml")]
    Full {
        /// Name of the map.
        map: &'static str,
        /// Its capacity.
        capacity: u32,
    },
    /// The object has no such map.
    #[error("the kernel object has no map {0}")]
    Missing(&'static str),
}

/// Takes a typed map out of the object.
pub(crate) fn take<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, MapFault>
where
    M: TryFrom<aya::maps::Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or(MapFault::Missing(name))?;
    M::try_from(map).map_err(|source| MapFault::Kernel { map: name, source })
}

/// What the kernel said of a map that was read or written in batches.
pub(crate) fn fault(map: &'static str) -> impl FnOnce(io::Error) -> MapFault {
    move |error| MapFault::Kernel { map, source: MapError::IoError(error) }
}

/// All maps that the daemon writes.
pub struct Datapath {
    ebpf: Ebpf,
    pins: PathBuf,
    segments: segments::Segments,
    prefixes: prefixes::Prefixes,
    small: small::Small,
    translations: translations::Translations,
    ports: ports::Ports,
    tunnels: tunnels::Tunnels,
    settings: settings::SettingsMap,
    sets: sets::Sets,
    quarantine: quarantine::Quarantine,
    traces: traces::Traces,
    detectors: detectors::DetectorMaps,
    times: shapes::Times,
    connections: connections::Connections,
    /// Maps of before that programs of before still use.
    carry: Carry,
    /// Programs of before judge by more than the maps of now have.
    lacks: bool,
    /// The maps of now began anew, and programs of before may judge by theirs.
    is_anew: bool,
}

impl Datapath {
    /// Takes the maps of a loaded object and reads what an earlier run left in them.
    pub fn new(loaded: Loaded, capacities: &Capacities, hook: Hook) -> Result<Self, MapFault> {
        let Loaded { mut ebpf, pins, adopted, is_anew, carry, cold_start } = loaded;
        let segments = segments::Segments::new(&mut ebpf, capacities, adopted)?;
        let prefixes = prefixes::Prefixes::new(&mut ebpf, capacities, adopted)?;
        let small = small::Small::new(&mut ebpf)?;
        let translations = translations::Translations::new(&mut ebpf)?;
        let ports = ports::Ports::new(&mut ebpf, hook)?;
        let tunnels = tunnels::Tunnels::new(&mut ebpf, hook)?;
        let settings = settings::SettingsMap::new(&mut ebpf)?;
        let sets = sets::Sets::new(&mut ebpf)?;
        let quarantine = quarantine::Quarantine::new(&mut ebpf)?;
        let detectors = detectors::DetectorMaps::new(&mut ebpf, capacities, adopted)?;
        let traces = traces::Traces::new(&mut ebpf)?;
        let times = shapes::Times::new(&mut ebpf)?;
        let connections = connections::Connections::new(&mut ebpf)?;
        Ok(Self {
            ebpf,
            pins,
            segments,
            prefixes,
            small,
            translations,
            ports,
            tunnels,
            settings,
            sets,
            quarantine,
            traces,
            detectors,
            times,
            connections,
            carry,
            lacks: cold_start.is_some(),
            is_anew,
        })
    }

    /// Has programs find what those of before put into their own maps since the last time.
    pub fn catch_up(&mut self) {
        told(self.carry.catch_up());
    }

    /// As [`Self::catch_up`], and lets go of maps of before that no program uses any more.
    pub fn settle(&mut self) {
        told(self.carry.settle(grace::wait));
    }

    /// Puts what is wanted: policies, segments, peers, prefixes, then ports with their programs.
    pub fn put(
        &mut self,
        desired: &Desired,
        inventory: &Inventory,
        clock: &Clock,
        failed: &mut BTreeSet<PersonaId>,
    ) -> Vec<Report> {
        let before = failed.clone();
        let (mut reports, mut changes) = self.put_tables(desired, inventory, clock, failed);
        if std::mem::take(&mut self.lacks) {
            // Who is refused here is cut off as soon as the programs of now come onto the ports.
            for wait in PATIENCE {
                if reports.iter().all(|report| report.failures.is_empty()) {
                    break;
                }
                std::thread::sleep(wait);
                failed.clone_from(&before);
                let (again, more) = self.put_tables(desired, inventory, clock, failed);
                (reports, changes) = (again, changes + more);
            }
        }
        let ports = self.ports.put(&mut self.ebpf, &self.pins, desired, inventory);
        if self.is_anew && self.ports.took_over() {
            match anew::end(&self.pins) {
                Ok(()) => self.is_anew = false,
                Err(error) => tracing::warn!(%error, "the next start may take this one for broken off"),
            }
        }
        if changes + ports.put + ports.deleted > 0 {
            reports.push(self.settings.classify_again());
        }
        reports.push(ports);
        reports
    }

    /// Puts all that packets are judged by but the ports, and says how much of it leads them to segments.
    fn put_tables(
        &mut self,
        desired: &Desired,
        inventory: &Inventory,
        clock: &Clock,
        failed: &mut BTreeSet<PersonaId>,
    ) -> (Vec<Report>, usize) {
        let mut reports = vec![self.settings.put(&desired.settings, inventory, clock)];
        reports.push(self.translations.put(desired, inventory));
        reports.push(self.detectors.put(&desired.detectors, clock));
        reports.push(self.connections.put(desired));
        reports.push(self.sets.put(&desired.sets, clock));
        reports.push(self.quarantine.put(&desired.quarantine, clock));
        let held = self.held(desired, clock);
        reports.push(self.segments.put(desired, &held, clock, failed));
        // A segment that could not be changed goes on as it was, and one that could not be made is not there.
        let live = |id: &SegmentId| {
            let segment = desired.segments.get(id);
            segment.is_some_and(|s| !failed.contains(&s.persona) || self.segments.holds(*id, &s.persona))
        };
        let prefixes = self.prefixes_of(desired, failed, live);
        let peers = desired.peers.iter().filter(|(a, b)| live(a) && live(b));
        let peers: Vec<Peer> = peers.map(|(a, b)| Peer::between(a.0, b.0)).collect();
        let peers = self.small.put_peers(&peers);
        let locals = self.small.put_locals(desired, inventory);
        if locals.put + locals.deleted > 0 {
            reports.push(self.settings.route_again());
        }
        reports.push(locals);
        reports.push(self.small.put_gateways(desired));
        reports.push(self.small.put_failsafe(&desired.settings));
        let moved = self.prefixes.put(&prefixes);
        let changes = [&moved, &peers].map(|report| report.put + report.deleted);
        reports.extend([peers, moved]);
        (reports, changes.iter().sum())
    }

    /// Puts the programs on the devices of tunnels in namespaces of others, as far as these are there.
    pub fn put_tunnels(&mut self, desired: &Desired, against: Against) -> Report {
        self.tunnels.put(&mut self.ebpf, &self.pins, &desired.tunnels, against)
    }

    /// Whether the programs are on the device of a tunnel.
    pub fn judges_tunnel(&self, name: &str) -> bool {
        self.tunnels.judges(name)
    }

    /// Segments that go on looking for addresses in quarantine.
    fn held(&mut self, desired: &Desired, clock: &Clock) -> BTreeSet<SegmentId> {
        let asked = self.segments.stop_quarantine(&desired.segments);
        if asked.is_empty() { asked } else { self.quarantine.held(asked, clock.now()) }
    }

    /// Changes over segments whose policies on trial became the wanted ones, before anything else of a pass: one
    /// store each. Says which, and how long the store took.
    pub fn flip(&mut self, desired: &Desired, clock: &Clock) -> Vec<SegmentId> {
        let held = self.held(desired, clock);
        self.segments.flip(desired, &held, clock)
    }

    /// Which prefixes lead to which segments: those wanted, and for segments whose change failed those that
    /// were there before.
    fn prefixes_of(
        &self,
        desired: &Desired,
        failed: &BTreeSet<PersonaId>,
        live: impl Fn(&SegmentId) -> bool,
    ) -> SharedMap<IpNet, SegmentId> {
        if failed.is_empty() {
            return desired.prefixes.clone();
        }
        let stuck = desired.segments.iter().filter(|(id, s)| failed.contains(&s.persona) && live(id));
        let held = stuck.filter_map(|(id, _)| Some((*id, self.prefixes.of(*id)?)));
        let held: BTreeMap<SegmentId, Vec<IpNet>> = held.collect();
        let wanted = desired.prefixes.iter().filter(|(_, id)| live(id) && !held.contains_key(id));
        let kept = held.iter().flat_map(|(id, nets)| nets.iter().map(|net| (*net, *id)));
        kept.chain(wanted.map(|(net, id)| (*net, *id))).collect()
    }

    /// Deletes what is no longer wanted. [`Self::reuse`] comes before the next pass.
    pub fn delete(&mut self, desired: &Desired, inventory: &Inventory) -> Vec<Report> {
        let translations = self.translations.delete(desired, inventory);
        let report = self.segments.delete(&desired.segments);
        let connections = self.connections.delete(desired);
        let watches = self.detectors.delete(desired);
        self.times.delete(&desired.segments);
        vec![report, translations, connections, watches, self.sets.delete(&desired.sets)]
    }

    /// Waits until no packet can see what passes took out of use, so that the next may use it again.
    pub fn reuse(&mut self) {
        let retired =
            [self.segments.has_retired(), self.prefixes.has_retired(), self.detectors.has_retired()];
        if retired.contains(&true) {
            grace::wait();
            self.segments.reuse();
            self.prefixes.reuse();
            self.detectors.reuse();
        }
    }

    /// Names what is in the maps and wanted by nobody.
    pub fn orphans(&self, desired: &Desired) -> Vec<String> {
        self.segments.orphans(&desired.segments)
    }

    /// Takes an address out of a segment's quarantine, whoever put it in.
    pub fn release(&mut self, segment: SegmentId, address: IpAddr) {
        self.quarantine.release(segment, address);
    }

    /// Takes out of quarantine what has ended.
    pub fn sweep(&mut self, clock: &Clock) {
        let segments = &self.segments;
        self.quarantine.sweep(clock.now(), |segment| segments.has(segment));
    }

    /// Makes every cached next hop be looked up again.
    pub fn routes_changed(&mut self) -> Report {
        self.settings.route_again()
    }

    /// Lets TCP in mid-stream open flows for a while, after a start without the flows of before.
    pub fn loose_tcp_for(&mut self, time: Duration, clock: &Clock) -> Report {
        self.settings.loose_tcp_until(clock.now().saturating_add(clock.ticks(time)))
    }

    /// Begins or ends a trace; when it returns, packets see it so.
    pub fn trace(
        &mut self,
        slot: u32,
        filter: Option<(TraceFilter, Duration)>,
        clock: &Clock,
    ) -> Result<(), MapFault> {
        self.traces.place(slot, filter, &mut self.settings, clock)
    }

    /// Ports with XDP whose far ends the hub cannot see.
    pub fn unseen_ends(&self) -> Vec<String> {
        self.ports.unseen_ends()
    }

    /// Whether programs judge what passes a port.
    pub fn judges(&self, port: &str) -> bool {
        self.ports.judges(port) || self.tunnels.judges(port)
    }

    /// Where programs run.
    pub fn attachments(&self) -> Vec<Attachment> {
        self.ports.attachments().into_iter().chain(self.tunnels.attachments()).collect()
    }

    /// Fall-backs taken, for the hub's conditions: interface and reason.
    pub fn fallbacks(&self) -> &BTreeMap<String, String> {
        self.ports.fallbacks()
    }
}

/// A report of one map with one failure that belongs to no persona.
pub(crate) fn failure(table: &'static str, error: &MapFault) -> Report {
    let failure = Failure { object: table.to_owned(), error: error.to_string(), persona: None };
    Report { table, failures: vec![failure], ..Report::default() }
}

/// What could not be carried over now is by the next pass.
fn told(result: Result<(), LoadError>) {
    if let Err(error) = result {
        tracing::warn!(%error, "maps of before are kept");
    }
}
