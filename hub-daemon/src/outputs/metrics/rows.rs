//! What is told of personas at one scrape: all that was read, and in which order it is told.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::text::Text;
use crate::datapath_view::sweep::{Sweep, Totals};
use crate::inputs::datapath::Datapath;
use crate::kernel::reader::ReadError;
use crate::model::{SegmentId, span};
use crate::qos_view::{self, QueueCounts};
use crate::view::{PersonaState, PersonaView, Snapshot};

/// One persona that has not ended.
pub(super) struct Row {
    /// Where its name begins and ends in `labels`.
    name: (u32, u32),
    pub(super) segment: SegmentId,
    /// Its entries in the flow table.
    pub(super) flows: u64,
    /// When it ends, seconds since 1970.
    pub(super) expires: Option<u64>,
    /// Whether its handshakes take longer than its latency.
    pub(super) is_late: Option<bool>,
}

/// All of them, with their counters. Counters that cannot be read are left out.
pub(super) struct Rows {
    pub(super) all: Vec<Row>,
    /// Names as they stand between quotes, one behind the other.
    labels: String,
    pub(super) sweep: Sweep,
    pub(super) queues: BTreeMap<SegmentId, Vec<QueueCounts>>,
    pub(super) delays: BTreeMap<SegmentId, [u64; 2]>,
}

impl Rows {
    /// Reads everything; `flows` were read already.
    pub(super) fn read(
        datapath: &dyn Datapath,
        snapshot: &Snapshot,
        flows: Option<&BTreeMap<SegmentId, u64>>,
    ) -> Self {
        let sweep = flows.map(|_| or_none("personas", datapath.segments())).unwrap_or_default();
        let has_qos = snapshot.personas.values().any(|persona| persona.definition.qos.is_some());
        let (queues, paced) = if has_qos {
            (or_none("queues", datapath.queues()), or_none("times of departure", datapath.paced()))
        } else {
            (BTreeMap::new(), BTreeMap::new())
        };
        let delays = qos_view::delays(&queues, paced);
        let mut labels = Text::with_capacity(16 * snapshot.personas.len());
        let live = snapshot.personas.values().filter(|persona| persona.state != PersonaState::Expired);
        let rows = live.map(|persona| {
            let start = labels.len();
            labels.label(&persona.definition.name);
            let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
            Row {
                name: (place(start), place(labels.len())),
                segment: persona.segment,
                flows: flows.and_then(|flows| flows.get(&persona.segment).copied()).unwrap_or_default(),
                expires: persona.expires_at.and_then(|end| u64::try_from(end.as_second()).ok()),
                is_late: is_late(persona, &sweep),
            }
        });
        Self { all: rows.collect(), labels: labels.into_string(), sweep, queues, delays }
    }

    /// Its name, to stand between quotes.
    #[inline(always)]
    pub(super) fn name(&self, row: &Row) -> &str {
        self.labels.get(row.name.0 as usize..row.name.1 as usize).unwrap_or_default()
    }

    /// Its counters, if they could be read.
    #[inline(always)]
    pub(super) fn totals(&self, row: &Row) -> Option<&Totals> {
        self.sweep.totals(row.segment)
    }
}

fn or_none<T: Default>(what: &str, read: Result<T, ReadError>) -> T {
    let warn = |error: &dyn Display| tracing::warn!(%error, "metrics without {what}");
    read.inspect_err(|error| warn(error)).unwrap_or_default()
}

fn is_late(persona: &PersonaView, sweep: &Sweep) -> Option<bool> {
    let times = sweep.handshakes(persona.segment)?;
    let limit = span::parse(persona.definition.qos.as_ref()?.latency.as_ref()?).ok()?;
    Some(u128::from(times.p95_us) > limit.as_micros())
}
