//! Alerts of rules with `action: alert`: firing while a packet matched within the last minute.

use std::time::Duration;

use super::{ALERTS, Alert};
use crate::document::alert::{MetricDocument, OpDocument};
use crate::document::persona::PersonaDocument;
use crate::document::rule::RuleDocument;
use crate::model::persona::rules;
use crate::model::policy::Action;
use crate::model::problems::Problems;
use crate::model::rule::Rule;

/// What a persona is watched for whose definition was admitted.
pub fn of_persona(document: &PersonaDocument) -> Vec<Alert> {
    // What was wrong would not have been admitted.
    let mut problems = Problems::default();
    let mut alerts = Alert::list(&mut problems, "", document.alerts.as_deref().unwrap_or_default());
    let written = document.security_policies.as_deref().unwrap_or_default();
    if written.iter().any(|rule| rule.action == Action::Alert) {
        let rules = rules(&mut problems, document);
        alerts.extend(of_rules(&mut problems, ("", "rule"), written, &rules, &alerts));
    }
    alerts
}

/// The alerts of a list of checked rules; problems point below `base`. Each is called as its rule, or by the list and
/// the rule's position, and none as another one of `alerts`.
pub fn of_rules(
    problems: &mut Problems,
    (base, list): (&str, &str),
    written: &[RuleDocument],
    rules: &[Rule],
    alerts: &[Alert],
) -> Vec<Alert> {
    let mut found: Vec<Alert> = Vec::new();
    for rule in rules.iter().filter(|rule| rule.action() == Action::Alert) {
        let index = rule.index();
        let given = written.get(usize::from(index)).and_then(|rule| rule.name.clone());
        let name = given.unwrap_or_else(|| format!("{list}-{index}"));
        if alerts.iter().chain(&found).any(|other| other.name == name) {
            let detail = format!("there is another alert `{name}`: give the rule a name of its own");
            problems.add(format!("{base}/{index}/name"), detail);
        }
        found.push(Alert {
            name,
            metric: MetricDocument::RuleHits,
            of: Some(index.to_string()),
            rule: Some(rule.identity()),
            op: OpDocument::Above,
            value: 0.0,
            clear: 0.0,
            lasting: Duration::ZERO,
        });
    }
    if found.len() > ALERTS {
        problems.add(base, format!("{} rules with `action: alert`: use at most {ALERTS}", found.len()));
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::document::read::persona_from_value;

    fn document(rules: &Value) -> Value {
        json!({
            "name": "a", "ip_range": "10.1.0.0/24", "security_policies": rules,
            "alerts": [{"name": "busy", "metric": "flows", "value": 5}],
        })
    }

    fn problems(rules: &Value) -> Vec<String> {
        let found = persona_from_value(document(rules)).unwrap_err();
        found.iter().map(|problem| format!("{} {}", problem.pointer, problem.detail)).collect()
    }

    #[test]
    fn a_rule_is_called_by_its_name_or_its_place() {
        let rules = json!([
            {"protocol": "tcp", "port": 23, "action": "alert"},
            {"protocol": "tcp", "port": 80, "action": "allow"},
            {"name": "telnet", "protocol": "tcp", "port": 23, "action": "alert"},
        ]);
        let alerts = of_persona(&persona_from_value(document(&rules)).unwrap());
        let found: Vec<_> = alerts.iter().map(|alert| (alert.name.as_str(), alert.of.as_deref())).collect();
        assert_eq!(found, [("busy", None), ("rule-0", Some("0")), ("telnet", Some("2"))]);
        let [_, first, second] = &alerts[..] else { panic!("three") };
        assert!(first.rule.is_some() && second.rule.is_some() && first.rule != second.rule);
        let moved = json!([rules[1], rules[2], rules[0]]);
        let again = of_persona(&persona_from_value(document(&moved)).unwrap());
        assert_eq!((again[1].rule, again[1].of.as_deref()), (second.rule, Some("1")));
    }

    #[test]
    fn names_are_unique_and_rules_not_too_many() {
        let named = |name: &str| json!({"name": name, "protocol": "tcp", "port": 23, "action": "alert"});
        let found = problems(&json!([named("busy"), named("b"), named("b"), named("rule-4"),
            {"protocol": "tcp", "action": "alert"}]));
        let pointers: Vec<&str> = found.iter().filter_map(|text| text.split(' ').next()).collect();
        let wanted = ["/security_policies/0/name", "/security_policies/2/name", "/security_policies/4/name"];
        assert_eq!(pointers, wanted, "{found:?}");
        let many: Vec<Value> = (0..=ALERTS).map(|number| named(&format!("r{number}"))).collect();
        let found = problems(&json!(many));
        assert!(
            found[0].starts_with("/security_policies 33 rules with `action: alert`: use at most 32"),
            "{found:?}"
        );
        assert!(persona_from_value(document(&json!(many[1..]))).is_ok());
    }
}
