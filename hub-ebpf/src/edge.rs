//! The edge of the hub at ports beyond which addresses differ: packets are rewritten into the main view
//! before they are judged, and out of it after.

use aya_ebpf::bindings::__sk_buff;
use hub_common::event::Reason;
use hub_common::outcome::Scratch;
use hub_common::packet::{
    PACKET_ARP, PACKET_FRAGMENT_LATER, PACKET_ICMP_ERROR, PACKET_NEIGHBOUR, PACKET_V4, PACKET_V6, PACKET_VLAN,
};
use hub_common::segment::{ROLE_SEGMENT, SEGMENT_MASQUERADE_V4, SEGMENT_MASQUERADE_V6, SEGMENT_TRANSLATED};
use hub_common::translation::{INWARD, OUTWARD};

use crate::addresses::segment_of;
use crate::maps::SEGMENTS;
use crate::readdress::readdress;
use crate::report::refuse;
use crate::stage::fragment;
use crate::stage::masquerade::{hub_unmasquerade, masquerade};
use crate::stage::neighbour::{hub_arp, hub_neighbour};
use crate::stage::translate::{begin, differs, external, hub_inward, hub_outward, internal};

/// Rewrites what came in. Returns a reason number, 0 when all is well.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_enter(skb: *mut __sk_buff, scratch: *mut Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return Reason::Internal as u32 };
    if scratch.packet.has(PACKET_VLAN) {
        return 0;
    }
    if scratch.port.role == ROLE_SEGMENT {
        return members(skb, scratch, INWARD);
    }
    if !scratch.packet.has_any(PACKET_V4 | PACKET_V6) || scratch.packet.has(PACKET_NEIGHBOUR) {
        return 0;
    }
    begin(scratch);
    if !internal(scratch) {
        hub_unmasquerade(scratch);
    }
    if differs(scratch) { readdress(skb, scratch) } else { 0 }
}

/// Rewrites what leaves. Returns a reason number, 0 when all is well; the outcome says whose drop it is.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_leave(skb: *mut __sk_buff, scratch: *mut Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return Reason::Internal as u32 };
    if scratch.packet.has(PACKET_VLAN) {
        return 0;
    }
    let segment = scratch.port.segment;
    if scratch.port.role == ROLE_SEGMENT {
        let reason = members(skb, scratch, OUTWARD);
        return refused(scratch, reason, segment, false);
    }
    if !scratch.packet.has_any(PACKET_V4 | PACKET_V6) || scratch.packet.has(PACKET_NEIGHBOUR) {
        return 0;
    }
    let mut segment = segment_of(&scratch.packet.source);
    if segment == 0 && scratch.packet.has(PACKET_ICMP_ERROR) {
        segment = segment_of(&scratch.packet.inner.target);
    }
    let Some(entry) = SEGMENTS.get(segment) else { return 0 };
    if segment == 0 || entry.flags & SEGMENT_TRANSLATED == 0 {
        return 0;
    }
    if scratch.packet.has(PACKET_FRAGMENT_LATER) {
        fragment::complete(scratch);
    } else if !scratch.packet.has(PACKET_ICMP_ERROR) {
        // The kernel cuts up what came in whole.
        fragment::remember(scratch);
    }
    begin(scratch);
    let bit = if scratch.packet.has(PACKET_V4) { SEGMENT_MASQUERADE_V4 } else { SEGMENT_MASQUERADE_V6 };
    let mut reason = 0;
    if !external(scratch, segment) && entry.flags & bit != 0 {
        // SAFETY: a field of the context.
        reason = masquerade(scratch, unsafe { (*skb).ifindex });
    }
    if reason == 0 && differs(scratch) {
        reason = readdress(skb, scratch);
    }
    refused(scratch, reason, segment, true)
}

#[inline(always)]
fn refused(scratch: &mut Scratch, reason: u32, segment: u32, from_members: bool) -> u32 {
    if let Some(reason) = Reason::from_number(reason) {
        scratch.outcome.flags = 0;
        refuse(&mut scratch.outcome, reason, segment, from_members);
    }
    reason
}

/// Rewrites what crosses a port towards members.
#[inline(always)]
fn members(skb: *mut __sk_buff, scratch: &mut Scratch, side: u32) -> u32 {
    if scratch.packet.has(PACKET_ARP) {
        return internal_error(hub_arp(skb, scratch, side));
    }
    if !scratch.packet.has_any(PACKET_V4 | PACKET_V6) {
        return 0;
    }
    let reason = if side == INWARD { hub_inward(scratch) } else { hub_outward(scratch) };
    if reason != 0 {
        return reason;
    }
    if scratch.packet.has(PACKET_NEIGHBOUR) && hub_neighbour(skb, scratch, side) != 0 {
        return Reason::Internal as u32;
    }
    if differs(scratch) { readdress(skb, scratch) } else { 0 }
}

#[inline(always)]
const fn internal_error(failed: u32) -> u32 {
    if failed == 0 { 0 } else { Reason::Internal as u32 }
}
