//! What may begin a flow at all, before rules are asked.

use hub_common::event::Reason;
use hub_common::flow::is_opening;
use hub_common::outcome::{OUTCOME_LOCAL, OUTCOME_REJECT, Outcome, Scratch};
use hub_common::packet::{PACKET_ICMP_REQUEST, PACKET_V4, Packet, protocol};
use hub_common::segment::{
    FAILSAFE_MEMBERS, Failsafe, POLICY_RESET_CUT, ROLE_SEGMENT, SEGMENT_DRAIN_REJECT, Settings, policy_slot,
};

use crate::maps::{FAILSAFE, POLICIES, SEGMENTS};
use crate::report::refuse;

/// Whether a policy of the packet has the ends of TCP told when it is cut.
#[inline(always)]
pub(crate) fn tells(outcome: &Outcome) -> bool {
    let mut side = 0;
    while side < 2 {
        let word = outcome.policy[side];
        if word != 0
            && POLICIES.get(policy_slot(word)).is_some_and(|policy| policy.flags & POLICY_RESET_CUT != 0)
        {
            return true;
        }
        side += 1;
    }
    false
}

/// What may begin a flow at all.
#[inline(always)]
pub(crate) fn admit_new(scratch: &mut Scratch, settings: &Settings) -> Result<(), Reason> {
    let packet = &scratch.packet;
    let outcome = &mut scratch.outcome;
    let mut side = 0;
    while side < 2 {
        let id = outcome.segment[side];
        if id != 0
            && let Some(segment) = SEGMENTS.get(id)
            && segment.drains(scratch.tick)
        {
            if segment.flags & SEGMENT_DRAIN_REJECT != 0 && packet.protocol == protocol::TCP {
                outcome.flags |= OUTCOME_REJECT;
            }
            refuse(outcome, Reason::Draining, id, side == 0);
            return Err(Reason::Draining);
        }
        side += 1;
    }
    let from_members = outcome.segment[0] != 0;
    let blame = if from_members { outcome.segment[0] } else { outcome.segment[1] };
    let icmp = packet.protocol == if packet.has(PACKET_V4) { protocol::ICMP } else { protocol::ICMPV6 };
    let loose = scratch.tick < settings.loose_tcp_until_tick;
    let stray_tcp = packet.protocol == protocol::TCP && !is_opening(packet.tcp_flags) && !loose;
    let stray_reply = icmp && !packet.has(PACKET_ICMP_REQUEST) && packet.kind != packet.icmp_type;
    if stray_tcp || stray_reply {
        if stray_tcp && tells(outcome) {
            outcome.flags |= OUTCOME_REJECT;
        }
        refuse(outcome, Reason::NoFlow, blame, from_members);
        return Err(Reason::NoFlow);
    }
    let local = scratch.port.role == ROLE_SEGMENT && outcome.flags & OUTCOME_LOCAL != 0;
    if local && !icmp && !is_service(packet) {
        refuse(outcome, Reason::HubLocal, blame, from_members);
        return Err(Reason::HubLocal);
    }
    Ok(())
}

/// Whether a packet is for a service that the hub offers to members.
#[inline(always)]
fn is_service(packet: &Packet) -> bool {
    let protocol = u32::from(packet.protocol) | FAILSAFE_MEMBERS;
    let key = Failsafe { protocol, port: u32::from(packet.target_port) };
    // SAFETY: the value is not looked at.
    unsafe { FAILSAFE.get(key).is_some() }
}
