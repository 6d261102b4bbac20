//! Traces: packets with their verdicts, live, for whoever asks.
//!
//! A trace takes one of a few slots of the data path for a bounded time. The applier places its filter and
//! takes it away; the reader of the event ring delivers what matches. Dropping a [`Trace`] ends it.

mod question;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc as blocking;
use std::time::Duration;

use aya::maps::{MapData, PerCpuArray};
use hub_common::trace::{TRACE_SLOTS, TraceFilter, TraceGate};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, oneshot};
use utoipa::ToSchema;

pub use self::question::{Refusal, SECONDS, SECONDS_MAX, TraceQuestion};

use crate::daemon::applier::Job;
use crate::datapath_view::PacketEvent;
use crate::kernel::maps;
use crate::kernel::reader::ReadError;

/// Packets kept for slow readers of traces.
const QUEUE: usize = 4_096;

/// A packet with what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TracedPacket {
    /// The packet; its `action` is `trace`.
    #[serde(flatten)]
    pub packet: PacketEvent,
    /// `redirect`, `stack` (the kernel forwards or delivers it), `skip` (not the hub's to judge), `drop` or
    /// `reject`.
    pub verdict: String,
    /// `new`, `established`, or `none` where no connection was found or made.
    pub connection: String,
    /// Whether it goes against the direction of the connection's first packet.
    pub reply: bool,
    /// Persona whose rule decided, or let the connection in.
    pub rule_persona: Option<String>,
    /// Where that rule was written.
    pub rule_written: Option<String>,
}

/// How a trace went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TraceEnd {
    /// Packets that matched.
    pub matched: u64,
    /// Packets shown.
    pub shown: u64,
    /// Packets that matched and were not shown: too many at once.
    pub lost: u64,
}

/// A filter on its way into a slot of the data path, or out of it.
#[derive(Debug)]
pub struct Placement {
    /// The slot.
    pub slot: u32,
    /// The filter and its life; `None` empties the slot.
    pub filter: Option<(TraceFilter, Duration)>,
    /// Told when it is done, with the fault if there was one.
    pub done: Option<oneshot::Sender<Result<(), String>>>,
}

/// Why a trace cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// All slots are in use.
    #[error("{TRACE_SLOTS} traces run already: end one")]
    Full,
    /// The data path is not there.
    #[error("the data path takes no traces: {0}")]
    Refused(String),
}

/// A packet and the slots that it matched.
pub type Delivery = (u32, Arc<TracedPacket>);

/// What programs count for each slot.
#[derive(Clone)]
struct Gates(Arc<PerCpuArray<MapData, TraceGate>>);

impl fmt::Debug for Gates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gates")
    }
}

/// Starts traces.
#[derive(Debug)]
pub struct Tracer {
    used: Arc<AtomicU32>,
    jobs: blocking::Sender<Job>,
    packets: broadcast::Sender<Delivery>,
    gates: Option<Gates>,
}

impl Tracer {
    /// Traces of the data path pinned in `pins`.
    pub fn open(pins: &Path, jobs: blocking::Sender<Job>) -> Result<Self, ReadError> {
        let gates = Some(Gates(Arc::new(maps::open(pins, "TRACE_GATES")?)));
        Ok(Self { gates, ..Self::on(jobs) })
    }

    /// Traces of nothing: none begins.
    pub fn detached() -> Self {
        Self::on(blocking::channel().0)
    }

    fn on(jobs: blocking::Sender<Job>) -> Self {
        Self { used: Arc::default(), jobs, packets: broadcast::channel(QUEUE).0, gates: None }
    }

    /// Where the reader of the ring delivers packets.
    pub fn deliveries(&self) -> broadcast::Sender<Delivery> {
        self.packets.clone()
    }

    /// Begins a trace; when it returns, packets are being looked at.
    pub async fn begin(&self, filter: TraceFilter, life: Duration) -> Result<Trace, TraceError> {
        let free = |used: u32| {
            let slot = (0..TRACE_SLOTS).find(|slot| used >> slot & 1 == 0)?;
            Some(used | 1 << slot)
        };
        let before = self
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, free)
            .map_err(|_full| TraceError::Full)?;
        let slot = before.trailing_ones();
        let mut trace = Trace {
            slot,
            since: Timestamp::now(),
            used: Arc::clone(&self.used),
            jobs: self.jobs.clone(),
            packets: self.packets.subscribe(),
            gates: self.gates.clone(),
            before: TraceEnd::default(),
            skipped: 0,
        };
        trace.before = trace.gate();
        let (done, placed) = oneshot::channel();
        let placement = Placement { slot, filter: Some((filter, life)), done: Some(done) };
        let refused = |why: &str| TraceError::Refused(why.to_owned());
        self.jobs.send(Job::Trace(placement)).map_err(|_gone| refused("it is not loaded"))?;
        match placed.await {
            Ok(Ok(())) => Ok(trace),
            Ok(Err(why)) => Err(TraceError::Refused(why)),
            Err(_gone) => Err(refused("the hub is stopping")),
        }
    }
}

/// A trace that runs until it is dropped.
#[derive(Debug)]
pub struct Trace {
    slot: u32,
    since: Timestamp,
    used: Arc<AtomicU32>,
    jobs: blocking::Sender<Job>,
    packets: broadcast::Receiver<Delivery>,
    gates: Option<Gates>,
    before: TraceEnd,
    skipped: u64,
}

impl Trace {
    /// The next packet; `None` when there will be none any more.
    pub async fn next(&mut self) -> Option<Arc<TracedPacket>> {
        loop {
            match self.packets.recv().await {
                // An event that the slot's last owner left in the ring is none of ours.
                Ok((slots, packet)) if slots >> self.slot & 1 == 1 && packet.packet.time >= self.since => {
                    return Some(packet);
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(lost)) => self.skipped += lost,
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// Packets matched and lost so far.
    pub fn counts(&self) -> TraceEnd {
        let now = self.gate();
        TraceEnd {
            matched: now.matched.saturating_sub(self.before.matched),
            shown: 0,
            lost: now.lost.saturating_sub(self.before.lost) + self.skipped,
        }
    }

    fn gate(&self) -> TraceEnd {
        let values = self.gates.as_ref().and_then(|gates| gates.0.get(&self.slot, 0).ok());
        let mut sum = TraceEnd::default();
        for gate in values.iter().flat_map(|values| values.iter()) {
            sum.matched += gate.matched;
            sum.lost += gate.lost;
        }
        sum
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // The applier takes jobs in order: whoever takes the slot next places its filter after this.
        drop(self.jobs.send(Job::Trace(Placement { slot: self.slot, filter: None, done: None })));
        self.used.fetch_and(!(1 << self.slot), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_begins_without_a_data_path() {
        let tracer = Tracer::detached();
        let refused = tracer.begin(TraceFilter::ZERO, Duration::from_secs(1)).await;
        assert!(matches!(refused, Err(TraceError::Refused(_))), "{refused:?}");
        assert_eq!(tracer.used.load(Ordering::Acquire), 0);
    }
}
