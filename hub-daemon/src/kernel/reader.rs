//! Reads the data path: counters, flows, verdicts. Never writes.
//!
//! Everything is read from the pinned maps at the moment of the call, so that a handle outlives a restart of
//! whatever writes them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use super::clock::TickSource;
use super::impacted::{Change, Waited};
use super::maps::Maps;
use super::netlink::NetlinkError;
use super::why::Why;
use super::{candidates, counts, flow_list, impacted, paced, qos, quarantined};
use crate::datapath_view::{
    Answer, CandidateCounts, FlowCounts, FlowView, HookCounts, Impacts, QuarantinedView, Question,
    SegmentCounts, Sweep,
};
use crate::judgement::{Asked, Judgement};
use crate::model::SegmentId;
use crate::qos_view::{HandshakeTimes, QueueCounts};
use crate::view::Snapshot;

/// Why the data path could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A map or a program failed.
    #[error("read {map} of the data path: {source}")]
    Map {
        /// Name of the map or program.
        map: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Queues could not be listed.
    #[error(transparent)]
    Queues(NetlinkError),
    /// The question cannot be asked.
    #[error("{0}")]
    Question(String),
}

/// A handle to the live maps; cheap to clone, usable from any thread, every call blocks briefly.
#[derive(Clone)]
pub struct Reader(Option<Arc<Live>>);

struct Live {
    maps: Maps,
    ticks: TickSource,
    why: Why,
    snapshot: watch::Receiver<Arc<Snapshot>>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Reader" } else { "Reader (detached)" })
    }
}

impl Live {
    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }
}

impl Reader {
    /// Opens the maps pinned in `pins` and the programs pinned in `pins/prog`; names of personas and rules
    /// come from the snapshot.
    pub fn open(pins: &Path, snapshot: watch::Receiver<Arc<Snapshot>>) -> Result<Self, ReadError> {
        let live =
            Live { maps: Maps::open(pins)?, ticks: TickSource::open(pins)?, why: Why::open(pins)?, snapshot };
        Ok(Self(Some(Arc::new(live))))
    }

    /// A reader of nothing: all is empty, and no question is answered.
    pub const fn detached() -> Self {
        Self(None)
    }

    /// Counters of one persona.
    pub fn segment(&self, segment: SegmentId) -> Result<SegmentCounts, ReadError> {
        self.live(|live| counts::segment(&live.maps, segment.0))
    }

    /// What waits in the queues of every persona.
    pub fn queues(&self) -> Result<BTreeMap<SegmentId, Vec<QueueCounts>>, ReadError> {
        self.live(|_| qos::queues().map_err(ReadError::Queues))
    }

    /// How long packets that wait for their time of departure do so, by persona.
    pub fn paced(&self) -> Result<BTreeMap<SegmentId, [u64; 2]>, ReadError> {
        self.live(|live| paced::waits(&live.maps, &live.snapshot()))
    }

    /// Times of handshakes of every persona that has any.
    pub fn handshakes(&self) -> Result<BTreeMap<SegmentId, HandshakeTimes>, ReadError> {
        self.live(|live| qos::all_handshakes(&live.maps))
    }

    /// Counters of the personas with these segments, in sweeps over the maps.
    pub fn segments(&self, of: &[SegmentId]) -> Result<Sweep, ReadError> {
        self.live(|live| counts::segments(&live.maps, of))
    }

    /// Totals of every hook.
    pub fn hooks(&self) -> Result<Vec<HookCounts>, ReadError> {
        self.live(|live| counts::hooks(&live.maps))
    }

    /// What a persona's candidate answered beside its live policy.
    pub fn candidate(&self, segment: SegmentId) -> Result<CandidateCounts, ReadError> {
        self.live(|live| candidates::counts(&live.maps, segment.0))
    }

    /// Addresses in the quarantine of a segment.
    pub fn quarantined(&self, segment: SegmentId) -> Result<Vec<QuarantinedView>, ReadError> {
        self.live(|live| quarantined::list(&live.maps, &live.ticks.read()?, segment.0))
    }

    /// Live connections, of one persona or of all, at most `limit`.
    pub fn flows(&self, segment: Option<SegmentId>, limit: usize) -> Result<Vec<FlowView>, ReadError> {
        self.live(|live| flow_list::list(&live.maps, &live.ticks.read()?, segment, limit))
    }

    /// What a change of policy means for the connections of a persona, with at most `limit` of them by name.
    pub fn impacted(&self, change: &Change<'_>, limit: usize) -> Result<Impacts, ReadError> {
        self.live(|live| impacted::list(&live.maps, &live.ticks.read()?, change, limit))
    }

    /// The connections that a change of policy waits for: those that were known if they are few, else of all that there
    /// are. With `all` those are meant that would go on as well.
    pub fn waited(
        &self,
        change: &Change<'_>,
        all: bool,
        known: Option<&Waited>,
    ) -> Result<Waited, ReadError> {
        self.live(|live| {
            let clock = live.ticks.read()?;
            match known {
                Some(known) => impacted::again(&live.maps, &clock, change, all, known),
                None => impacted::walk(&live.maps, &clock, change, all),
            }
        })
    }

    /// Connections of TCP of a persona that ended so far, which is quick to read: as long as it stands, and no longer
    /// than a second, [`Self::waited`] need not be asked again.
    pub fn ended(&self, segment: SegmentId) -> Result<u64, ReadError> {
        self.live(|live| impacted::ended(&live.maps, segment))
    }

    /// How full the flow table is, and whose connections are in it. Walks all of it.
    pub fn flow_counts(&self) -> Result<FlowCounts, ReadError> {
        self.live(|live| flow_list::counts(&live.maps))
    }

    /// What the loaded program would do with a packet; changes nothing.
    pub fn why(&self, question: &Question) -> Result<Answer, ReadError> {
        match &self.0 {
            Some(live) => live.why.ask(&live.maps, &live.snapshot(), question),
            None => Err(ReadError::Question("the data path is not loaded".into())),
        }
    }

    /// What the loaded program says of packets by ports which they name.
    pub fn judge(&self, asked: &[Asked]) -> Result<Vec<Judgement>, ReadError> {
        self.live(|live| asked.iter().map(|asked| live.why.judge(&live.maps, asked)).collect())
    }

    fn live<T: Default>(&self, read: impl FnOnce(&Live) -> Result<T, ReadError>) -> Result<T, ReadError> {
        self.0.as_deref().map_or_else(|| Ok(T::default()), read)
    }
}
