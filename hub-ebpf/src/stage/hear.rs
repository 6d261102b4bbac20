//! First bytes of connections: read where rules ask for signatures, and only there.
//!
//! A rule with a signature cannot decide on a packet that says nothing, like a TCP SYN. Until the connection speaks,
//! an allow lets it begin and a deny is passed over; the first packet with payload, of either end, is read whole and
//! the rules are asked again. What was heard stays with the flow. The stages only say that something is to be read
//! (`VERDICT_HEAR`): the hook has the bytes. XDP leaves such packets to TC.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use hub_common::application::{
    self, HEARD_NOT_ASKED, HEARD_SIGNATURES, HEARD_SPOKEN, HEARD_WAITS, HELLO_EXTENSIONS, Heard, Hearing,
    KIND_DNS, KIND_HTTP, KIND_TLS, LABELS, NOT_FOUND, OFFERS, PAYLOAD_BYTES, QUESTION, SEARCH_STEP,
};
use hub_common::flow::Flow;
use hub_common::limits::SIGNATURES;
use hub_common::outcome::{
    SCRATCH_HEAR, SCRATCH_HEARD, SCRATCH_HEARS, SCRATCH_READ_ONLY, SCRATCH_UNDECIDED, Scratch,
};
use hub_common::packet::{PACKET_FRAGMENT_LATER, Packet, protocol};

use crate::maps::{HEARINGS, SIGNATURE_TABLE, own};

/// Signatures that are compared by one function.
const AT_ONCE: u32 = 16;

/// Bytes of the packet after its transport header.
#[inline(always)]
fn payload_bytes(packet: &Packet) -> u32 {
    let headers = packet.l4_offset.wrapping_sub(packet.l3_offset).wrapping_add(packet.l4_bytes);
    packet.length_bytes.saturating_sub(u32::from(headers))
}

/// Whether the packet says something that rules may want to know.
#[inline(always)]
pub(crate) fn speaks(packet: &Packet) -> bool {
    let known = packet.protocol == protocol::TCP || packet.protocol == protocol::UDP;
    known && packet.l4_bytes != 0 && !packet.has(PACKET_FRAGMENT_LATER) && payload_bytes(packet) != 0
}

/// Whether the first packet of a flow is to be read before rules are asked about it.
#[inline(always)]
pub(crate) fn asks_new(scratch: &mut Scratch) -> bool {
    let asks = scratch.flags & (SCRATCH_HEARS | SCRATCH_HEARD | SCRATCH_READ_ONLY) == SCRATCH_HEARS
        && scratch.packet.protocol == protocol::UDP
        && speaks(&scratch.packet);
    if asks {
        scratch.flags |= SCRATCH_HEAR;
    }
    asks
}

/// Takes over what the flow said, or says that the packet is to be read: the flow has waited for it.
#[inline(always)]
pub(crate) fn asks_known(scratch: &mut Scratch, flow: &Flow) -> bool {
    if scratch.flags & SCRATCH_HEARD != 0 {
        return false;
    }
    if flow.heard.state == HEARD_WAITS {
        if scratch.flags & SCRATCH_READ_ONLY != 0 || !speaks(&scratch.packet) {
            return false;
        }
        scratch.flags |= SCRATCH_HEAR;
        return true;
    }
    scratch.heard = flow.heard;
    scratch.flags |= SCRATCH_HEARD;
    if scratch.flags & SCRATCH_HEARS != 0 {
        hub_recall(scratch, flow.first_tick);
    }
    false
}

/// Leaves out of what a flow bore what it did not say: a slot that was used again since means another application.
///
/// VERIFIER(6.18): walked once here, and not for each way that leads to a known flow.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_recall(scratch: *mut Scratch, first_tick: u64) -> u32 {
    let Some(scratch) = own(scratch) else { return 0 };
    let mut at = 0;
    while at < HEARD_SIGNATURES {
        let slot = u32::from(scratch.heard.signatures[at]).wrapping_sub(1);
        if SIGNATURE_TABLE.get(slot).is_none_or(|signature| signature.born_tick > first_tick) {
            scratch.heard.signatures[at] = 0;
        }
        at += 1;
    }
    0
}

/// Whether the flow waited for this packet: what rules let begin is judged once more.
#[inline(always)]
pub(crate) fn decides(scratch: &Scratch, flow: &Flow) -> bool {
    scratch.flags & SCRATCH_HEARD != 0 && flow.heard.state == HEARD_WAITS
}

/// Whether the flow must be kept off the fast way: rules wait for what it will say.
#[inline(always)]
pub(crate) fn waits(flow: &Flow) -> bool {
    flow.heard.state == HEARD_WAITS
}

/// What a flow that rules were asked about is to remember.
#[inline(always)]
pub(crate) fn remembered(scratch: &Scratch) -> Heard {
    if scratch.flags & SCRATCH_UNDECIDED != 0 {
        Heard { state: HEARD_WAITS, ..Heard::ZERO }
    } else if scratch.flags & SCRATCH_HEARD != 0 {
        scratch.heard
    } else {
        Heard { state: HEARD_NOT_ASKED, ..Heard::ZERO }
    }
}

/// Reads the packet's payload and finds the signatures that it bears; the packet is to be judged again.
#[inline(always)]
pub(crate) fn hear(skb: *mut __sk_buff, scratch: &mut Scratch) {
    let kind = hub_hear(skb, scratch);
    hub_names(scratch, kind);
    let mut first = 0;
    while first < SIGNATURES {
        if hub_compare_some(scratch, first) == 0 {
            break;
        }
        first += AT_ONCE;
    }
    scratch.heard.state = HEARD_SPOKEN;
    scratch.flags = scratch.flags & !SCRATCH_HEAR | SCRATCH_HEARD;
}

/// Reads the names in a payload of this kind.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_names(scratch: *mut Scratch, kind: u32) -> u32 {
    if kind == u32::from(KIND_TLS) {
        let mut place = hub_hello(scratch);
        let mut step = 0;
        while step < HELLO_EXTENSIONS && place != NOT_FOUND {
            place = hub_hello_step(scratch, place);
            step += 1;
        }
        let mut index = 0;
        while index < OFFERS as u32 {
            hub_offer(scratch, index);
            index += 1;
        }
        return hub_name(scratch);
    }
    if kind == u32::from(KIND_HTTP) {
        let mut at = 0;
        while at < PAYLOAD_BYTES as u32 {
            let place = hub_search(scratch, at);
            if place != NOT_FOUND {
                hub_host(scratch, place);
                return hub_name(scratch);
            }
            at += SEARCH_STEP as u32;
        }
    }
    if kind == u32::from(KIND_DNS) {
        let end = application::name_end(|place| hub_next_label(scratch, place));
        if end == NOT_FOUND {
            return 0;
        }
        hub_question(scratch, end);
        hub_name(scratch);
        let (mut place, mut label) = (hub_next_label(scratch, QUESTION), 0);
        while label < LABELS && place < end {
            hub_part_label(scratch, place);
            place = hub_next_label(scratch, place);
            label += 1;
        }
    }
    0
}

/// The working space of the hook that the packet is at.
#[inline(always)]
fn hearing(scratch: &Scratch) -> Option<&'static mut Hearing> {
    // SAFETY: a per-CPU element of the hook's own; the hook does not nest.
    HEARINGS.get_ptr_mut(scratch.hook).map(|hearing| unsafe { &mut *hearing })
}

/// Copies the payload and recognises it: one of `KIND_*`.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_hear(skb: *mut __sk_buff, scratch: *mut Scratch) -> u32 {
    let Some(scratch) = own(scratch) else { return 0 };
    let Some(hearing) = hearing(scratch) else { return 0 };
    scratch.heard = Heard::ZERO;
    hearing.features = application::Features::ZERO;
    hearing.found = application::Found::ZERO;
    hearing.window = 0;
    let packet = &scratch.packet;
    let at = u32::from(packet.l4_offset).wrapping_add(u32::from(packet.l4_bytes));
    let length = payload_bytes(packet).min(PAYLOAD_BYTES as u32);
    hearing.payload.length = 0;
    if length == 0 {
        return 0;
    }
    let bytes = hearing.payload.bytes.as_mut_ptr();
    // VERIFIER(6.1): that a number is not 0 is forgotten; that it is a mask and one more is not.
    let most = (core::hint::black_box(length).wrapping_sub(1) & (PAYLOAD_BYTES as u32 - 1)) + 1;
    // SAFETY: the context is the hook's own; the array has room for the most bytes.
    let read = unsafe { bpf_skb_load_bytes(skb.cast(), at, bytes.cast(), most) };
    if read != 0 {
        return 0;
    }
    hearing.payload.length = most;
    application::recognise(&hearing.payload, packet.protocol == protocol::TCP, &mut hearing.features);
    u32::from(hearing.features.kind)
}

/// Where the first extension of a hello begins, or `NOT_FOUND`. The window holds where the last one ends.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_hello(scratch: *mut Scratch) -> u32 {
    let Some(scratch) = own(scratch) else { return NOT_FOUND };
    let Some(hearing) = hearing(scratch) else { return NOT_FOUND };
    let Some([place, end]) = application::hello(&hearing.payload) else { return NOT_FOUND };
    hearing.window = u64::from(end);
    place
}

/// Reads one extension of a hello; where the next one begins, or `NOT_FOUND`.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_hello_step(scratch: *mut Scratch, place: u32) -> u32 {
    let Some(scratch) = own(scratch) else { return NOT_FOUND };
    let Some(hearing) = hearing(scratch) else { return NOT_FOUND };
    let end = hearing.window as u32;
    application::extension(&hearing.payload, place, end, &mut hearing.found)
}

/// Looks for the host of a request from a place on; where its value begins, or `NOT_FOUND`.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_search(scratch: *mut Scratch, place: u32) -> u32 {
    let Some(scratch) = own(scratch) else { return NOT_FOUND };
    let Some(hearing) = hearing(scratch) else { return NOT_FOUND };
    application::search_host(&hearing.payload, place, &mut hearing.window)
}

/// Finds the host of a request.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_host(scratch: *mut Scratch, place: u32) -> u32 {
    let Some(scratch) = own(scratch) else { return 0 };
    let Some(hearing) = hearing(scratch) else { return 0 };
    application::find_host(&hearing.payload, place, &mut hearing.found);
    0
}

/// Takes the name that was found.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_name(scratch: *mut Scratch) -> u32 {
    let Some(scratch) = own(scratch) else { return 0 };
    let Some(hearing) = hearing(scratch) else { return 0 };
    application::take_name(&hearing.payload, &hearing.found, &mut hearing.features);
    0
}

/// Takes the next of the protocols that are offered.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_offer(scratch: *mut Scratch, index: u32) -> u32 {
    let Some(scratch) = own(scratch) else { return 0 };
    let Some(hearing) = hearing(scratch) else { return 0 };
    application::take_offer(&hearing.payload, index, &mut hearing.found, &mut hearing.features);
    0
}

/// Where the label of a question behind that at `place` begins.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_next_label(scratch: *mut Scratch, place: u32) -> u32 {
    let Some(scratch) = own(scratch) else { return NOT_FOUND };
    let Some(hearing) = hearing(scratch) else { return NOT_FOUND };
    application::next_label(&hearing.payload, place)
}

/// Finds the name of a question that ends at a place.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_question(scratch: *mut Scratch, end: u32) -> u32 {
    let Some(scratch) = own(scratch) else { return 0 };
    let Some(hearing) = hearing(scratch) else { return 0 };
    application::find_question(end, &mut hearing.found);
    0
}

/// Puts a dot before a label of the name that was taken.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_part_label(scratch: *mut Scratch, place: u32) -> u32 {
    let Some(scratch) = own(scratch) else { return 0 };
    let Some(hearing) = hearing(scratch) else { return 0 };
    application::part_label(&hearing.payload, place, &mut hearing.features);
    0
}

/// Notes the signature in a slot if the payload bears it. Whether there are more, 0 or 1.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_compare(scratch: *mut Scratch, slot: u32) -> u32 {
    let Some(scratch) = own(scratch) else { return 0 };
    let Some(hearing) = hearing(scratch) else { return 0 };
    let Some(signature) = SIGNATURE_TABLE.get(slot) else { return 0 };
    // A slot that is not in use has nothing to compare, and would fit everything.
    if signature.born_tick != 0 && signature.fits(&hearing.features, &hearing.payload) {
        scratch.heard.add((slot + 1) as u8);
    }
    u32::from(signature.more)
}

/// Compares with the signatures of some slots. Whether there are more, 0 or 1.
///
/// VERIFIER(6.18): two short loops are walked faster than one long one.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_compare_some(scratch: *mut Scratch, first: u32) -> u32 {
    let mut at = 0;
    while at < AT_ONCE {
        if hub_compare(scratch, first.wrapping_add(at)) == 0 {
            return 0;
        }
        at += 1;
    }
    1
}

/// What the matcher does with a rule that asks for a signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signed {
    /// The connection bears it.
    Fits,
    /// It does not.
    Differs,
    /// It has not spoken yet.
    Open,
}

/// Whether the connection bears the signature of a rule (slot plus 1).
#[inline(always)]
pub(crate) fn bears(scratch: &Scratch, signature: u8) -> Signed {
    if scratch.flags & SCRATCH_HEARD == 0 {
        return Signed::Open;
    }
    if scratch.heard.bears(signature) { Signed::Fits } else { Signed::Differs }
}
