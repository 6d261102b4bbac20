//! What candidates answered beside live policies, summed over CPUs.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use aya::maps::IterableMap as _;
use hub_common::candidate::{CandidateHits, CandidateKey, DROPS, NO_RULE, PASSES, REJECTS};
use hub_common::event::Reason;

use super::batch;
use super::counts::direction;
use super::maps::{Maps, present};
use super::names::ip;
use super::reader::ReadError;
use crate::datapath_view::{CandidateCounts, Count, Difference, Opinion, Sample};
use crate::model::protocol;

/// Most samples of one difference.
const SAMPLES: usize = 4;

/// Counts of one segment's candidate.
pub(crate) fn counts(maps: &Maps, segment: u32) -> Result<CandidateCounts, ReadError> {
    let mut counts = CandidateCounts::default();
    let mut differences: BTreeMap<Order, Difference> = BTreeMap::new();
    let note = |key: &CandidateKey, values: &[CandidateHits]| {
        if key.segment == segment {
            let packets: u64 = values.iter().map(|hits| hits.packets).sum();
            counts.judged += packets;
            if key.live_verdict == key.candidate_verdict {
                counts.agreed += packets;
            } else {
                differences.insert(order(key), difference(key, values));
            }
        }
        ControlFlow::Continue(())
    };
    batch::entries(maps.candidate_hits.map(), note)
        .map_err(|source| ReadError::Map { map: "CANDIDATE_HITS", source })?;
    counts.differences = differences.into_values().collect();
    let lost = present(maps.candidate_lost.get(&0, 0), "CANDIDATE_LOST")?;
    counts.lost = lost.iter().flat_map(|values| values.iter()).sum();
    Ok(counts)
}

type Order = (u8, u16, u16, u8, u8);

fn order(key: &CandidateKey) -> Order {
    (key.direction, key.live_rule, key.candidate_rule, key.live_reason, key.candidate_reason)
}

fn difference(key: &CandidateKey, values: &[CandidateHits]) -> Difference {
    let seen = values.iter().filter(|hits| hits.packets > 0);
    Difference {
        direction: direction(key.direction != 0).to_owned(),
        live: opinion(key.live_verdict, key.live_reason, key.live_rule),
        candidate: opinion(key.candidate_verdict, key.candidate_reason, key.candidate_rule),
        count: Count {
            packets: values.iter().map(|hits| hits.packets).sum(),
            bytes: values.iter().map(|hits| hits.bytes).sum(),
        },
        samples: seen.take(SAMPLES).map(sample).collect(),
    }
}

fn opinion(verdict: u8, reason: u8, rule: u16) -> Opinion {
    let verdict = match verdict {
        PASSES => "pass",
        DROPS => "drop",
        REJECTS => "reject",
        _ => "unknown",
    };
    Opinion {
        verdict: verdict.to_owned(),
        reason: Reason::from_number(u32::from(reason)).map(|reason| reason.name().to_owned()),
        rule: (rule != NO_RULE).then_some(rule),
    }
}

fn sample(hits: &CandidateHits) -> Sample {
    Sample {
        protocol: protocol::name(hits.protocol),
        source: ip(&hits.source),
        source_port: hits.source_port,
        target: ip(&hits.target),
        target_port: hits.target_port,
    }
}
