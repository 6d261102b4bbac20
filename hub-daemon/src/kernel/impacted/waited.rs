//! Connections that a change waits for, remembered by their keys: looking at those again takes no walk through all.
//!
//! What begins after a walk and would be waited for is not seen before the next one. The gate of a segment leaves
//! little of it: a connection that its first bytes decide on, and one that was on its way past the gate already.

use aya::maps::{HashMap, MapData};
use hub_common::flow::{Flow, FlowKey};

use super::{Change, Look, ended};
use crate::command::switch::FlowCount;
use crate::kernel::clock::Clock;
use crate::kernel::maps::{Maps, present};
use crate::kernel::reader::ReadError;

/// A key is looked up in the time that so many entries take in a walk.
const LOOK_UP: usize = 4;

/// Connections that a change waits for, or would end without waiting, as they were seen last.
#[derive(Clone, Debug, Default)]
pub struct Waited {
    /// How many there are.
    pub count: FlowCount,
    /// TCP connections of the segment that ended before they were counted.
    pub ended: u64,
    keys: Vec<FlowKey>,
    walked: usize,
}

impl Waited {
    /// Whether looking for them alone is quicker than a walk.
    fn is_few(&self) -> bool {
        self.keys.len().saturating_mul(LOOK_UP) < self.walked
    }
}

/// Walks through all connections of the hub; with `all` those count that would go on as well.
pub(crate) fn walk(maps: &Maps, clock: &Clock, change: &Change<'_>, all: bool) -> Result<Waited, ReadError> {
    let mut waited = Waited { ended: ended(maps, change.segment)?, ..Waited::default() };
    let (count, keys) = (&mut waited.count, &mut waited.keys);
    let walked = Look::new(maps, clock, change)?.walk(maps, |key, _, active, fate| {
        if fate.survives && !all {
            count.kept += 1;
        } else {
            note(count, active);
            keys.push(*key);
        }
    })?;
    Ok(Waited { walked, ..waited })
}

/// Looks for those again that were there, unless a walk is quicker.
pub(crate) fn again(
    maps: &Maps,
    clock: &Clock,
    change: &Change<'_>,
    all: bool,
    known: &Waited,
) -> Result<Waited, ReadError> {
    if !known.is_few() {
        return walk(maps, clock, change, all);
    }
    let (ended, look) = (ended(maps, change.segment)?, Look::new(maps, clock, change)?);
    let mut count = FlowCount { kept: known.count.kept, ..FlowCount::default() };
    let mut keys = Vec::with_capacity(known.keys.len());
    for key in &known.keys {
        let Some(flow) = find(maps, key)? else { continue };
        let Some((active, fate)) = look.judge(key, &flow) else { continue };
        keys.push(*key);
        if all || !fate.survives {
            note(&mut count, active);
        }
    }
    Ok(Waited { count, ended, keys, walked: known.walked })
}

fn note(count: &mut FlowCount, active: bool) {
    *(if active { &mut count.active } else { &mut count.idle }) += 1;
}

/// The entry of a key. One that is confirmed goes from the second table to the first.
fn find(maps: &Maps, key: &FlowKey) -> Result<Option<Flow>, ReadError> {
    let of = |map: &HashMap<MapData, FlowKey, Flow>, name| present(map.get(key, 0), name);
    for (map, name) in [(&maps.flows, "FLOWS"), (&maps.flows_new, "FLOWS_NEW"), (&maps.flows, "FLOWS")] {
        if let Some(flow) = of(map, name)? {
            return Ok(Some(flow));
        }
    }
    Ok(None)
}
