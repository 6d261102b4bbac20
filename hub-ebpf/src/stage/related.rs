//! ICMP errors: they pass with the connection that they speak of.

use hub_common::event::Reason;
use hub_common::flow::FlowKey;
use hub_common::outcome::{FROM_HOST, OUTCOME_RELATED, Scratch};
use hub_common::packet::protocol;
use hub_common::segment::Settings;

use crate::addresses::{is_local, segment_of};
use crate::report::refuse;
use crate::stage::flow::find;
use crate::stage::open;

const ICMP_REDIRECT: u8 = 5;

/// An ICMP error passes if it speaks of a live flow and goes to the sender of the packet it quotes.
#[inline(always)]
pub(crate) fn related(scratch: &mut Scratch, settings: &Settings) -> Result<(), Reason> {
    let (key, from_high) = FlowKey::of_inner(&scratch.packet);
    scratch.key = key;
    let of_flow = find(&scratch.key, scratch.tick, settings).is_some_and(|(flow, _)| {
        // SAFETY: as in `fast`.
        let flow = unsafe { &*flow };
        let [first, other] = flow.segment;
        let quoted = if flow.direction(from_high) == 0 { [first, other] } else { [other, first] };
        goes_back(scratch, quoted)
    });
    let fits = of_flow || (open::is_untracked_inner(scratch) && goes_back(scratch, quoted_segments(scratch)));
    let packet = &scratch.packet;
    let redirect = packet.icmp_type == ICMP_REDIRECT && packet.protocol == protocol::ICMP;
    if fits && !redirect && packet.target == packet.inner.source {
        scratch.outcome.flags |= OUTCOME_RELATED;
        return Ok(());
    }
    let [sender, receiver] = scratch.outcome.segment;
    let blame = if sender != 0 { sender } else { receiver };
    refuse(&mut scratch.outcome, Reason::IcmpError, blame, sender != 0);
    Err(Reason::IcmpError)
}

/// Whether an error goes back the way of the quoted packet, whose sender and receiver are in these segments.
/// The host is a router on every way.
#[inline(always)]
fn goes_back(scratch: &Scratch, [quoted_sender, quoted_receiver]: [u32; 2]) -> bool {
    let [sender, receiver] = scratch.outcome.segment;
    receiver == quoted_sender && (sender == quoted_receiver || scratch.ingress_ifindex == FROM_HOST)
}

/// Segments of the quoted packet's ends, as its addresses say.
#[inline(always)]
fn quoted_segments(scratch: &Scratch) -> [u32; 2] {
    let inner = &scratch.packet.inner;
    let of = |address| if is_local(address) { 0 } else { segment_of(address) };
    [of(&inner.source), of(&inner.target)]
}
