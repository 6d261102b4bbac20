//! What is told of personas at one scrape: all that was read.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use super::roster::{Roster, Row};
use crate::datapath_view::sweep::{Sweep, Totals};
use crate::inputs::datapath::Datapath;
use crate::kernel::reader::ReadError;
use crate::model::SegmentId;
use crate::qos_view::{self, QueueCounts};

/// Personas with their counters. Counters that cannot be read are left out.
pub(super) struct Rows {
    pub(super) roster: Arc<Roster>,
    pub(super) sweep: Sweep,
    /// Entries in the flow table.
    pub(super) flows: BTreeMap<SegmentId, u64>,
    pub(super) queues: BTreeMap<SegmentId, Vec<QueueCounts>>,
    pub(super) delays: BTreeMap<SegmentId, [u64; 2]>,
}

impl Rows {
    /// Reads everything; `flows` were read already.
    pub(super) fn read(
        datapath: &dyn Datapath,
        roster: Arc<Roster>,
        flows: Option<BTreeMap<SegmentId, u64>>,
    ) -> Self {
        let sweep = match &flows {
            Some(_) => or_none("personas", datapath.segments(&roster.segments)),
            None => Sweep::default(),
        };
        let (queues, paced) = if roster.has_qos {
            (or_none("queues", datapath.queues()), or_none("times of departure", datapath.paced()))
        } else {
            (BTreeMap::new(), BTreeMap::new())
        };
        let delays = qos_view::delays(&queues, paced);
        Self { roster, sweep, flows: flows.unwrap_or_default(), queues, delays }
    }

    /// Its name, to stand between quotes.
    #[inline(always)]
    pub(super) fn name(&self, row: &Row) -> &str {
        self.roster.name(row)
    }

    /// Its counters, if they could be read.
    #[inline(always)]
    pub(super) fn totals(&self, row: &Row) -> Option<&Totals> {
        self.sweep.totals(row.segment)
    }

    /// Whether its handshakes take longer than its latency.
    pub(super) fn is_late(&self, row: &Row) -> Option<bool> {
        let times = self.sweep.handshakes(row.segment)?;
        Some(u128::from(times.p95_us) > row.latency_us?)
    }
}

fn or_none<T: Default>(what: &str, read: Result<T, ReadError>) -> T {
    let warn = |error: &dyn Display| tracing::warn!(%error, "metrics without {what}");
    read.inspect_err(|error| warn(error)).unwrap_or_default()
}
