//! Addresses in quarantine, as the data path holds them.

use std::ops::ControlFlow;

use aya::maps::IterableMap as _;
use hub_common::set::QuarantineKey;

use super::batch;
use super::clock::{Clock, wall_time};
use super::maps::Maps;
use super::names::ip;
use super::reader::ReadError;
use crate::datapath_view::QuarantinedView;

/// Addresses that are kept out of a segment, by address.
pub(crate) fn list(maps: &Maps, clock: &Clock, segment: u32) -> Result<Vec<QuarantinedView>, ReadError> {
    let mut all = Vec::new();
    batch::entries(maps.quarantine.map(), |key: &QuarantineKey, until: &[u64]| {
        let until = until.first().copied().unwrap_or_default();
        if key.segment == segment && until > clock.tick() {
            let expires_at = wall_time(clock.boot_ns_at(until));
            all.push(QuarantinedView { address: ip(&key.address), expires_at });
        }
        ControlFlow::Continue(())
    })
    .map_err(|source| ReadError::Map { map: "QUARANTINE", source })?;
    all.sort_by_key(|entry| entry.address);
    Ok(all)
}
