//! The flow table as a list, and how full it is.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;

use aya::maps::{HashMap, IterableMap as _, MapData};
use hub_common::flow::{FLOW_STATES, Flow, FlowKey};

use super::batch;
use super::clock::Clock;
use super::maps::{Maps, at};
use super::names::ip;
use super::reader::ReadError;
use crate::datapath_view::{Count, FlowCounts, FlowTable, FlowView};
use crate::model::SegmentId;
use crate::model::protocol;

/// Live connections, of one persona or of all, at most `limit`.
pub(crate) fn list(
    maps: &Maps,
    clock: &Clock,
    segment: Option<SegmentId>,
    limit: usize,
) -> Result<Vec<FlowView>, ReadError> {
    let timeouts = at(&maps.settings, "SETTINGS", 0)?.map(|settings| settings.timeout_ticks);
    let timeout_ticks = timeouts.unwrap_or_default();
    let mut flows = Vec::new();
    let mut note = |key: &FlowKey, values: &[Flow]| {
        if flows.len() >= limit {
            return ControlFlow::Break(());
        }
        let live = values.iter().filter(|flow| !flow.is_stale(clock.tick(), &timeout_ticks));
        let wanted = |flow: &&Flow| segment.is_none_or(|segment| flow.segment.contains(&segment.0));
        flows.extend(live.filter(wanted).map(|flow| view(key, flow, clock)));
        ControlFlow::Continue(())
    };
    for (name, map) in [("FLOWS", &maps.flows), ("FLOWS_NEW", &maps.flows_new)] {
        batch::entries(map.map(), &mut note).map_err(|source| ReadError::Map { map: name, source })?;
    }
    Ok(flows)
}

/// How full both tiers are, entries that wait for collection included, and whose they are.
pub(crate) fn counts(maps: &Maps) -> Result<FlowCounts, ReadError> {
    let mut personas: BTreeMap<SegmentId, u64> = BTreeMap::new();
    let mut fill = |flows: &HashMap<MapData, FlowKey, Flow>| {
        let max = flows.map().info().map_err(batch::from_map)?.max_entries();
        let mut count = 0;
        batch::entries(flows.map(), |_: &FlowKey, flows: &[Flow]| {
            count += 1;
            for flow in flows {
                let [one, other] = flow.segment;
                let other = if other == one { 0 } else { other };
                for segment in [one, other].into_iter().filter(|segment| *segment != 0) {
                    *personas.entry(SegmentId(segment)).or_default() += 1;
                }
            }
            ControlFlow::Continue(())
        })?;
        Ok((count, u64::from(max)))
    };
    let failed = |map| move |source: io::Error| ReadError::Map { map, source };
    let (established, established_max) = fill(&maps.flows).map_err(failed("FLOWS"))?;
    let (opening, opening_max) = fill(&maps.flows_new).map_err(failed("FLOWS_NEW"))?;
    Ok(FlowCounts { table: FlowTable { established, established_max, opening, opening_max }, personas })
}

/// A flow as the outside sees it.
pub(crate) fn view(key: &FlowKey, flow: &Flow, clock: &Clock) -> FlowView {
    let (low, high) = ((ip(&key.low), key.low_port), (ip(&key.high), key.high_port));
    let ((source, source_port), (target, target_port)) =
        if flow.from_high == 0 { (low, high) } else { (high, low) };
    let state = FLOW_STATES.get(usize::from(flow.state));
    let [sent, received] =
        [0, 1].map(|at: usize| Count { packets: at_of(&flow.packets, at), bytes: at_of(&flow.bytes, at) });
    let [source_segment, target_segment] = flow.segment.map(SegmentId);
    FlowView {
        protocol: protocol::name(key.protocol),
        source,
        source_port,
        target,
        target_port,
        state: state.map_or_else(|| flow.state.to_string(), |state| (*state).to_owned()),
        source_segment,
        target_segment,
        sent,
        received,
        idle_seconds: clock.seconds(clock.tick().saturating_sub(flow.last_tick)),
        age_seconds: clock.seconds(clock.tick().saturating_sub(flow.first_tick)),
    }
}

fn at_of(pair: &[u64; 2], at: usize) -> u64 {
    pair.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub_common::address::mapped;

    #[test]
    fn flow_is_shown_from_the_end_that_spoke_first() {
        let (key, from_high) =
            FlowKey::between(&mapped([10, 0, 0, 9]), 4000, &mapped([10, 0, 0, 1]), 80, 6, 0);
        let flow = Flow {
            from_high: u8::from(from_high),
            packets: [3, 2],
            bytes: [300, 200],
            last_tick: 750,
            first_tick: 500,
            state: 1,
            ..Flow::ZERO
        };
        let view = view(&key, &flow, &Clock::new(1_000, 0, 4_000_000));
        assert_eq!((view.source.to_string().as_str(), view.source_port), ("10.0.0.9", 4000));
        assert_eq!((view.target.to_string().as_str(), view.target_port), ("10.0.0.1", 80));
        assert_eq!((view.sent, view.received.packets), (Count { packets: 3, bytes: 300 }, 2));
        assert_eq!((view.state.as_str(), view.idle_seconds, view.age_seconds), ("established", 1.0, 2.0));
    }
}
