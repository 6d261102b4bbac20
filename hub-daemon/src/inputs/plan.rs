//! Compares documents with what the hub holds, field by field. Pure: reads and changes nothing.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::command::FileDocument;
use crate::document::read::escape;
use crate::inputs::reload::{Change, ChangeAction, FieldChange};
use crate::view::{Origin, PersonaState, PersonaView, Snapshot};

/// What would change if these were all the documents. Personas made by the API are left out: documents
/// neither change nor remove them.
pub fn changes(snapshot: &Snapshot, documents: &[FileDocument]) -> Vec<Change> {
    let held: BTreeMap<&str, &PersonaView> = snapshot
        .personas
        .values()
        .filter(|persona| matches!(persona.origin, Origin::File { .. }))
        .filter(|persona| persona.state != PersonaState::Expired)
        .map(|persona| (persona.definition.name.as_str(), &**persona))
        .collect();
    let wanted: BTreeMap<&str, &FileDocument> =
        documents.iter().map(|document| (document.document.name.as_str(), document)).collect();

    let mut changes = Vec::new();
    for (name, document) in &wanted {
        match held.get(name) {
            None => changes.push(change(name, ChangeAction::Create, Some(document), Vec::new())),
            Some(persona) => {
                let fields = field_changes(&json(&persona.definition), &json(&document.document));
                if !fields.is_empty() {
                    changes.push(change(name, ChangeAction::Update, Some(document), fields));
                }
            }
        }
    }
    for name in held.keys().filter(|name| !wanted.contains_key(*name)) {
        changes.push(change(name, ChangeAction::Delete, None, Vec::new()));
    }
    changes.sort_by(|a, b| a.persona.cmp(&b.persona));
    changes
}

fn change(
    name: &str,
    action: ChangeAction,
    document: Option<&&FileDocument>,
    fields: Vec<FieldChange>,
) -> Change {
    let written = document.map(|document| format!("{}:{}", document.path.display(), document.line));
    Change { persona: name.to_owned(), action, written, fields }
}

fn json(definition: &impl serde::Serialize) -> Value {
    serde_json::to_value(definition).unwrap_or_default()
}

/// The fields in which two values differ, in the order of the first. Lists of equal length are compared
/// element by element, others as a whole.
pub fn field_changes(old: &Value, new: &Value) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    compare(String::new(), Some(old), Some(new), &mut changes);
    changes
}

fn compare(pointer: String, old: Option<&Value>, new: Option<&Value>, changes: &mut Vec<FieldChange>) {
    let present = |value: &&Value| !value.is_null();
    let (old, new) = (old.filter(present), new.filter(present));
    if old == new {
        return;
    }
    match (old, new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let added = new.keys().filter(|key| !old.contains_key(*key));
            for key in old.keys().chain(added) {
                let pointer = format!("{pointer}/{}", escape(key));
                compare(pointer, old.get(key), new.get(key), changes);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) if old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                compare(format!("{pointer}/{index}"), Some(old), Some(new), changes);
            }
        }
        _ => changes.push(FieldChange { pointer, old: old.cloned(), new: new.cloned() }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_differs_is_listed() {
        let old = json!({"name": "a", "ttl": "1h", "rules": [{"port": 80}, {"port": 22}], "a/b": 1});
        let new = json!({"name": "a", "ttl": null, "rules": [{"port": 80}, {"port": 23}], "a/b": 2, "x": []});
        let pointers: Vec<_> = field_changes(&old, &new).into_iter().map(|c| c.pointer).collect();
        assert_eq!(pointers, ["/ttl", "/rules/1/port", "/a~1b", "/x"]);
    }

    #[test]
    fn lists_of_other_length_are_one_change() {
        let changes = field_changes(&json!({"r": [1, 2]}), &json!({"r": [1]}));
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].new, Some(json!([1])));
    }

    #[test]
    fn equal_values_have_no_changes() {
        let value = json!({"r": [1, {"a": null}]});
        assert!(field_changes(&value, &json!({"r": [1, {}]})).is_empty());
    }
}
