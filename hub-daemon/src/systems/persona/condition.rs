//! Things to know about a persona that are no errors: computed, never stored.

use ipnet::IpNet;
use jiff::Timestamp;

use crate::document::persona::EnforcementDocument;

use super::place::Placement;
use super::{Life, Record};
use crate::model::node;
use crate::view::{Condition, OverriddenView, PersonaState};

/// Looks a persona up by name or id.
pub type Find<'a> = dyn Fn(&str) -> Option<&'a Record> + 'a;

/// State shown to the outside.
pub fn state(record: &Record, now: Timestamp) -> PersonaState {
    if !record.is_live(now) {
        return PersonaState::Expired;
    }
    if record.leaving.is_some() {
        return PersonaState::Deleting;
    }
    if record.is_past_deadline(now) {
        return PersonaState::Expiring;
    }
    match record.life {
        Life::Provisioning if !record.is_taken_up => PersonaState::Pending,
        Life::Provisioning => PersonaState::Provisioning,
        Life::Active => PersonaState::Active,
        Life::Failed { .. } => PersonaState::Failed,
        Life::Elsewhere => PersonaState::Elsewhere,
        Life::Expired { .. } => PersonaState::Expired,
    }
}

/// Which of its ranges others took, who, and until when.
pub fn overridden(record: &Record, find: &Find<'_>) -> Vec<OverriddenView> {
    let taken = record.overridden.iter().filter(|_| record.has_not_ended());
    let pairs = taken.flat_map(|(range, takers)| takers.iter().map(|id| (*range, id)));
    let takers = pairs.filter_map(|(range, id)| Some((range, find(&id.0)?)));
    let view = |(range, taker): (IpNet, &Record)| OverriddenView {
        range,
        by: taker.persona.name().to_owned(),
        until: taker.over_at(),
    };
    takers.map(view).collect()
}

/// Conditions of a persona.
pub fn conditions(record: &Record, placement: &Placement, find: &Find<'_>, now: Timestamp) -> Vec<Condition> {
    let mut conditions = Vec::new();
    let mut add = |reason: &str, message: String| {
        conditions.push(Condition { reason: reason.to_owned(), message });
    };
    if !record.is_live(now) {
        let message = "its deadline has passed; a persona that ended never comes back".to_owned();
        add("Expired", message);
        return conditions;
    }
    if let Some((reason, end)) = record.ending(now) {
        add(reason, format!("its end is near: {end}"));
    }
    if let Some(end) = record.leaving {
        add("Deleting", format!("it takes no new connections and is deleted at {end}"));
    }
    if record.life == Life::Elsewhere {
        add("Elsewhere", format!("{}: nothing of it is in this kernel", node::whereabouts(&record.document)));
        return conditions;
    }
    for (reason, message) in &placement.qos {
        add(reason, message.clone());
    }
    if let Some(late) = record.late {
        let message = format!(
            "95 of a hundred TCP handshakes of the last minute took up to {}ms, longer than its latency",
            late.as_millis()
        );
        add("LatencyExceeded", message);
    }
    if !record.warnings.is_empty() {
        add("RulesDoubtful", record.warnings.join("; "));
    }
    match record.persona.enforcement() {
        EnforcementDocument::Enforce => {}
        EnforcementDocument::Audit => {
            add("Audit", "rules only count: what they would drop passes (`enforcement: audit`)".to_owned());
        }
        EnforcementDocument::Off => {
            add("NotEnforced", "rules are not asked (`enforcement: off`)".to_owned());
        }
    }
    for rule in record.persona.rules() {
        if let Some(end) = record.rule_ends.get(&rule.identity()).filter(|end| **end <= now) {
            add("RuleExpired", format!("rule {} ended at {end}", rule.index()));
        }
    }
    for taken in overridden(record, find) {
        let until = taken.until.map_or_else(|| "it ends".to_owned(), |end| end.to_string());
        let instead = record.virtuals.main(&taken.range);
        let message = format!(
            "persona `{}` has its range {} until {until}: others reach it by {instead} as long",
            taken.by, taken.range
        );
        add("Overridden", message);
    }
    if record.has_stepped_back() {
        let message = "the kernel refused it while it had taken its range, which went back to whoever had it before: \
                       others reach it by a virtual one; replace its definition to have it take the range again";
        add("SteppedBack", message.to_owned());
    }
    if placement.no_port {
        let message = "no interfaces, no endpoints, and not exactly one segment interface in hub.yaml: \
                       packets to its range are dropped";
        add("NoPort", message.to_owned());
    }
    for name in &placement.missing {
        add("InterfaceMissing", format!("interface `{name}` does not exist: its packets are dropped"));
    }
    for name in &placement.down {
        add("InterfaceDown", format!("interface `{name}` is down: its packets are dropped"));
    }
    for peer in record.persona.peers() {
        match find(peer) {
            None => add("PeerMissing", format!("there is no persona `{peer}`")),
            Some(other) if !other.persona.peers().contains(record.persona.name()) => {
                add("PeerNotMutual", format!("persona `{peer}` does not name this one as its peer"));
            }
            Some(_) => {}
        }
    }
    for used in record.persona.uses() {
        let name = format!("{}/{}", used.host, used.service);
        match find(&used.host) {
            None => add("ServiceMissing", format!("there is no persona `{}` to use `{name}` of", used.host)),
            Some(host) if !host.persona.services().iter().any(|service| service.name == used.service) => {
                add("ServiceMissing", format!("persona `{}` does not expose `{}`", used.host, used.service));
            }
            Some(_) => {}
        }
    }
    for fault in &record.faults {
        add("Fault", fault.clone());
    }
    conditions
}
