//! Which personas a packet concerns, and whether they are alive.

use hub_common::address::{Address, is_link_local, is_multicast, is_v4};
use hub_common::event::{Hook, Reason};
use hub_common::outcome::{
    FROM_HOST, OUTCOME_CLAMPED, OUTCOME_GATED, OUTCOME_PLAIN, OUTCOME_SHAPED, OUTCOME_TRANSLATED,
    SCRATCH_CANDIDATE, SCRATCH_HEARS, Scratch,
};
use hub_common::segment::{
    PORT_TUNNEL, ROLE_SEGMENT, SEGMENT_CLAMPED, SEGMENT_GATED, SEGMENT_HEARS, SEGMENT_SHAPED,
    SEGMENT_TRANSLATED, STATE_BLOCK, STATE_EMPTY,
};

use crate::addresses::{is_local, segment_of};
use crate::maps::{EVERYONES, SEGMENTS};
use crate::report::refuse;

/// Sets the segments of both ends; anti-spoofing is part of it, because a source is believed only behind
/// its own port. Returns whether the target is the hub itself.
#[inline(always)]
pub(crate) fn classify(scratch: &mut Scratch) -> Result<bool, Reason> {
    if scratch.port.flags & PORT_TUNNEL != 0 {
        let side = usize::from(scratch.hook != Hook::TcOut as u32);
        scratch.outcome.segment[side] = scratch.port.segment;
        return Ok(false);
    }
    let packet = &scratch.packet;
    let outcome = &mut scratch.outcome;
    // What the host itself sends comes in by no port.
    if scratch.hook != Hook::TcOut as u32 && is_local(&packet.source) {
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
        if is_multicast(&packet.target) || is_link_local(&packet.target) || is_everyones(&packet.target) {
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
    let local = is_local(&packet.target);
    let receiver = if local { 0 } else { segment_of(&packet.target) };
    let forwarded =
        receiver != 0 && scratch.port.role != ROLE_SEGMENT && scratch.ingress_ifindex != FROM_HOST;
    if forwarded && is_of_link(&packet.source) {
        refuse(outcome, Reason::Martian, receiver, false);
        return Err(Reason::Martian);
    }
    outcome.segment[1] = receiver;
    Ok(local)
}

/// Whether the kernel takes what goes to the address for the hub's own, although it is no host's: a network's
/// broadcast address, or that of all its routers.
#[inline(always)]
fn is_everyones(address: &Address) -> bool {
    // SAFETY: the value is not looked at.
    unsafe { EVERYONES.get(*address) }.is_some()
}

/// Whether an IPv6 packet from the address is for its link alone (RFC 4291 sections 2.5.2 and 2.5.6).
#[inline(always)]
fn is_of_link(source: &Address) -> bool {
    !is_v4(source) && (is_link_local(source) || *source == [0; 16])
}

/// What a segment's features mean for its packets.
#[inline(always)]
const fn features(flags: u32) -> u32 {
    (if flags & SEGMENT_TRANSLATED != 0 { OUTCOME_TRANSLATED } else { 0 })
        | (if flags & SEGMENT_CLAMPED != 0 { OUTCOME_CLAMPED } else { 0 })
        | (if flags & SEGMENT_SHAPED != 0 { OUTCOME_SHAPED } else { 0 })
        | (if flags & SEGMENT_GATED != 0 { OUTCOME_GATED } else { 0 })
}

/// Checks state and deadline of the segments involved and reads their policy words, each once.
#[inline(always)]
pub(crate) fn alive(scratch: &mut Scratch) -> Result<(), Reason> {
    let tick = scratch.tick;
    let outcome = &mut scratch.outcome;
    // What a tunnel carries is tracked: answers by ports alone know one address space.
    let mut plain = scratch.port.flags & PORT_TUNNEL == 0;
    let mut side = 0;
    while side < 2 {
        let id = outcome.segment[side];
        if id != 0 {
            let found = SEGMENTS.get(id);
            let word = found.map_or(0, |segment| segment.word(tick));
            let reason = match found {
                None => Reason::NoPolicy,
                Some(segment) if segment.state == STATE_EMPTY || word == 0 => Reason::NoPolicy,
                Some(segment) if tick >= segment.expires_tick => Reason::Expired,
                Some(segment) if segment.state == STATE_BLOCK => Reason::Blocked,
                Some(segment) => {
                    outcome.policy[side] = word;
                    outcome.set_generation[side] = segment.set_generation as u16;
                    plain &= segment.is_plain(tick);
                    outcome.flags |= features(segment.flags);
                    if segment.judged() != 0 {
                        scratch.flags |= SCRATCH_CANDIDATE;
                    }
                    if segment.flags & SEGMENT_HEARS != 0 {
                        scratch.flags |= SCRATCH_HEARS;
                    }
                    side += 1;
                    continue;
                }
            };
            refuse(outcome, reason, id, side == 0);
            return Err(reason);
        }
        side += 1;
    }
    if plain {
        outcome.flags |= OUTCOME_PLAIN;
    }
    Ok(())
}
