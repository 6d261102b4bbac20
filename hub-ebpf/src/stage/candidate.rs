//! Candidates: judges a packet by a policy that is not live, and counts where the two disagree.
//!
//! Runs after the decision and changes none: what it borrows of the outcome it puts back. It judges what
//! asked the rules, and one packet of each flow that did not need to.

use hub_common::candidate::{CandidateHits, CandidateKey, DROPS, NO_RULE, PASSES, REJECTS};
use hub_common::event::Reason;
use hub_common::flow::FlowKey;
use hub_common::outcome::{
    OUTCOME_ESTABLISHED, OUTCOME_LOG, OUTCOME_REJECT, OUTCOME_RELATED, Scratch, VERDICT_DROP,
    VERDICT_REDIRECT, VERDICT_STACK,
};
use hub_common::rule::RULE_NONE;

use crate::maps::{CANDIDATE_HITS, CANDIDATE_LOST, CANDIDATE_SEEN, RULES, SEGMENTS, own};
use crate::stage::filter::{hub_filter, native, view};

/// Bit of the sender's side among those that were asked.
const SENDER: u32 = 1;
/// Bit of the receiver's side.
const RECEIVER: u32 = 1 << 1;

/// Whether a candidate has judged this side of the flow already.
#[inline(always)]
pub(crate) fn seen(key: &FlowKey, side: usize, candidate: u32) -> bool {
    // SAFETY: words; a torn pair is judged once more.
    unsafe { CANDIDATE_SEEN.get(key) }.is_some_and(|words| words[side & 1] == candidate)
}

/// Judges the packet by the candidates of its segments, after `verdict`.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_candidate(scratch: *mut Scratch, verdict: u32) -> u32 {
    let Some(scratch) = own(scratch) else { return 0 };
    let passes = verdict == VERDICT_STACK || verdict == VERDICT_REDIRECT;
    if !(passes || verdict == VERDICT_DROP) || scratch.outcome.flags & OUTCOME_RELATED != 0 {
        return 0;
    }
    let asked = asked(scratch, passes);
    if asked == 0 {
        return 0;
    }
    let words = [word(scratch.outcome.segment[0]), word(scratch.outcome.segment[1])];
    let known = scratch.outcome.flags & OUTCOME_ESTABLISHED != 0;
    let reply = scratch.outcome.direction == 1;
    view(scratch, reply);
    if asked & SENDER != 0 && words[0] != 0 && !(known && seen(&scratch.key, 0, words[0])) {
        // With both sides asked, the first let the packet pass.
        let refused = !passes && asked & RECEIVER == 0;
        native(scratch, 0, reply);
        hub_candidate_side(scratch, 0, words[0], u32::from(refused));
    }
    if asked & RECEIVER != 0 && words[1] != 0 && !(known && seen(&scratch.key, 1, words[1])) {
        native(scratch, 1, reply);
        hub_candidate_side(scratch, 1, words[1], u32::from(!passes));
    }
    if passes {
        // A full table forgets the oldest, which is judged again.
        CANDIDATE_SEEN.insert(scratch.key, words, 0).ok();
    }
    0
}

/// Which sides' rules have a say in what became of the packet.
#[inline(always)]
fn asked(scratch: &Scratch, passes: bool) -> u32 {
    if passes {
        return SENDER | RECEIVER;
    }
    let reason = scratch.outcome.reason;
    let by_sender = scratch.outcome.blame_direction == 1;
    let by_rules = reason == Reason::Protocol as u32
        || reason == Reason::RuleDeny as u32
        || reason == Reason::RuleReject as u32
        || reason == Reason::RateLimit as u32
        || scratch.outcome.quarantine_ticks != 0
        || reason == Reason::DefaultDeny as u32;
    if !by_rules {
        return 0;
    }
    if by_sender { SENDER } else { SENDER | RECEIVER }
}

/// The candidate of a segment, 0 for none.
#[inline(always)]
fn word(segment: u32) -> u32 {
    if segment == 0 { 0 } else { SEGMENTS.get(segment).map_or(0, hub_common::segment::Segment::judged) }
}

/// Judges one side and counts the answer. `refused` is 1 where the live policy of this side dropped it.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_candidate_side(
    scratch: *mut Scratch,
    side: u32,
    candidate: u32,
    refused: u32,
) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 0 };
    let index = (side & 1) as usize;
    scratch.live = scratch.outcome;
    let outcome = &mut scratch.outcome;
    outcome.would = [0; 2];
    outcome.policy[index] = candidate;
    outcome.rule[index] = RULE_NONE;
    outcome.flags &= !(OUTCOME_REJECT | OUTCOME_LOG);
    let answer = hub_filter(scratch, side);
    // One that only watches lets pass.
    let reason = if scratch.outcome.would[index] != 0 { 0 } else { answer };
    let (candidate_rule, candidate_flags) = (scratch.outcome.rule[index], scratch.outcome.flags);
    scratch.outcome = scratch.live;
    let outcome = &scratch.outcome;
    let flags = outcome.flags;
    let live_reason = if refused != 0 { outcome.reason } else { 0 };
    let mut key = CandidateKey {
        segment: outcome.segment[index],
        live_rule: position(outcome.rule[index]),
        candidate_rule: position(candidate_rule),
        live_reason: live_reason as u8,
        candidate_reason: reason as u8,
        live_verdict: verdict(live_reason, flags),
        candidate_verdict: verdict(reason, candidate_flags),
        direction: u8::from(side == 0),
        pad: [0; 3],
    };
    if key.live_verdict == key.candidate_verdict {
        key.live_rule = NO_RULE;
        key.candidate_rule = NO_RULE;
        key.live_reason = 0;
        key.candidate_reason = 0;
    }
    count(scratch, &key);
    0
}

#[inline(always)]
fn verdict(reason: u32, flags: u32) -> u8 {
    if reason == 0 {
        PASSES
    } else if flags & OUTCOME_REJECT != 0 {
        REJECTS
    } else {
        DROPS
    }
}

/// Where the rule in a slot stands in its document.
#[inline(always)]
fn position(slot: u32) -> u16 {
    if slot == RULE_NONE { NO_RULE } else { RULES.get(slot).map_or(NO_RULE, |rule| rule.index) }
}

#[inline(always)]
fn count(scratch: &Scratch, key: &CandidateKey) {
    let view = &scratch.view;
    let first = CandidateHits {
        packets: 1,
        bytes: u64::from(view.length_bytes),
        source: view.source,
        target: view.target,
        source_port: view.source_port,
        target_port: view.target_port,
        protocol: view.protocol,
        pad: [0; 3],
    };
    if let Some(hits) = CANDIDATE_HITS.get_ptr_mut(key) {
        // SAFETY: a per-CPU element; only this CPU writes it.
        let hits = unsafe { &mut *hits };
        let (packets, bytes) = (hits.packets + 1, hits.bytes + first.bytes);
        *hits = CandidateHits { packets, bytes, ..first };
        return;
    }
    if CANDIDATE_HITS.insert(key, first, 0).is_err()
        && let Some(lost) = CANDIDATE_LOST.get_ptr_mut(0)
    {
        // SAFETY: a per-CPU element; only this CPU writes it.
        unsafe { *lost += 1 };
    }
}
