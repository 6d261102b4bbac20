//! Which addresses a packet carries on the other side of a port (see `hub_common::translation`).
//!
//! These stages only look up; `readdress` writes. They run at TC alone: XDP leaves packets of translated
//! personas to it.

use aya_ebpf::btf_maps::lpm_trie::Key;
use hub_common::address::Address;
use hub_common::event::Reason;
use hub_common::outcome::Scratch;
use hub_common::packet::PACKET_ICMP_ERROR;
use hub_common::translation::{self, EXTERNAL, Ends, INTERNAL, INWARD, KEY_BITS, OUTWARD};

use crate::maps::TRANSLATIONS;

/// Replaces an address by the one it has on a side of a segment; false where it has none.
#[inline(always)]
pub(crate) fn replace(segment: u32, side: u32, address: &mut Address) -> bool {
    hub_replace(segment, side, address) != 0
}

/// As [`replace`]. A function of its own for the sake of its stack: callers are several deep.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_replace(segment: u32, side: u32, address: *mut Address) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(address) = (unsafe { address.as_mut() }) else { return 0 };
    let key = Key::new(KEY_BITS + 128, translation::key(segment, side, address));
    let Some(prefix) = TRANSLATIONS.get(&key) else { return 0 };
    *address = translation::moved(address, prefix);
    1
}

/// Takes the packet as it is for what is wanted.
#[inline(always)]
pub(crate) fn begin(scratch: &mut Scratch) {
    let packet = &scratch.packet;
    scratch.wanted = Ends {
        source: packet.source,
        target: packet.target,
        inner_source: packet.inner.source,
        inner_target: packet.inner.target,
        source_port: packet.source_port,
        target_port: packet.target_port,
        inner_source_port: packet.inner.source_port,
        inner_target_port: packet.inner.target_port,
    };
}

/// Whether anything is to change.
#[inline(always)]
pub(crate) fn differs(scratch: &Scratch) -> bool {
    let (packet, wanted) = (&scratch.packet, &scratch.wanted);
    packet.source != wanted.source
        || packet.target != wanted.target
        || packet.source_port != wanted.source_port
        || packet.target_port != wanted.target_port
        || inner_differs(scratch)
}

/// Whether the quoted packet is to change.
#[inline(always)]
pub(crate) fn inner_differs(scratch: &Scratch) -> bool {
    let (inner, wanted) = (&scratch.packet.inner, &scratch.wanted);
    scratch.packet.has(PACKET_ICMP_ERROR)
        && (inner.source != wanted.inner_source
            || inner.target != wanted.inner_target
            || inner.source_port != wanted.inner_source_port
            || inner.target_port != wanted.inner_target_port)
}

/// From members of a persona into the hub. Virtual addresses are for others: a member that used one as its
/// own would be somebody whom no answer finds, and one that dialled one would get its answer from another.
///
/// Returns a reason number, 0 when all is well.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_inward(scratch: *mut Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return Reason::Internal as u32 };
    begin(scratch);
    let segment = scratch.port.segment;
    let ends = &mut scratch.wanted;
    if !replace(segment, INWARD, &mut ends.source) && replace(segment, OUTWARD, &mut ends.source) {
        return Reason::Spoof as u32;
    }
    if !replace(segment, INWARD, &mut ends.target) && replace(segment, OUTWARD, &mut ends.target) {
        return Reason::NoTranslation as u32;
    }
    if scratch.packet.has(PACKET_ICMP_ERROR) {
        replace(segment, INWARD, &mut ends.inner_source);
        replace(segment, INWARD, &mut ends.inner_target);
    }
    0
}

/// From the hub to members of a persona: they know themselves and each other by native addresses.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_outward(scratch: *mut Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return Reason::Internal as u32 };
    begin(scratch);
    let segment = scratch.port.segment;
    let ends = &mut scratch.wanted;
    replace(segment, OUTWARD, &mut ends.source);
    replace(segment, OUTWARD, &mut ends.target);
    if scratch.packet.has(PACKET_ICMP_ERROR) {
        replace(segment, OUTWARD, &mut ends.inner_source);
        replace(segment, OUTWARD, &mut ends.inner_target);
    }
    0
}

/// From uplinks: external ranges become those of personas.
#[inline(always)]
pub(crate) fn internal(scratch: &mut Scratch) -> bool {
    let found = replace(0, INTERNAL, &mut scratch.wanted.target);
    if scratch.packet.has(PACKET_ICMP_ERROR) {
        replace(0, INTERNAL, &mut scratch.wanted.inner_source);
    }
    found
}

/// To uplinks: the range of a persona becomes its external one.
#[inline(always)]
pub(crate) fn external(scratch: &mut Scratch, segment: u32) -> bool {
    let found = replace(segment, EXTERNAL, &mut scratch.wanted.source);
    if scratch.packet.has(PACKET_ICMP_ERROR) {
        replace(segment, EXTERNAL, &mut scratch.wanted.inner_target);
    }
    found
}

/// Makes the view that a side's rules are asked about its persona's own: addresses of its members native.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_native_view(scratch: *mut Scratch, side: u32) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 0 };
    let segment = scratch.outcome.segment[(side & 1) as usize];
    replace(segment, OUTWARD, &mut scratch.view.source);
    replace(segment, OUTWARD, &mut scratch.view.target);
    0
}
