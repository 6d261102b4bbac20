//! The order of stages, one for all hooks.
//!
//! ```text
//! parse ─ fast? ──────────────────────────────────────────────────────────────▶ redirect / stack
//!    └─ front ─ classify + anti-spoof ─ alive ─ quarantine ─ fragments ─ flow ─ rules ─┐
//!                                                                                      ├▶ route ─ commit ─▶ …
//!                                                     drop ◀─ failsafe? ◀─ any reason ─┘
//! ```
//! A segment's policy is one word, read once per packet: rules, defaults, port sets, limits, code points, classes and
//! caps follow from it, so that a change over is one store. What does not follow from it: the queues themselves, whose
//! rates the kernel changes class by class; detectors and elements of sets, which belong to the segment; the state of
//! its caps, which goes on.
//!
//! Everything up to `commit` only reads maps, so XDP can give up at any point and leave the packet to TC,
//! and `hub_why` can ask without leaving a trace. The one exception is `fast`, which commits by itself.

use hub_common::event::{Hook, Reason};
use hub_common::flow::is_impossible;
use hub_common::outcome::{
    FROM_HOST, LOGGED, OUTCOME_LOCAL, OUTCOME_REJECT, Outcome, SCRATCH_CANDIDATE, SCRATCH_HEAR,
    SCRATCH_UNDECIDED, Scratch, VERDICT_DEFER, VERDICT_DROP, VERDICT_HEAR, VERDICT_ROUTE, VERDICT_SKIP,
};
use hub_common::packet::{PACKET_FRAGMENT_LATER, PACKET_V4, PACKET_V6, protocol};
use hub_common::rule::{RULE_NONE, has_ports};
use hub_common::segment::{Failsafe, PORT_FAILSAFE, ROLE_SEGMENT};

use crate::addresses::{is_local, segment_of};
use crate::maps::{FAILSAFE, SETTINGS, own};
use crate::report::refuse;
use crate::stage::candidate::hub_candidate;
use crate::stage::classify::{alive, classify};
use crate::stage::front::{Front, asks_in_vain, front};
use crate::stage::trace::hub_trace;
use crate::stage::{flow, fragment, quarantine};

/// Resets the outcome of the packet before.
#[inline(always)]
pub(crate) fn begin(scratch: &mut Scratch) {
    scratch.outcome = Outcome::ZERO;
    scratch.outcome.rule = [RULE_NONE; 2];
    scratch.outcome.logged = [RULE_NONE; LOGGED];
    scratch.outcome.deadline_tick = u64::MAX;
}

/// Shows what became of a packet to traces and candidates, where there are any.
#[inline(always)]
pub(crate) fn look_on(scratch: &mut Scratch, verdict: u32) {
    if scratch.traces != 0 {
        hub_trace(scratch, verdict);
    }
    if scratch.flags & SCRATCH_CANDIDATE != 0 {
        hub_candidate(scratch, verdict);
    }
}

/// Decides on a parsed packet. Returns one of `VERDICT_*`.
///
/// VERIFIER(6.1): the stacks of all callers count, in steps of 32 bytes: neither way calls the other.
#[inline(always)]
pub(crate) fn judge(scratch: &mut Scratch) -> u32 {
    let verdict = hub_judge(scratch);
    if verdict == NO_FLOW { hub_judge_slowly(scratch) } else { verdict }
}

/// Instead of a verdict: no established flow answers for the packet.
const NO_FLOW: u32 = u32::MAX;

/// Decides on a packet of an established flow. Returns one of `VERDICT_*`, or [`NO_FLOW`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn hub_judge(scratch: *mut Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return VERDICT_DROP };
    let Some(settings) = SETTINGS.get(0) else { return VERDICT_DROP };
    scratch.traces = settings.traces;
    flow::fast(scratch, settings).unwrap_or(NO_FLOW)
}

/// As [`hub_judge`], for packets that no established flow answers for.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_judge_slowly(scratch: *mut Scratch) -> u32 {
    let Some(scratch) = own(scratch) else { return VERDICT_DROP };
    begin(scratch);
    scratch.flags &= !SCRATCH_UNDECIDED;
    let verdict = match stages(scratch) {
        Ok(Front::Skip) => VERDICT_SKIP,
        Ok(Front::Judge) if scratch.flags & SCRATCH_HEAR != 0 => VERDICT_HEAR,
        Ok(Front::Judge) => VERDICT_ROUTE,
        Err(_) if is_failsafe(scratch) => VERDICT_SKIP,
        // Answers go out by TC, which builds them from an skb.
        Err(_) if scratch.outcome.flags & OUTCOME_REJECT != 0 && scratch.hook == Hook::XdpIn as u32 => {
            VERDICT_DEFER
        }
        Err(reason) => {
            scratch.outcome.reason = reason as u32;
            VERDICT_DROP
        }
    };
    scratch.outcome.verdict = verdict;
    verdict
}

#[inline(always)]
fn stages(scratch: &mut Scratch) -> Result<Front, Reason> {
    let Some(settings) = SETTINGS.get(0) else { return Err(Reason::Internal) };
    // VERIFIER(6.18): not part of `front`, of whose answer the compiler would store a half that is not set.
    if asks_in_vain(scratch) {
        refuse(&mut scratch.outcome, Reason::ForeignGateway, scratch.port.segment, true);
        return Err(Reason::ForeignGateway);
    }
    match front(scratch) {
        Ok(Front::Skip) => return Ok(Front::Skip),
        Ok(Front::Judge) => {}
        Err(reason) => {
            // What the host sends is nobody's.
            let segment = if scratch.ingress_ifindex == FROM_HOST { 0 } else { scratch.port.segment };
            refuse(&mut scratch.outcome, reason, segment, true);
            return Err(reason);
        }
    }
    land(scratch)?;
    if classify(scratch)? {
        scratch.outcome.flags |= OUTCOME_LOCAL;
    }
    let [sender, receiver] = scratch.outcome.segment;
    if sender == 0 && receiver == 0 {
        return Ok(Front::Skip);
    }
    if let Err(reason) = alive(scratch) {
        if matches!(reason, Reason::Expired) {
            flow::reset_cut(scratch, settings);
        }
        return Err(reason);
    }
    quarantine::admit(scratch)?;
    let (blame, from_members) = if sender != 0 { (sender, true) } else { (receiver, false) };
    if !fragment::complete(scratch) {
        refuse(&mut scratch.outcome, Reason::FragmentUnknown, blame, from_members);
        return Err(Reason::FragmentUnknown);
    }
    let packet = &scratch.packet;
    let later = packet.has(PACKET_FRAGMENT_LATER);
    if packet.protocol == protocol::TCP && !later && is_impossible(packet.tcp_flags) {
        refuse(&mut scratch.outcome, Reason::TcpFlags, blame, from_members);
        return Err(Reason::TcpFlags);
    }
    flow::settle(scratch, settings)?;
    Ok(Front::Judge)
}

/// Refuses packets from a persona's address to the same address, whichever side they come from.
#[inline(always)]
fn land(scratch: &mut Scratch) -> Result<(), Reason> {
    let packet = &scratch.packet;
    if packet.source != packet.target {
        return Ok(());
    }
    let segment = segment_of(&packet.source);
    if segment == 0 {
        return Ok(());
    }
    refuse(&mut scratch.outcome, Reason::Land, segment, scratch.port.role == ROLE_SEGMENT);
    Err(Reason::Land)
}

/// Whether the packet belongs to a service of the host that no policy may cut off.
#[inline(always)]
fn is_failsafe(scratch: &Scratch) -> bool {
    let packet = &scratch.packet;
    if scratch.port.flags & PORT_FAILSAFE == 0
        || scratch.parse_reason != 0
        || !packet.has_any(PACKET_V4 | PACKET_V6)
        || !has_ports(packet.protocol)
    {
        return false;
    }
    let out = scratch.hook == Hook::TcOut as u32;
    let (host, port) =
        if out { (packet.source, packet.source_port) } else { (packet.target, packet.target_port) };
    let key = Failsafe { protocol: u32::from(packet.protocol), port: u32::from(port) };
    // SAFETY: the value is not looked at.
    is_local(&host) && unsafe { FAILSAFE.get(key) }.is_some()
}
