//! Placeholders in a personality: `{interface}` stands for the name of a record, `{label:KEY}` for what its label
//! says, so that one personality is of use to several interfaces.
//!
//! They may be in any text but the name and the labels. What depends on them is checked where an interface is
//! known: by everything that a personality without them is checked by.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::command::Problem;
use crate::document::personality::PersonalityDocument;
use crate::document::read::escape;
use crate::model::problems::Problems;

/// Stands for the name of the record.
const INTERFACE: &str = "{interface}";
/// Begins one that stands for a label, whose name goes up to the next `}`.
const LABEL: &str = "{label:";

/// Fields that have none.
const PLAIN: [&str; 3] = ["name", "kind", "labels"];

/// Pointers of the texts with placeholders. One without a label's name is a problem.
pub(super) fn places(problems: &mut Problems, document: &PersonalityDocument) -> BTreeSet<String> {
    let mut places = BTreeSet::new();
    let mut value = serde_json::to_value(document).unwrap_or_default();
    each_text(&mut value, "", &mut |text, pointer| {
        let labels = labels(text);
        if text.contains(INTERFACE) || !labels.is_empty() {
            places.insert(pointer.to_owned());
        }
        if labels.iter().any(String::is_empty) {
            problems.add(pointer, "a placeholder names no label: use {label:KEY}");
        }
    });
    places
}

/// Whether a problem is about a text with placeholders, or may be because of one.
pub(super) fn is_open(places: &BTreeSet<String>, problem: &Problem) -> bool {
    let pointer = problem.pointer.as_str();
    let is_in = |outer: &str, inner: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let addressed = places.iter().any(|place| place.starts_with("/ip_addresses/"));
    places.iter().any(|place| is_in(pointer, place) || is_in(place, pointer))
        || (addressed && pointer.starts_with("/routing_table/") && pointer.ends_with("/source"))
}

/// Fills in what an interface says. Problems point into its record.
pub(super) fn filled(
    document: &PersonalityDocument,
    interface: &str,
    labels_of: &BTreeMap<String, String>,
) -> Result<PersonalityDocument, Vec<Problem>> {
    let mut problems = Problems::default();
    let mut value = serde_json::to_value(document).unwrap_or_default();
    each_text(&mut value, "", &mut |text, pointer| {
        let mut written = text.replace(INTERFACE, interface);
        for label in labels(text) {
            if let Some(held) = labels_of.get(&label) {
                written = written.replace(&format!("{LABEL}{label}}}"), held);
            } else {
                let detail = format!("label `{label}` is missing: {pointer} of the personality needs it");
                problems.add(format!("/labels/{}", escape(&label)), detail);
            }
        }
        *text = written;
    });
    let read = serde_json::from_value(value);
    let filled = problems.take("", read);
    match filled {
        Some(filled) => problems.settle(filled),
        None => Err(problems.into_vec()),
    }
}

/// Names of the labels that a text asks for.
fn labels(text: &str) -> Vec<String> {
    let ends = text.split(LABEL).skip(1).filter_map(|rest| rest.split_once('}'));
    ends.map(|(label, _)| label.to_owned()).collect()
}

fn each_text(value: &mut Value, pointer: &str, each: &mut impl FnMut(&mut String, &str)) {
    match value {
        Value::String(text) => each(text, pointer),
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                each_text(item, &format!("{pointer}/{index}"), each);
            }
        }
        Value::Object(fields) => {
            let is_plain = |name: &str| pointer.is_empty() && PLAIN.contains(&name);
            for (name, field) in fields.iter_mut().filter(|(name, _)| !is_plain(name)) {
                each_text(field, &format!("{pointer}/{}", escape(name)), each);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
