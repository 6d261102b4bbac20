//! Reads the data path: counters, flows, verdicts. Never writes.

use crate::datapath_view::{Answer, FlowTable, FlowView, HookCounts, Question, SegmentCounts};
use crate::model::SegmentId;

/// Why the data path could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A map operation failed.
    #[error("read map {map}: {source}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The question cannot be asked.
    #[error("{0}")]
    Question(String),
}

/// A handle to the live maps; cheap to clone, usable from any thread, every call blocks briefly.
#[derive(Clone, Debug)]
pub struct Reader;

impl Reader {
    /// Opens.
    pub fn open(_pins: &std::path::Path, _snapshot: tokio::sync::watch::Receiver<std::sync::Arc<crate::view::Snapshot>>) -> Result<Self, ReadError> { Ok(Self) }
    /// Counters of one persona.
    pub fn segment(&self, _segment: SegmentId) -> Result<SegmentCounts, ReadError> {
        Ok(SegmentCounts::default())
    }
    /// Totals of every hook.
    pub fn hooks(&self) -> Result<Vec<HookCounts>, ReadError> {
        Ok(Vec::new())
    }
    /// Live connections, of one persona or of all, at most `limit`.
    pub fn flows(&self, _segment: Option<SegmentId>, _limit: usize) -> Result<Vec<FlowView>, ReadError> {
        Ok(Vec::new())
    }
    /// How full the flow table is.
    pub fn flow_table(&self) -> Result<FlowTable, ReadError> {
        Ok(FlowTable::default())
    }
    /// What the loaded program would do with a packet; changes nothing.
    pub fn why(&self, _question: &Question) -> Result<Answer, ReadError> {
        Err(ReadError::Question("the data path is not loaded".into()))
    }
}
