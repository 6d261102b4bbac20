//! Rules: run for the first packet of a flow, and again when a policy changed.

use hub_common::address::Address;
use hub_common::event::Reason;
use hub_common::limits::{BASELINE_PER_DIRECTION, LEAVING_PER_DIRECTION, RULES_PER_DIRECTION};
use hub_common::outcome::{
    LOGGED, OUTCOME_ESTABLISHED, OUTCOME_LOG, OUTCOME_REJECT, OUTCOME_RESTAMP, OUTCOME_TRANSLATED,
    SCRATCH_PASSED_ON, SCRATCH_UNDECIDED, Scratch,
};
use hub_common::packet::{TCP_SYN, protocol};
use hub_common::rule::{
    ACTION_ALLOW, ACTION_LOG, ACTION_PASS_ON, ACTION_QUARANTINE, ACTION_RATE_LIMIT, ACTION_REJECT,
    RULE_BASELINE, RULE_LOG, RULE_NONE, Rule,
};
use hub_common::segment::{
    POLICY_AUDIT, POLICY_DEFAULT_REJECT, POLICY_LOG_DEFAULT, POLICY_OFF, Peer, Policy, has_protocol,
    policy_slot,
};

use crate::addresses::segment_of;
use crate::maps::{PEERS, POLICIES, RULES, set_until};
use crate::report::refuse;
use crate::stage::connections::{hub_crowded, hub_full};
use crate::stage::hear::{self, Signed};
use crate::stage::limit::hub_limited;
use crate::stage::translate::hub_native_view;

/// Asks both sides about the flow's first packet: the sender's persona, whether the two may talk, the
/// receiver's persona.
#[inline(always)]
pub(crate) fn filter(scratch: &mut Scratch, reply: bool) -> Result<(), Reason> {
    view(scratch, reply);
    let [sender, receiver] = scratch.outcome.segment;
    if sender != 0 {
        ask(scratch, 0, reply)?;
    }
    let addressee = addressee(scratch, reply);
    if !may_talk(sender, addressee) {
        refuse(&mut scratch.outcome, Reason::InterPersona, addressee, false);
        return Err(Reason::InterPersona);
    }
    if receiver != 0 {
        ask(scratch, 1, reply)?;
    }
    Ok(())
}

/// Whose range the flow's first packet goes to, 0 for nobody's: the receiver, or the persona whose gateway it is.
/// What is the hub's own has no receiver, and is for members of its range and their peers all the same.
#[inline(always)]
pub(crate) fn addressee(scratch: &Scratch, reply: bool) -> u32 {
    let [sender, receiver] = scratch.outcome.segment;
    if sender == 0 || receiver != 0 {
        return receiver;
    }
    segment_of(if reply { &scratch.packet.source } else { &scratch.packet.target })
}

/// Whether two segments are one, or peers, or one of them is none.
#[inline(always)]
pub(crate) fn may_talk(sender: u32, receiver: u32) -> bool {
    sender == 0
        || receiver == 0
        || sender == receiver
        // SAFETY: the value is not looked at.
        || unsafe { PEERS.get(Peer::between(sender, receiver)) }.is_some()
}

/// Sets the view to the flow's first packet, as well as it is known.
#[inline(always)]
pub(crate) fn view(scratch: &mut Scratch, reply: bool) {
    let packet = &scratch.packet;
    scratch.view = *packet;
    if reply {
        scratch.view.source = packet.target;
        scratch.view.target = packet.source;
        scratch.view.source_port = packet.target_port;
        scratch.view.target_port = packet.source_port;
    }
    if scratch.outcome.flags & (OUTCOME_RESTAMP | OUTCOME_ESTABLISHED) != 0 {
        // A flow that is judged again, or by a candidate, began with these.
        if packet.protocol == protocol::TCP {
            scratch.view.tcp_flags = TCP_SYN;
        }
        scratch.view.icmp_type = packet.kind;
    }
}

/// Sets the view to the addresses that one side's rules speak of, where they are others.
#[inline(always)]
pub(crate) fn native(scratch: &mut Scratch, side: u32, reply: bool) {
    if scratch.outcome.flags & OUTCOME_TRANSLATED != 0 {
        view(scratch, reply);
        hub_native_view(scratch, side);
    }
}

#[inline(always)]
fn ask(scratch: &mut Scratch, side: u32, reply: bool) -> Result<(), Reason> {
    native(scratch, side, reply);
    let answer = hub_filter(scratch, side);
    if answer != 0 && scratch.outcome.would[(side & 1) as usize] != 0 {
        // The persona only watches: what its rules wanted done is counted, not done.
        scratch.outcome.flags &= !OUTCOME_REJECT;
        scratch.outcome.quarantine_ticks = 0;
        return Ok(());
    }
    match Reason::from_number(answer) {
        None => Ok(()),
        Some(reason) => {
            let blame = scratch.outcome.segment[(side & 1) as usize];
            refuse(&mut scratch.outcome, reason, blame, side == 0);
            Err(reason)
        }
    }
}

/// Judges the view by one side's policy: 0 the sender's egress rules, 1 the receiver's ingress rules.
/// Returns a reason number, 0 to pass.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_filter(scratch: *mut Scratch, side: u32) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return Reason::Internal as u32 };
    let side = (side & 1) as usize;
    let Some(policy) = POLICIES.get(policy_slot(scratch.outcome.policy[side])) else {
        return Reason::NoPolicy as u32;
    };
    if policy.flags & POLICY_OFF != 0 {
        return 0;
    }
    scratch.flags &= !SCRATCH_PASSED_ON;
    scratch.asked = scratch.outcome.segment[side];
    let mut answer = by_policy(scratch, policy, side);
    if answer == 0 && side == 1 {
        answer = hub_crowded(scratch);
    }
    if policy.flags & POLICY_AUDIT != 0 {
        scratch.outcome.would[side] = answer;
    }
    answer
}

#[inline(always)]
fn by_policy(scratch: &mut Scratch, policy: &Policy, side: usize) -> u32 {
    if !has_protocol(&policy.protocols, scratch.view.protocol) {
        return Reason::Protocol as u32;
    }
    let (first, count) = if side == 0 {
        (policy.egress_first, policy.egress_count)
    } else {
        (policy.ingress_first, policy.ingress_count)
    };
    let mut done = 0;
    while done < RULES_PER_DIRECTION + BASELINE_PER_DIRECTION + LEAVING_PER_DIRECTION {
        if done >= count {
            break;
        }
        let answer = hub_run(scratch, side as u32, first.wrapping_add(done), count.wrapping_sub(done));
        if answer != NO_MATCH {
            return answer;
        }
        done += RUN;
    }
    by_default(scratch, policy, side)
}

/// Rules that one call of [`hub_run`] looks at.
///
/// VERIFIER(6.18): a loop is walked once per turn. Two loops, one in a function of its own, are walked for
/// the sum of their turns; one loop over 2,048 rules was 300,000 instructions.
const RUN: u32 = 32;

/// Looks at up to [`RUN`] rules from slot `first` on, at most `count`. Returns a reason number, 0 to pass,
/// or [`NO_MATCH`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_run(scratch: *mut Scratch, side: u32, first: u32, count: u32) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return Reason::Internal as u32 };
    let side = (side & 1) as usize;
    let mut at = 0;
    while at < RUN {
        if at >= count {
            break;
        }
        let slot = first.wrapping_add(at);
        at += 1;
        let Some(rule) = RULES.get_ptr(slot) else { return Reason::NoPolicy as u32 };
        let action = hub_match(rule, scratch);
        if action == NO_MATCH {
            continue;
        }
        if action & LOGS != 0 {
            scratch.outcome.flags |= OUTCOME_LOG;
        }
        let action = (action & 0xff) as u8;
        if action == ACTION_LOG {
            hub_logged(scratch, slot);
            continue;
        }
        if action == ACTION_PASS_ON {
            scratch.flags |= SCRATCH_PASSED_ON;
            continue;
        }
        scratch.outcome.rule[side] = slot;
        return match action {
            ACTION_ALLOW => 0,
            ACTION_REJECT => {
                scratch.outcome.flags |= OUTCOME_REJECT;
                Reason::RuleReject as u32
            }
            ACTION_RATE_LIMIT => limited(scratch, side, slot),
            ACTION_QUARANTINE => {
                scratch.outcome.quarantine_ticks = RULES.get(slot).map_or(0, |rule| rule.quarantine_ticks);
                Reason::Quarantine as u32
            }
            _ => Reason::RuleDeny as u32,
        };
    }
    NO_MATCH
}

/// Notes a matching rule that reports and goes on. Compiled rules of one origin share a counter and come one after
/// the other: a packet that several of them match is one to their rule.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_logged(scratch: *mut Scratch, slot: u32) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 0 };
    let Some(rule) = RULES.get(slot) else { return 0 };
    let (counter, logs) = (rule.counter, scratch.outcome.logs);
    let logged = &mut scratch.outcome.logged;
    if logged[logs.wrapping_sub(1) as usize % LOGGED] != counter {
        logged[logs as usize % LOGGED] = counter;
        scratch.outcome.logs = logs.wrapping_add(1);
    }
    0
}

#[inline(always)]
fn limited(scratch: &mut Scratch, side: usize, slot: u32) -> u32 {
    let Some(rule) = RULES.get(slot) else { return Reason::NoPolicy as u32 };
    let full = hub_full(scratch, side as u32, rule.limit);
    if full != 0 { full } else { hub_limited(scratch, side as u32, rule.limit) }
}

#[inline(always)]
fn by_default(scratch: &mut Scratch, policy: &Policy, side: usize) -> u32 {
    scratch.outcome.rule[side] = RULE_NONE;
    let allowed = if side == 0 { &policy.egress_default } else { &policy.ingress_default };
    if has_protocol(allowed, scratch.view.protocol) {
        return 0;
    }
    if policy.flags & POLICY_DEFAULT_REJECT != 0 {
        scratch.outcome.flags |= OUTCOME_REJECT;
    }
    if policy.flags & POLICY_LOG_DEFAULT != 0 {
        scratch.outcome.flags |= OUTCOME_LOG;
    }
    Reason::DefaultDeny as u32
}

/// What [`hub_match`] answers for a rule that does not match.
const NO_MATCH: u32 = u32::MAX;
/// Bit of its answer: report the packet.
const LOGS: u32 = 1 << 8;

/// The action of a rule that matches the view, or [`NO_MATCH`]. A rule that decides bounds the decision.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_match(rule: *const Rule, scratch: *mut Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(rule) = (unsafe { rule.as_ref() }) else { return NO_MATCH };
    // SAFETY: as above.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return NO_MATCH };
    if rule.flags & RULE_BASELINE != 0 && scratch.flags & SCRATCH_PASSED_ON != 0 {
        return NO_MATCH;
    }
    let until = |set: u32, address: &Address| set_until(scratch, set, address);
    let end = rule.matches(&scratch.view, scratch.tick, until);
    if end == 0 {
        return NO_MATCH;
    }
    if rule.signature != 0 {
        match hear::bears(scratch, rule.signature) {
            Signed::Fits => {}
            Signed::Differs => return NO_MATCH,
            Signed::Open => {
                // Only the first bytes will tell: until then an allow lets it begin, and nothing refuses it.
                scratch.flags |= SCRATCH_UNDECIDED;
                if rule.action != ACTION_ALLOW && rule.action != ACTION_RATE_LIMIT {
                    return NO_MATCH;
                }
            }
        }
    }
    if rule.action != ACTION_LOG && end < scratch.outcome.deadline_tick {
        scratch.outcome.deadline_tick = end;
    }
    let logs = rule.flags & RULE_LOG != 0 || rule.action == ACTION_LOG;
    u32::from(rule.action) | if logs { LOGS } else { 0 }
}
