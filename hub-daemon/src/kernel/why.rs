//! Asks the loaded program what it would do with a packet, and puts its answer in words.
//!
//! The program that answers runs the stages that packets run through, on the live tables, and writes nothing
//! but the answer. There is one place for answers, so questions wait for each other, across processes too.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use hub_common::event::Reason;
use hub_common::outcome::{
    OUTCOME_ESTABLISHED, OUTCOME_REJECT, OUTCOME_UNHEARD, OUTCOME_UNTRACKED, Outcome, VERDICT_DROP,
    VERDICT_SKIP,
};
use hub_common::rule::RULE_NONE;
use nix::net::if_::if_nametoindex;

use super::counts::{SYNTHETIC, direction};
use super::explain::explain;
use super::maps::{self, Maps, at, from_program};
use super::names::{HOST, interface, persona};
use super::netlink::Netlink;
use super::question::frame;
use super::reader::ReadError;
use super::rule_counts::is_baseline;
use super::rule_text::{BASELINE, default_words, words};
use super::ways::{Way, way};
use crate::datapath_view::{Answer, AnswerRule, Question};
use crate::desired::interfaces::tunnel_index;
use crate::judgement::{Asked, Judgement, Verdict};
use crate::model::SegmentId;
use crate::view::switch::TunnelView;
use crate::view::{Origin, PersonaView, Snapshot};

/// The loopback: packets of the machine itself.
const LOOPBACK: u32 = 1;
/// Where the hub's own rules are written.
const CONFIG: &str = "hub.yaml";
/// Offsets in `struct __sk_buff`, and bytes of that up to the last of them. The mark tells `hub_why` a tunnel, and the
/// priority that the packet goes into it.
const MARK_OFFSET: usize = 8;
const PRIORITY_OFFSET: usize = 32;
const IFINDEX_OFFSET: usize = 40;
const CONTEXT_BYTES: usize = 44;

/// The program that answers.
pub(crate) struct Why {
    program: SchedClassifier,
    pins: PathBuf,
}

impl Why {
    pub(crate) fn open(pins: &Path) -> Result<Self, ReadError> {
        Ok(Self { program: maps::program(pins, "hub_why")?, pins: pins.to_owned() })
    }

    /// Answers a question.
    pub(crate) fn ask(
        &self,
        maps: &Maps,
        snapshot: &Snapshot,
        question: &Question,
    ) -> Result<Answer, ReadError> {
        let frame = frame(question).map_err(|error| ReadError::Question(error.to_string()))?;
        let mut netlink = Netlink::open()
            .map_err(|error| ReadError::Map { map: "routes", source: io::Error::other(error) })?;
        if let Some(tunnel) = tunnel(snapshot, question) {
            let leaves = tunnel.addresses.contains(&question.source.to_canonical());
            let outcome = self.run(maps, &frame, LOOPBACK, Some((tunnel_index(&tunnel.link), leaves)))?;
            let leaves_by = leaves.then(|| tunnel.link.clone());
            let port = if leaves { HOST.to_owned() } else { tunnel.link.clone() };
            return Ok(Answer { port, leaves_by, ..translate(maps, snapshot, &outcome)? });
        }
        let ifindex = ingress(&mut netlink, question)?;
        let outcome = self.run(maps, &frame, ifindex, None)?;
        let came_in = (ifindex > LOOPBACK).then_some((ifindex, question.source));
        let leaves_by = match way(&mut netlink, came_in, question.target) {
            Way::Out(ifindex) => Some(interface(ifindex)),
            Way::Local | Way::Nowhere => None,
        };
        let port =
            if ifindex == LOOPBACK && question.port.is_none() { HOST.into() } else { interface(ifindex) };
        Ok(Answer { port, leaves_by, ..translate(maps, snapshot, &outcome)? })
    }

    /// Judges a packet that passes by a port which the question names, and says no more than that.
    pub(crate) fn judge(&self, maps: &Maps, asked: &Asked) -> Result<Judgement, ReadError> {
        let question = &asked.question;
        let frame = frame(question).map_err(|error| ReadError::Question(error.to_string()))?;
        let port = question.port.as_deref().unwrap_or(HOST);
        let outcome = match asked.tunnel {
            Some(leaves) => self.run(maps, &frame, LOOPBACK, Some((tunnel_index(port), leaves)))?,
            None => self.run(maps, &frame, index(port)?, None)?,
        };
        let verdict = match outcome.verdict {
            VERDICT_SKIP => Verdict::NotOurs,
            VERDICT_DROP => Verdict::Refused(Reason::from_number(outcome.reason).unwrap_or(Reason::Internal)),
            _ if outcome.flags & OUTCOME_ESTABLISHED != 0 => Verdict::Established,
            _ => Verdict::Passes,
        };
        Ok(Judgement { segments: outcome.segment.map(SegmentId), verdict })
    }

    /// `tunnel` is the interface index of one and whether the packet goes into it.
    fn run(
        &self,
        maps: &Maps,
        frame: &[u8],
        ifindex: u32,
        tunnel: Option<(u32, bool)>,
    ) -> Result<Outcome, ReadError> {
        let failed = |source| ReadError::Map { map: "hub_why", source };
        let mut context = [0; CONTEXT_BYTES];
        let (index, leaves) = tunnel.unwrap_or_default();
        for (offset, field) in
            [(MARK_OFFSET, index), (PRIORITY_OFFSET, u32::from(leaves)), (IFINDEX_OFFSET, ifindex)]
        {
            for (to, from) in context.iter_mut().skip(offset).zip(field.to_ne_bytes()) {
                *to = from;
            }
        }
        let options =
            TestRunOptions { data_in: Some(frame), ctx_in: Some(&context), ..TestRunOptions::default() };
        // Held until the answer is read; the file closes with the value.
        let lock = File::open(&self.pins).map_err(failed)?;
        lock.lock().map_err(failed)?;
        self.program.test_run(options).map_err(|error| failed(from_program(error)))?;
        let outcome = at(&maps.answer, "ANSWER", 0)?;
        Ok(outcome.unwrap_or(Outcome::ZERO))
    }
}

/// The tunnel that is asked about: in the hub's own namespace there is no device of that name.
fn tunnel<'a>(snapshot: &'a Snapshot, question: &Question) -> Option<&'a TunnelView> {
    let port = question.port.as_ref()?;
    let mut tunnels = snapshot.interfaces.values().filter_map(|interface| interface.tunnel.as_ref());
    tunnels.find(|tunnel| tunnel.link == *port)
}

/// The interface that the packet comes in on: as asked, else where the kernel would look for the sender.
fn ingress(netlink: &mut Netlink, question: &Question) -> Result<u32, ReadError> {
    if let Some(port) = &question.port {
        return index(port);
    }
    Ok(match way(netlink, None, question.source) {
        Way::Out(ifindex) => ifindex,
        Way::Local | Way::Nowhere => LOOPBACK,
    })
}

fn index(port: &str) -> Result<u32, ReadError> {
    if port == HOST {
        return Ok(LOOPBACK);
    }
    if_nametoindex(port).map_err(|_errno| ReadError::Question(format!("there is no interface `{port}`")))
}

/// The answer in words, but for the interfaces.
fn translate(maps: &Maps, snapshot: &Snapshot, outcome: &Outcome) -> Result<Answer, ReadError> {
    let dropped = outcome.verdict == VERDICT_DROP;
    let reason = if dropped { Reason::from_number(outcome.reason) } else { None };
    let established = outcome.flags & OUTCOME_ESTABLISHED != 0 && !dropped;
    let verdict = match outcome.verdict {
        VERDICT_SKIP => "skip",
        VERDICT_DROP if outcome.flags & OUTCOME_REJECT != 0 => "reject",
        VERDICT_DROP => "drop",
        _ => "pass",
    };
    let explanation = match (reason, verdict) {
        (Some(reason), _) => explain(reason),
        (None, "skip") => "The packet concerns no persona: it is the kernel's to route, deliver or drop",
        (None, _) if established => {
            "The connection is established, and its packets pass without asking rules"
        }
        (None, _) if outcome.flags & OUTCOME_UNTRACKED != 0 => {
            "The rules allow the connection both ways by its ports: its packets pass one by one, without an \
             entry in the flow table"
        }
        (None, _) if outcome.flags & OUTCOME_UNHEARD != 0 => {
            "The connection may begin; whether it may go on is decided by its first bytes, which rules with \
             signatures ask for"
        }
        (None, _) => "Every persona that the packet concerns allows it",
    };
    let mut rules = Vec::new();
    for side in sides(outcome) {
        rules.extend(rule(maps, snapshot, outcome, side, reason)?);
    }
    let name = |segment: u32| persona(snapshot, segment).map(|persona| persona.definition.name.clone());
    let [first, other] = outcome.segment;
    // Index 0 is the side that opened the connection; a reply comes from the other.
    let (sender, receiver) = if outcome.direction == 0 { (first, other) } else { (other, first) };
    Ok(Answer {
        verdict: verdict.into(),
        reason: reason.map(|reason| reason.name().to_owned()),
        explanation: explanation.into(),
        source_persona: name(sender),
        target_persona: name(receiver),
        rules,
        established,
        port: String::new(),
        leaves_by: None,
    })
}

/// What rules refuse packets for, quarantine apart.
const BY_RULES: [Reason; 6] = [
    Reason::RuleDeny,
    Reason::RuleReject,
    Reason::DefaultDeny,
    Reason::Protocol,
    Reason::RateLimit,
    Reason::ConnectionLimit,
];

/// The sides whose rules were asked, sender of the packet first.
fn sides(outcome: &Outcome) -> impl Iterator<Item = usize> {
    let refused_by = (outcome.verdict == VERDICT_DROP).then_some(outcome.blame_direction);
    let quarantined_by_rule = outcome.rule != [RULE_NONE; 2] && outcome.reason == Reason::Quarantine as u32;
    let by_rules = BY_RULES.iter().any(|reason| *reason as u32 == outcome.reason) || quarantined_by_rule;
    let between = outcome.reason == Reason::InterPersona as u32;
    let [first, other] = outcome.segment.map(|segment| segment != 0);
    let asked = match refused_by {
        None if outcome.verdict == VERDICT_SKIP => [false, false],
        None => [first, other],
        // From the members of the first side: that one was asked first.
        Some(1) => [first && by_rules, false],
        Some(_) => [first && (by_rules || between), other && by_rules],
    };
    let order = if outcome.direction == 0 { [0, 1] } else { [1, 0] };
    order.into_iter().filter(move |side| asked.get(*side).copied().unwrap_or_default())
}

/// What one side's rules said; nothing if the policy changed meanwhile, or if only its protocols refused.
fn rule(
    maps: &Maps,
    snapshot: &Snapshot,
    outcome: &Outcome,
    side: usize,
    reason: Option<Reason>,
) -> Result<Option<AnswerRule>, ReadError> {
    let of_side = |pair: &[u32; 2]| pair.get(side).copied().unwrap_or_default();
    let (segment, slot) = (of_side(&outcome.segment), of_side(&outcome.rule));
    let Some(persona) = persona(snapshot, segment) else { return Ok(None) };
    let Some(policy) = maps.slots.policy(of_side(&outcome.policy))? else { return Ok(None) };
    // A refusal ends the questioning, so it is the last side's that was asked.
    let refused = reason.is_some() && (outcome.blame_direction == 1) == (side == 0);
    if refused && reason == Some(Reason::Protocol) {
        return Ok(None);
    }
    let (position, text) = if slot == RULE_NONE {
        (None, default_words(&policy, !refused).to_owned())
    } else {
        let Some(rule) = maps.slots.rule(&policy, slot)? else { return Ok(None) };
        ((rule.index != SYNTHETIC && !is_baseline(&rule)).then_some(rule.index), words(&rule))
    };
    let would = of_side(&outcome.would);
    Ok(Some(AnswerRule {
        persona: persona.definition.name.clone(),
        direction: direction(side == 0).to_owned(),
        rule: position,
        written: if text.starts_with(BASELINE) { CONFIG.to_owned() } else { written(persona, position) },
        text,
        would_drop: Reason::from_number(would).map(|reason| reason.name().to_owned()),
    }))
}

/// Where a rule was written; where the persona was, if it is no rule of a document.
fn written(persona: &PersonaView, position: Option<u16>) -> String {
    let rule = position.and_then(|position| persona.rule_sources.get(usize::from(position)));
    match (rule, &persona.origin) {
        (Some(rule), _) => rule.clone(),
        (None, Origin::File { path, line }) => format!("{}:{line}", path.display()),
        (None, Origin::Api) => "api".to_owned(),
        (None, Origin::Interface) => "interface".to_owned(),
    }
}
