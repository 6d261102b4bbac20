//! Templates: fields that several personas have in common.
//!
//! A template is written like a persona with `kind: template`, without an absolute end and without prefixes of
//! its own. A persona that names one takes every field that it does not have itself; from then on it is whole,
//! and the template forgotten.

use std::collections::BTreeMap;

use serde_json::Value;

use super::parts::OneOrMany;
use super::persona::{PersonaDocument, PersonaKind};
use crate::command::Problem;
use crate::model::persona::Persona;

/// Templates by name.
pub type Templates = BTreeMap<String, PersonaDocument>;

/// What a persona gets that names no range, and whose template names none.
const RANGE: &str = "auto";

/// Whether a document is a template.
pub fn is_template(document: &PersonaDocument) -> bool {
    document.kind == Some(PersonaKind::Template)
}

/// Checks a template: what it says must be right by itself.
pub fn check(document: &PersonaDocument) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (pointer, is_there) in
        [("/expiration", document.expiration.is_some()), ("/template", document.template.is_some())]
    {
        if is_there {
            let field = pointer.trim_start_matches('/');
            problems.push(Problem::new(pointer, format!("a template has no `{field}`: leave it out")));
        }
    }
    let given = document.ip_range.pointed("/ip_range").filter(|(_, range)| !range.starts_with(RANGE));
    problems.extend(given.map(|(pointer, range)| {
        Problem::new(pointer, format!("range `{range}`: a template has no range of its own; use `auto`"))
    }));
    if problems.is_empty()
        && let Err(found) = Persona::new(&ranged(document.clone()))
    {
        problems = found;
    }
    problems
}

/// A persona with what its template adds; as it is, if there is no such template.
#[expect(clippy::missing_panics_doc, reason = "fields of two documents make a document")]
pub fn whole(document: PersonaDocument, templates: &Templates) -> PersonaDocument {
    let Some(template) = document.template.as_ref().and_then(|name| templates.get(name)) else {
        return document;
    };
    let fields = |document: &PersonaDocument| match serde_json::to_value(document) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (mut merged, mut own) = (fields(template), fields(&document));
    if document.ip_range.as_slice().is_empty() {
        own.remove("ip_range");
    }
    // One end takes the place of the other.
    if document.expiration.is_some() {
        merged.remove("ttl");
    }
    own.remove("template");
    merged.remove("kind");
    merged.extend(own);
    let whole = serde_json::from_value(Value::Object(merged));
    ranged(whole.expect("fields of two documents make a document"))
}

fn ranged(document: PersonaDocument) -> PersonaDocument {
    if !document.ip_range.as_slice().is_empty() {
        return document;
    }
    PersonaDocument { ip_range: OneOrMany::One(RANGE.to_owned()), ..document }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document(value: Value) -> PersonaDocument {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn own_fields_come_before_those_of_the_template() {
        let template = document(json!({"kind": "template", "name": "dev", "ttl": "4h", "strict": true,
            "protocols": ["tcp"], "labels": {"team": "qa"}}));
        let templates = Templates::from([("dev".to_owned(), template)]);
        let made = |value| serde_json::to_value(whole(document(value), &templates)).unwrap();
        let plain = json!({"name": "a", "ip_range": "auto", "ttl": "4h", "strict": true,
            "protocols": ["tcp"], "labels": {"team": "qa"}});
        assert_eq!(made(json!({"name": "a", "template": "dev"})), plain);
        let own = json!({"kind": "persona", "name": "a", "template": "dev", "ip_range": ["10.1.0.0/24"],
            "strict": false, "expiration": "2030-01-01T00:00:00Z"});
        let wanted = json!({"kind": "persona", "name": "a", "ip_range": ["10.1.0.0/24"], "strict": false,
            "expiration": "2030-01-01T00:00:00Z", "protocols": ["tcp"], "labels": {"team": "qa"}});
        assert_eq!(made(own), wanted);
        let unknown = document(json!({"name": "a", "template": "prod"}));
        assert_eq!(whole(unknown.clone(), &templates), unknown);
    }

    #[test]
    fn a_template_is_checked_by_itself() {
        let pointers = |value| check(&document(value)).into_iter().map(|p| p.pointer).collect::<Vec<_>>();
        assert!(pointers(json!({"kind": "template", "name": "dev", "ttl": "4h"})).is_empty());
        assert!(pointers(json!({"kind": "template", "name": "dev", "ip_range": "auto/26"})).is_empty());
        let wrong = json!({"kind": "template", "name": "dev", "expiration": "2030-01-01T00:00:00Z",
            "ip_range": ["auto", "10.1.0.0/24"], "template": "x"});
        assert_eq!(pointers(wrong), ["/expiration", "/template", "/ip_range/1"]);
        assert_eq!(pointers(json!({"kind": "template", "name": "dev", "mtu": 9})), ["/mtu"]);
    }
}
