//! Lint: rules that are legal, but probably not meant.

use super::shaping;
use crate::compile;
use crate::document::persona::DefaultActionDocument;
use crate::document::rule::{DirectionDocument, RuleDocument};
use crate::model::expiry::Expiry;
use crate::model::persona::Persona;
use crate::model::policy::Action;
use crate::model::protocol::{self, Protocol, ProtocolSet};
use crate::model::rule::{Direction, Rule};

/// Warnings about a persona's rules, in the order of the rules, which count from 0 as everywhere.
pub fn warnings(persona: &Persona, written: &[RuleDocument]) -> Vec<String> {
    let rules = &persona.rules.rules;
    let mut warnings = Vec::new();
    for (position, rule) in rules.iter().enumerate() {
        let name = title(position, written.get(position));
        if rule.protocols().without(&persona.rules.permitted) == rule.protocols() {
            let listed = named(rule.protocols());
            warnings.push(format!("{name} never matches: protocols does not permit {listed}"));
            continue;
        }
        let earlier = rules.iter().take(position);
        if let Some(cover) = earlier.into_iter().find(|earlier| decides(earlier) && covers(earlier, rule)) {
            warnings.push(format!("{name} never decides: rule {} matches all it matches", cover.index()));
        } else if redundant(persona, rule) {
            warnings.push(format!("{name} is shadowed by the default: without it the outcome is the same"));
        }
    }
    for direction in Direction::ALL {
        warnings.extend(unreachable(persona, direction));
    }
    warnings.extend(shaping::warnings(persona));
    warnings
}

fn title(position: usize, written: Option<&RuleDocument>) -> String {
    match written.and_then(|rule| rule.name.as_ref()) {
        Some(name) => format!("rule {position} ({name})"),
        None => format!("rule {position}"),
    }
}

fn named(set: ProtocolSet) -> String {
    set.iter().map(protocol::name).collect::<Vec<_>>().join(", ")
}

fn decides(rule: &Rule) -> bool {
    rule.action().decides()
}

fn allows(rule: &Rule) -> bool {
    matches!(rule.action(), Action::Allow | Action::RateLimit)
}

/// Whether every packet that `inner` matches is matched by `outer`. May say no where it is so. Asked of every pair of
/// rules: what is quick to say, and mostly no, comes first.
fn covers(outer: &Rule, inner: &Rule) -> bool {
    let directions = outer.direction() == DirectionDocument::Both || outer.direction() == inner.direction();
    directions
        && within(inner.ports(), outer.ports(), |inner, outer| outer.covers(*inner))
        && within(inner.source_ports(), outer.source_ports(), |inner, outer| outer.covers(*inner))
        && within(inner.sources(), outer.sources(), |inner, outer| outer.contains(inner))
        && within(inner.targets(), outer.targets(), |inner, outer| outer.contains(inner))
        && (outer.icmp_type().is_none() || outer.icmp_type() == inner.icmp_type())
        && (outer.icmp_code().is_none() || outer.icmp_code() == inner.icmp_code())
        && lasts(outer)
        && covers_protocols(outer, inner)
        && match (outer.tcp_flags(), inner.tcp_flags()) {
            (None, _) => true,
            (Some(outer), Some(inner)) => outer.covers(inner),
            (Some(_), None) => false,
        }
}

/// Whether a rule matches the same for ever: what a set holds changes, and what ends leaves the rest to others.
fn lasts(rule: &Rule) -> bool {
    rule.source_sets().is_empty() && rule.target_sets().is_empty() && rule.expiry() == Expiry::Never
}

fn covers_protocols(outer: &Rule, inner: &Rule) -> bool {
    match (outer.protocol(), inner.protocol()) {
        // A number alone says nothing of the family.
        (Protocol::Icmp, Protocol::Number(_)) => false,
        _ => inner.protocols().without(&outer.protocols()) == ProtocolSet::NONE,
    }
}

/// Whether each of `inner` is inside one of `outer`, where an empty list is everything.
fn within<T>(inner: &[T], outer: &[T], inside: impl Fn(&T, &T) -> bool) -> bool {
    outer.is_empty()
        || (!inner.is_empty() && inner.iter().all(|inner| outer.iter().any(|outer| inside(inner, outer))))
}

/// Whether the default would do the same to all that a rule matches, no later rule of another action being
/// in between.
fn redundant(persona: &Persona, rule: &Rule) -> bool {
    let refusal = match persona.rules.default_action {
        DefaultActionDocument::Deny => Action::Deny,
        DefaultActionDocument::Reject => Action::Reject,
    };
    if rule.action() != refusal || rule.logs() {
        return false;
    }
    let later = persona.rules.rules.iter().skip(usize::from(rule.index()) + 1);
    let shared = |other: &Rule| Direction::ALL.iter().any(|way| other.applies(*way) && rule.applies(*way));
    let meets = |other: &Rule| other.protocols().without(&rule.protocols()) != other.protocols();
    if later.into_iter().any(|other| shared(other) && meets(other) && other.action() != refusal) {
        return false;
    }
    // It must not be the rule that makes the default apply to its protocols.
    Direction::ALL.into_iter().filter(|way| rule.applies(*way)).all(|way| {
        let others = persona.rules.rules.iter().filter(|other| other.index() != rule.index());
        let speaking = others.filter(|other| other.applies(way) && decides(other));
        let left = speaking.fold(rule.protocols(), |left, other| left.without(&other.protocols()));
        let permitted = left.without(&left.without(&persona.rules.permitted));
        persona.rules.strict || permitted == ProtocolSet::NONE
    })
}

/// Permitted protocols of which no packet can pass in a direction.
fn unreachable(persona: &Persona, direction: Direction) -> Option<String> {
    let passing = compile::default(persona, direction);
    let allowing = persona.rules.rules.iter().filter(|rule| rule.applies(direction) && allows(rule));
    let closed = allowing
        .fold(persona.rules.permitted.without(&passing), |left, rule| left.without(&rule.protocols()));
    // With every protocol permitted, the list would not be read.
    if closed == ProtocolSet::NONE || closed.iter().count() > 16 {
        return None;
    }
    Some(format!("{} is permitted, but no {} rule allows it", named(closed), direction.name()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::document::read::persona_from_value;

    fn lint(protocols: &Value, rules: &Value) -> Vec<String> {
        let document = json!({
            "name": "a", "ip_range": "10.1.0.0/24", "protocols": protocols, "security_policies": rules
        });
        let document = persona_from_value(document).unwrap();
        let persona = Persona::new(&document).unwrap();
        warnings(&persona, document.security_policies.as_deref().unwrap())
    }

    #[test]
    fn a_rule_behind_a_wider_one_is_named() {
        let found = lint(
            &json!(["tcp"]),
            &json!([
                {"protocol": "tcp", "port": "1-1023", "source": "10.0.0.0/8", "action": "deny"},
                {"protocol": "tcp", "port": [22, 80], "source": "10.2.0.0/16", "action": "allow", "name": "ssh"},
                {"protocol": "tcp", "port": [22, 8080], "source": "10.2.0.0/16", "action": "allow"},
                {"direction": "egress", "protocol": "tcp", "port": 22, "source": "10.2.0.0/16", "action": "allow"},
            ]),
        );
        assert_eq!(found, ["rule 1 (ssh) never decides: rule 0 matches all it matches"]);
    }

    #[test]
    fn a_rule_that_ends_covers_nothing_for_good() {
        let found = lint(
            &json!(["tcp"]),
            &json!([
                {"protocol": "tcp", "action": "deny", "ttl": "1h"},
                {"protocol": "tcp", "port": 80, "action": "allow"},
            ]),
        );
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn what_the_default_does_anyway_is_named() {
        let allow = json!({"protocol": "tcp", "port": 80, "action": "allow"});
        let deny = json!({"protocol": "tcp", "port": 22, "action": "deny"});
        let found = lint(&json!(["tcp"]), &json!([allow, deny]));
        assert_eq!(found, ["rule 1 is shadowed by the default: without it the outcome is the same"]);
        let exception = json!([{"protocol": "tcp", "source": "10.9.0.0/16", "action": "deny"}, allow]);
        assert!(lint(&json!(["tcp"]), &exception).is_empty(), "it keeps the later rule from some");
    }

    #[test]
    fn a_denial_that_turns_the_default_is_named() {
        let found = lint(&json!(["tcp", "udp"]), &json!([{"protocol": "tcp", "port": 22, "action": "deny"}]));
        assert_eq!(found, ["tcp is permitted, but no ingress rule allows it"]);
    }

    #[test]
    fn a_rule_above_the_ceiling_is_named() {
        let found = lint(&json!(["tcp"]), &json!([{"protocol": "udp", "action": "allow"}]));
        assert_eq!(found, ["rule 0 never matches: protocols does not permit udp"]);
        assert!(lint(&json!(["tcp"]), &json!([{"port": 80, "action": "allow"}])).is_empty());
    }
}
