//! Connections of which the hub sees one direction only: answers take another way.
//!
//! The end that opened a TCP connection acknowledges what the hub never saw. Such connections stay half open, and
//! are refused when they were idle for as long as those may be.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;

use aya::maps::MapData;
use hub_common::flow::{Flow, FlowKey};
use hub_common::packet::{TCP_ACK, TCP_RST, TCP_SYN, protocol};

use super::batch;
use crate::model::SegmentId;

/// Counts them among half-open connections, by segment; one between two segments counts for each.
pub(crate) fn count(
    opening: &MapData,
    tick: u64,
    timeout_ticks: &[u32; 8],
) -> io::Result<BTreeMap<SegmentId, u64>> {
    let mut found: BTreeMap<SegmentId, u64> = BTreeMap::new();
    batch::entries(opening, |key: &FlowKey, flows: &[Flow]| {
        let alive = flows.iter().filter(|flow| !flow.is_stale(tick, timeout_ticks));
        for flow in alive.filter(|flow| is_one_sided(key, flow)) {
            let [one, other] = flow.segment;
            let other = if other == one { 0 } else { other };
            for segment in [one, other].into_iter().filter(|segment| *segment != 0) {
                *found.entry(SegmentId(segment)).or_default() += 1;
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// Whether one end acknowledged what the other was never seen to say.
fn is_one_sided(key: &FlowKey, flow: &Flow) -> bool {
    let [sent, answered] = flow.tcp_seen;
    key.protocol == protocol::TCP
        && answered == 0
        && sent & (TCP_SYN | TCP_ACK) == TCP_SYN | TCP_ACK
        && sent & TCP_RST == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_one_sided_when_an_answer_is_acknowledged_that_nobody_saw() {
        let key = FlowKey { protocol: protocol::TCP, ..FlowKey::ZERO };
        let is = |tcp_seen| is_one_sided(&key, &Flow { tcp_seen, ..Flow::ZERO });
        assert!(is([TCP_SYN | TCP_ACK, 0]));
        assert!(!is([TCP_SYN, 0]), "no answer yet");
        assert!(!is([TCP_SYN | TCP_ACK, TCP_SYN | TCP_ACK]), "both ways");
        assert!(!is([TCP_SYN | TCP_ACK | TCP_RST, 0]), "given up");
        assert!(!is([TCP_ACK, 0]), "taken up in mid-stream");
        let udp = FlowKey { protocol: protocol::UDP, ..FlowKey::ZERO };
        assert!(!is_one_sided(&udp, &Flow { tcp_seen: [TCP_SYN | TCP_ACK, 0], ..Flow::ZERO }));
    }
}
