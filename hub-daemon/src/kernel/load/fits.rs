//! How much of a map is in use.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use aya::maps::{IterableMap as _, MapData, MapType};
use hub_common::segment::{Policy, STATE_EMPTY, Segment, policy_slot};

use super::shapes::Shape;
use crate::kernel::batch::{self, from_map, raw::Raw};
use crate::kernel::maps::RuleSlots;
use crate::kernel::reader::ReadError;

/// Entries that a map must have to hold what is in use of the one that is pinned.
///
/// Slots that nothing leads to keep what they had, so those of policies are counted along the words of segments.
pub(super) fn needed(pins: &Path, shape: &Shape) -> io::Result<u32> {
    match shape.name {
        "SEGMENTS" | "POLICIES" | "SHAPES" | "RULES" => policies(pins, shape.name).map_err(source),
        _ => {
            let map = MapData::from_pin(pins.join(shape.name)).map_err(from_map)?;
            let is_array = shape.form.map == MapType::Array;
            let mut needed = 0;
            Raw::of(&map)?.entries(|key, value| {
                if !is_array {
                    needed += 1;
                } else if value.iter().any(|byte| *byte != 0) {
                    needed = index(key).saturating_add(1);
                }
                ControlFlow::Continue(())
            })?;
            Ok(needed)
        }
    }
}

/// The index that a key of an array is.
pub(super) fn index(key: &[u8]) -> u32 {
    key.try_into().map_or(u32::MAX, u32::from_ne_bytes)
}

fn policies(pins: &Path, name: &str) -> Result<u32, ReadError> {
    let slots = RuleSlots::open(pins)?;
    let (mut segments, mut words) = (0, Vec::new());
    let map = slots.segments.map();
    batch::range(map, 0, u32::MAX, |index, found: &[Segment]| {
        for segment in found.iter().filter(|segment| segment.state != STATE_EMPTY) {
            segments = index.saturating_add(1);
            words.extend([segment.policy, segment.candidate, segment.lease_policy]);
        }
    })
    .map_err(|source| ReadError::Map { map: "SEGMENTS", source })?;
    let (mut policies, mut rules) = (0, 0);
    for word in words.into_iter().filter(|word| *word != 0) {
        policies = policies.max(policy_slot(word).saturating_add(1));
        let Some(Policy { ingress_first, ingress_count, egress_first, egress_count, .. }) =
            slots.policy(word)?
        else {
            continue;
        };
        for (first, count) in [(ingress_first, ingress_count), (egress_first, egress_count)] {
            rules = rules.max(if count == 0 { 0 } else { first.saturating_add(count) });
        }
    }
    Ok(match name {
        "SEGMENTS" => segments,
        "RULES" => rules,
        _ => policies,
    })
}

fn source(error: ReadError) -> io::Error {
    io::Error::other(error)
}
