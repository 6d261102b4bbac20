//! The hub's own rules, which come before every persona's.

use hub_common::limits::{BASELINE_PER_DIRECTION, BASELINE_RULES};

use super::alert::{Alert, of_rules};
use super::persona::tell_apart;
use super::policy::Action;
use super::problems::Problems;
use super::rule::{Direction, Rule};
use crate::compile;
use crate::document::hub::HubDocument;
use crate::document::parts::OneOrMany;
use crate::document::rule::RuleDocument;

/// Sets the identities of the hub's rules apart from those of personas.
const APART: u64 = 1 << 63;

/// Reads `baseline` of hub.yaml, and `alerts` with those of the rules.
pub(super) fn watched(problems: &mut Problems, document: &HubDocument) -> (Vec<Rule>, Vec<Alert>) {
    let rules = rules(problems, &document.baseline);
    let mut alerts = Alert::list(problems, "/alerts", &document.alerts);
    alerts.extend(of_rules(problems, ("/baseline", "baseline"), &document.baseline, &rules, &alerts));
    (rules, alerts)
}

fn rules(problems: &mut Problems, written: &[RuleDocument]) -> Vec<Rule> {
    if written.len() > BASELINE_RULES {
        problems.add("/baseline", format!("{} rules: use at most {BASELINE_RULES}", written.len()));
        return Vec::new();
    }
    let mut rules = Vec::with_capacity(written.len());
    for (index, document) in (0_u16..).zip(written) {
        match Rule::new("/baseline", index, document) {
            Ok(rule) => rules.push(rule),
            Err(found) => problems.extend(found),
        }
        let base = format!("/baseline/{index}");
        let texts = [("source", &document.source), ("destination", &document.destination)];
        for (field, list) in texts {
            let mut texts = list.iter().flat_map(OneOrMany::as_slice);
            if texts.any(|text| text.starts_with('@')) {
                problems.add(format!("{base}/{field}"), "sets belong to personas: use prefixes here");
            }
        }
        if document.ttl.is_some() && document.action != Action::Quarantine {
            let detail = "a ttl would begin again at each start: use `expires_at`";
            problems.add(format!("{base}/ttl"), detail);
        }
        if document.max_connections_per_source.is_some()
            && document.action == Action::Allow
            && document.is_final != Some(true)
        {
            let detail = "an allow of the hub that counts connections decides: add `final: true`";
            problems.add(format!("{base}/max_connections_per_source"), detail);
        }
        if document.signature.is_some() {
            problems
                .add(format!("{base}/signature"), "signatures belong to rules of personas: remove the field");
        }
        if document.is_final.is_some() && document.action != Action::Allow {
            problems.add(format!("{base}/final"), "only an allow may go on: remove the field");
        }
    }
    tell_apart(&mut rules);
    for rule in &mut rules {
        rule.set_apart(APART);
    }
    for direction in Direction::ALL {
        let count = compile::widest(&rules, direction);
        if count > BASELINE_PER_DIRECTION as usize {
            let detail = format!(
                "the {} rules become {count} after lists are expanded: use at most {BASELINE_PER_DIRECTION}",
                direction.name()
            );
            problems.add("/baseline", detail);
        }
    }
    rules
}
