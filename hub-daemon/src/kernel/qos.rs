//! Reads times of handshakes and what waits in queues.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use aya::maps::IterableMap as _;
use hub_common::shape::{self, EGRESS, Histogram, RTT_BUCKETS};

use super::batch;
use super::counts::direction;
use super::maps::{Maps, present};
use super::netlink::{Netlink, NetlinkError};
use super::queues::{FoundQueue, MAJOR};
use super::reader::ReadError;
use crate::model::SegmentId;
use crate::qos_view::{HandshakeTimes, PRIORITIES, QueueCounts};

/// Times of one persona's handshakes; `None` before the first.
pub(crate) fn handshakes(maps: &Maps, segment: u32) -> Result<Option<HandshakeTimes>, ReadError> {
    Ok(present(maps.times.get(&segment, 0), "RTTS")?.map(|values| sum(&values)))
}

/// Times of the handshakes of all personas that have any.
pub(crate) fn all_handshakes(maps: &Maps) -> Result<BTreeMap<SegmentId, HandshakeTimes>, ReadError> {
    let mut all = BTreeMap::new();
    let note = |segment: &u32, values: &[Histogram]| {
        all.insert(SegmentId(*segment), sum(values));
        ControlFlow::Continue(())
    };
    batch::entries(maps.times.map(), note).map_err(|source| ReadError::Map { map: "RTTS", source })?;
    Ok(all)
}

/// The sum over all CPUs.
pub(crate) fn sum(values: &[Histogram]) -> HandshakeTimes {
    let mut sum = Histogram::ZERO;
    for value in values {
        sum.buckets.iter_mut().zip(value.buckets).for_each(|(sum, count)| *sum += count);
        sum.sum_us += value.sum_us;
    }
    debug_assert_eq!(sum.buckets.len(), RTT_BUCKETS);
    HandshakeTimes {
        count: sum.count(),
        sum_us: sum.sum_us,
        p50_us: sum.quantile_us(500),
        p95_us: sum.quantile_us(950),
        p99_us: sum.quantile_us(990),
        buckets: sum.buckets.to_vec(),
    }
}

/// What waits in the queues of every persona.
pub(crate) fn queues() -> Result<BTreeMap<SegmentId, Vec<QueueCounts>>, NetlinkError> {
    let mut netlink = Netlink::open()?;
    let all = netlink.queues()?;
    let mut found: BTreeMap<SegmentId, Vec<QueueCounts>> = BTreeMap::new();
    if !all.iter().any(FoundQueue::is_ours) {
        return Ok(found);
    }
    let names = netlink.link_names()?;
    for root in all.iter().filter(|queue| queue.is_root() && queue.is_ours()) {
        let Some(interface) = names.name(root.index) else { continue };
        let classes = netlink.queue_classes(root.index)?;
        let rates: BTreeMap<u16, u64> =
            classes.iter().filter_map(|class| Some((class.handle.minor, class.class()?.rate_bps))).collect();
        for queue in all.iter().filter(|queue| queue.index == root.index && queue.parent.major == MAJOR) {
            let (segment, way, Some(priority)) = shape::owner(queue.parent.minor) else { continue };
            let rate = rates.get(&shape::class(segment, way)).copied().unwrap_or_default().max(1);
            found.entry(SegmentId(segment)).or_default().push(QueueCounts {
                interface: interface.to_owned(),
                direction: direction(way == EGRESS).to_owned(),
                priority: PRIORITIES.get(usize::from(priority)).copied().unwrap_or_default().to_owned(),
                backlog_bytes: queue.backlog_bytes,
                delay_us: queue.backlog_bytes.saturating_mul(8_000_000) / rate,
                packets: queue.packets,
                bytes: queue.bytes,
                drops: queue.drops,
            });
        }
    }
    Ok(found)
}
