//! What inputs and metrics read from the data path, so that tests can stand in for the kernel.

use std::collections::BTreeMap;
use std::fmt::Debug;

use crate::datapath_view::{
    Answer, CandidateCounts, FlowCounts, FlowView, HookCounts, Impacts, QuarantinedView, Question,
    SegmentCounts, Sweep,
};
use crate::judgement::{Asked, Judgement};
use crate::kernel::impacted::{Change, Waited};
use crate::kernel::reader::{ReadError, Reader};
use crate::model::SegmentId;
use crate::qos_view::{HandshakeTimes, QueueCounts};

/// Reads the data path; every call blocks briefly and may come from any thread.
pub trait Datapath: Debug + Send + Sync {
    /// Counters of one persona.
    fn segment(&self, segment: SegmentId) -> Result<SegmentCounts, ReadError>;
    /// Counters of the personas with these segments.
    fn segments(&self, of: &[SegmentId]) -> Result<Sweep, ReadError>;
    /// How full the flow table is, and whose connections are in it. Walks all of it.
    fn flow_counts(&self) -> Result<FlowCounts, ReadError>;
    /// What a persona's candidate answered beside its live policy.
    fn candidate(&self, segment: SegmentId) -> Result<CandidateCounts, ReadError>;
    /// What waits in the queues of every persona.
    fn queues(&self) -> Result<BTreeMap<SegmentId, Vec<QueueCounts>>, ReadError>;
    /// How long packets that wait for their time of departure do so, in microseconds, towards members and
    /// from them.
    fn paced(&self) -> Result<BTreeMap<SegmentId, [u64; 2]>, ReadError>;
    /// Times of handshakes of every persona that has any.
    fn handshakes(&self) -> Result<BTreeMap<SegmentId, HandshakeTimes>, ReadError>;
    /// Totals of every hook.
    fn hooks(&self) -> Result<Vec<HookCounts>, ReadError>;
    /// Addresses in the quarantine of a persona.
    fn quarantined(&self, segment: SegmentId) -> Result<Vec<QuarantinedView>, ReadError>;
    /// Live connections, of one persona or of all, at most `limit`.
    fn flows(&self, segment: Option<SegmentId>, limit: usize) -> Result<Vec<FlowView>, ReadError>;
    /// What a change of policy means for the connections of a persona, at most `limit` of them by name.
    fn impacted(&self, change: &Change<'_>, limit: usize) -> Result<Impacts, ReadError>;
    /// The connections that a change of policy waits for, by looking for those that were known, or at all.
    fn waited(&self, change: &Change<'_>, all: bool, known: Option<&Waited>) -> Result<Waited, ReadError>;
    /// Connections of TCP of a persona that ended so far, which is quick to read.
    fn ended(&self, segment: SegmentId) -> Result<u64, ReadError>;
    /// What the loaded program would do with a packet; changes nothing.
    fn why(&self, question: &Question) -> Result<Answer, ReadError>;
    /// What the loaded program says of packets by ports which they name; changes nothing.
    fn judge(&self, asked: &[Asked]) -> Result<Vec<Judgement>, ReadError>;
}

impl Datapath for Reader {
    fn segment(&self, segment: SegmentId) -> Result<SegmentCounts, ReadError> {
        Self::segment(self, segment)
    }

    fn segments(&self, of: &[SegmentId]) -> Result<Sweep, ReadError> {
        Self::segments(self, of)
    }

    fn flow_counts(&self) -> Result<FlowCounts, ReadError> {
        Self::flow_counts(self)
    }

    fn candidate(&self, segment: SegmentId) -> Result<CandidateCounts, ReadError> {
        Self::candidate(self, segment)
    }

    fn queues(&self) -> Result<BTreeMap<SegmentId, Vec<QueueCounts>>, ReadError> {
        Self::queues(self)
    }

    fn paced(&self) -> Result<BTreeMap<SegmentId, [u64; 2]>, ReadError> {
        Self::paced(self)
    }

    fn handshakes(&self) -> Result<BTreeMap<SegmentId, HandshakeTimes>, ReadError> {
        Self::handshakes(self)
    }

    fn hooks(&self) -> Result<Vec<HookCounts>, ReadError> {
        Self::hooks(self)
    }

    fn quarantined(&self, segment: SegmentId) -> Result<Vec<QuarantinedView>, ReadError> {
        Self::quarantined(self, segment)
    }

    fn flows(&self, segment: Option<SegmentId>, limit: usize) -> Result<Vec<FlowView>, ReadError> {
        Self::flows(self, segment, limit)
    }

    fn impacted(&self, change: &Change<'_>, limit: usize) -> Result<Impacts, ReadError> {
        Self::impacted(self, change, limit)
    }

    fn waited(&self, change: &Change<'_>, all: bool, known: Option<&Waited>) -> Result<Waited, ReadError> {
        Self::waited(self, change, all, known)
    }

    fn ended(&self, segment: SegmentId) -> Result<u64, ReadError> {
        Self::ended(self, segment)
    }

    fn why(&self, question: &Question) -> Result<Answer, ReadError> {
        Self::why(self, question)
    }

    fn judge(&self, asked: &[Asked]) -> Result<Vec<Judgement>, ReadError> {
        Self::judge(self, asked)
    }
}
