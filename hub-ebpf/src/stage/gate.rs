//! The gate of a segment that is about to change over: what begins must be allowed by the policy to come too, so
//! that it need not be cut then.
//!
//! Runs for first packets only, after the live rules let them pass. What it borrows of the decision it puts back.

use hub_common::event::Reason;
use hub_common::outcome::{OUTCOME_GATED, OUTCOME_LOG, OUTCOME_REJECT, Scratch};
use hub_common::packet::protocol;
use hub_common::segment::{SEGMENT_DRAIN_REJECT, SEGMENT_GATED};

use crate::maps::{SEGMENTS, own};
use crate::report::refuse;
use crate::stage::filter::{hub_filter, native, view};

/// Refuses a first packet that a policy to come would refuse, whichever side it is on.
#[inline(always)]
pub(crate) fn pass(scratch: &mut Scratch) -> Result<(), Reason> {
    if scratch.outcome.flags & OUTCOME_GATED == 0 {
        return Ok(());
    }
    let (blame, from_members) = if hub_gate(scratch, 0) != 0 {
        (scratch.outcome.segment[0], true)
    } else if hub_gate(scratch, 1) != 0 {
        (scratch.outcome.segment[1], false)
    } else {
        return Ok(());
    };
    refuse(&mut scratch.outcome, Reason::Draining, blame, from_members);
    Err(Reason::Draining)
}

/// Whether the candidate of one side's segment refuses the flow's first packet: 1, or 0 to pass.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_gate(scratch: *mut Scratch, side: u32) -> u32 {
    let Some(scratch) = own(scratch) else { return 0 };
    let index = (side & 1) as usize;
    let id = scratch.outcome.segment[index];
    if id == 0 {
        return 0;
    }
    let Some(segment) = SEGMENTS.get(id) else { return 0 };
    let (flags, candidate) = (segment.flags, segment.candidate);
    if flags & SEGMENT_GATED == 0 || candidate == 0 {
        return 0;
    }
    view(scratch, false);
    native(scratch, side, false);
    scratch.live = scratch.outcome;
    let outcome = &mut scratch.outcome;
    outcome.would = [0; 2];
    outcome.policy[index] = candidate;
    outcome.flags &= !(OUTCOME_REJECT | OUTCOME_LOG);
    let answer = hub_filter(scratch, side);
    // One that only watches lets pass.
    let refused = answer != 0 && scratch.outcome.would[index] == 0;
    scratch.outcome = scratch.live;
    if !refused {
        return 0;
    }
    if flags & SEGMENT_DRAIN_REJECT != 0 && scratch.packet.protocol == protocol::TCP {
        scratch.outcome.flags |= OUTCOME_REJECT;
    }
    1
}
