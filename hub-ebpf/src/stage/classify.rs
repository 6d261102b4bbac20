//! Which personas a packet concerns, and whether they are alive.

use hub_common::address::{is_link_local, is_multicast};
use hub_common::event::{Hook, Reason};
use hub_common::outcome::{FROM_HOST, Scratch};
use hub_common::segment::{ROLE_SEGMENT, STATE_BLOCK, STATE_EMPTY};

use crate::maps::{LOCALS, SEGMENTS, segment_of};
use crate::report::refuse;

/// Sets the segments of both ends; anti-spoofing is part of it, because a source is believed only behind
/// its own port. Returns whether the target is the hub itself.
#[inline(always)]
pub(crate) fn classify(scratch: &mut Scratch) -> Result<bool, Reason> {
    let packet = &scratch.packet;
    let outcome = &mut scratch.outcome;
    // What the host itself sends comes in by no port.
    // SAFETY: the value is not looked at.
    if scratch.hook != Hook::TcOut as u32 && unsafe { LOCALS.get(packet.source) }.is_some() {
        refuse(outcome, Reason::Spoof, scratch.port.segment, true);
        return Err(Reason::Spoof);
    }
    if scratch.port.role == ROLE_SEGMENT {
        let claimed = segment_of(&packet.source);
        let bound = scratch.port.segment;
        if claimed == 0 || (bound != 0 && claimed != bound) {
            refuse(outcome, Reason::Spoof, bound, true);
            return Err(Reason::Spoof);
        }
        outcome.segment[0] = claimed;
        if is_multicast(&packet.target) || is_link_local(&packet.target) {
            refuse(outcome, Reason::Multicast, claimed, true);
            return Err(Reason::Multicast);
        }
    } else if scratch.ingress_ifindex != FROM_HOST {
        let claimed = segment_of(&packet.source);
        if claimed != 0 {
            refuse(outcome, Reason::Spoof, claimed, true);
            return Err(Reason::Spoof);
        }
    }
    // SAFETY: the value is not looked at.
    let local = unsafe { LOCALS.get(packet.target) }.is_some();
    outcome.segment[1] = if local { 0 } else { segment_of(&packet.target) };
    Ok(local)
}

/// Checks state and deadline of the segments involved and reads their policy words, each once.
#[inline(always)]
pub(crate) fn alive(scratch: &mut Scratch) -> Result<(), Reason> {
    let tick = scratch.tick;
    let outcome = &mut scratch.outcome;
    let mut side = 0;
    while side < 2 {
        let id = outcome.segment[side];
        if id != 0 {
            let reason = match SEGMENTS.get(id) {
                None => Reason::NoPolicy,
                Some(segment) if segment.state == STATE_EMPTY || segment.policy == 0 => Reason::NoPolicy,
                Some(segment) if tick >= segment.expires_tick => Reason::Expired,
                Some(segment) if segment.state == STATE_BLOCK => Reason::Blocked,
                Some(segment) => {
                    outcome.policy[side] = segment.policy;
                    outcome.set_generation[side] = segment.set_generation as u16;
                    side += 1;
                    continue;
                }
            };
            refuse(outcome, reason, id, side == 0);
            return Err(reason);
        }
        side += 1;
    }
    Ok(())
}
