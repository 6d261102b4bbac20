//! JSON to a document, with every error and not only the first.
//!
//! Serde stops at the first error. So the offending value is taken out and the rest read again, until
//! nothing is wrong or nothing more can be taken out; pointers keep speaking of the document as given.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};
use utoipa::PartialSchema;
use utoipa::openapi::{RefOr, Schema};

use crate::command::{Problem, Rejection, RejectionKind};
use crate::inputs::plan::escape;

/// Most errors listed; the rest is like them.
const ERRORS: usize = 64;

/// Why bytes are not a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Not JSON at all.
    Syntax(String),
    /// JSON, and not the document that was expected.
    Document(Rejection),
}

/// Reads a document. `T` refuses unknown fields itself.
///
/// # Errors
/// When the bytes are no JSON, or the JSON is no `T`: then with every problem found.
pub fn decode<T: DeserializeOwned + PartialSchema>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let first = match serde_path_to_error::deserialize::<_, T>(&mut reader) {
        Ok(document) => {
            reader.end().map_err(|error| DecodeError::Syntax(error.to_string()))?;
            return Ok(document);
        }
        Err(error) => error,
    };
    let value: Value =
        serde_json::from_slice(bytes).map_err(|error| DecodeError::Syntax(error.to_string()))?;
    let mut problems = problems::<T>(value);
    if problems.is_empty() {
        // Only the text shows it, as with a key that is given twice.
        problems.push(Problem::new(pointer_of(first.path()), first.inner().to_string()));
    }
    Err(DecodeError::Document(Rejection { kind: RejectionKind::Invalid, problems }))
}

/// Reads a value that was JSON already.
///
/// # Errors
/// When it is no `T`: every problem found.
pub(super) fn decode_value<T: DeserializeOwned + PartialSchema>(value: Value) -> Result<T, Rejection> {
    match serde_json::from_value(value.clone()) {
        Ok(document) => Ok(document),
        Err(error) => {
            let mut problems = problems::<T>(value);
            if problems.is_empty() {
                problems.push(Problem::new("", error.to_string()));
            }
            Err(Rejection { kind: RejectionKind::Invalid, problems })
        }
    }
}

fn problems<T: DeserializeOwned + PartialSchema>(mut value: Value) -> Vec<Problem> {
    let mut problems: Vec<Problem> = missing_fields::<T>(&value);
    let mut removed = Removed::default();
    while problems.len() < ERRORS {
        let Err(error) = serde_path_to_error::deserialize::<_, T>(&value) else { break };
        let message = error.inner().to_string();
        let steps = steps(error.path(), &message);
        let pointer = removed.original(&steps);
        let missing = quoted_after("missing field", &message);
        let pointer_named = match missing {
            Some(field) => format!("{pointer}/{}", escape(field)),
            None => pointer,
        };
        // A field that was taken out is missing only because of that.
        if !problems.iter().any(|known| known.pointer == pointer_named) {
            problems.push(Problem::new(pointer_named, message));
        }
        if !removed.take(&mut value, &steps) {
            break;
        }
    }
    problems
}

/// Required fields of the outermost object that are not there.
fn missing_fields<T: PartialSchema>(value: &Value) -> Vec<Problem> {
    let (RefOr::T(Schema::Object(schema)), Value::Object(given)) = (T::schema(), value) else {
        return Vec::new();
    };
    let missing = schema.required.iter().filter(|field| !given.contains_key(*field));
    missing
        .map(|field| Problem::new(format!("/{}", escape(field)), format!("missing field `{field}`")))
        .collect()
}

/// One step into a JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

fn steps(path: &Path, message: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = path
        .iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Enum { variant } => Some(Step::Key(variant.clone())),
            Segment::Unknown => None,
        })
        .collect();
    if let Some(field) = quoted_after("unknown field", message) {
        let unknown = Step::Key(field.to_owned());
        if steps.last() != Some(&unknown) {
            steps.push(unknown);
        }
    }
    steps
}

fn pointer_of(path: &Path) -> String {
    Removed::default().original(&steps(path, ""))
}

/// The word in back quotes that follows `intro` at the start of a message of serde's.
fn quoted_after<'a>(intro: &str, message: &'a str) -> Option<&'a str> {
    message.strip_prefix(intro)?.trim_start().strip_prefix('`')?.split('`').next()
}

/// Elements taken out of lists, by pointer to the list as given.
#[derive(Debug, Default)]
struct Removed(BTreeMap<String, BTreeSet<usize>>);

impl Removed {
    /// Pointer into the document as given.
    fn original(&self, steps: &[Step]) -> String {
        let mut pointer = String::new();
        for step in steps {
            let step = match step {
                Step::Key(key) => escape(key),
                Step::Index(index) => self.index(&pointer, *index).to_string(),
            };
            pointer.push('/');
            pointer.push_str(&step);
        }
        pointer
    }

    fn index(&self, list: &str, mut index: usize) -> usize {
        for removed in self.0.get(list).into_iter().flatten() {
            index += usize::from(*removed <= index);
        }
        index
    }

    /// Takes the value at the end of `steps` out, or the nearest one around it that is there.
    fn take(&mut self, value: &mut Value, steps: &[Step]) -> bool {
        let mut steps = steps;
        while let Some((last, parents)) = steps.split_last() {
            let list = self.original(parents);
            let parent = parents.iter().try_fold(&mut *value, |value, step| match step {
                Step::Key(key) => value.get_mut(key),
                Step::Index(index) => value.get_mut(index),
            });
            match (parent, last) {
                (Some(Value::Object(fields)), Step::Key(key)) if fields.contains_key(key) => {
                    return fields.shift_remove(key).is_some();
                }
                (Some(Value::Array(elements)), Step::Index(index)) if *index < elements.len() => {
                    elements.remove(*index);
                    let original = self.index(&list, *index);
                    self.0.entry(list).or_default().insert(original);
                    return true;
                }
                _ => steps = parents,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use utoipa::ToSchema;

    use super::*;

    #[derive(Debug, Deserialize, ToSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read by serde")]
    struct Outer {
        name: String,
        size: u8,
        #[serde(default)]
        rules: Vec<Inner>,
        inner: Option<Inner>,
    }

    #[derive(Debug, Deserialize, ToSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read by serde")]
    struct Inner {
        port: u16,
        action: Action,
    }

    #[derive(Debug, Deserialize, ToSchema)]
    #[serde(rename_all = "lowercase")]
    enum Action {
        Allow,
    }

    fn pointers(text: &str) -> Vec<String> {
        match decode::<Outer>(text.as_bytes()) {
            Err(DecodeError::Document(rejection)) => {
                rejection.problems.into_iter().map(|problem| problem.pointer).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_error_is_listed_where_it_was_written() {
        let text = r#"{"name": 5, "size": 300, "colour": 1, "rules": [
            {"port": "x", "action": "allow"},
            {"port": 1, "action": "allow", "prot": 2},
            {"port": 2},
            {"port": 3, "action": "deny"}],
            "inner": {"port": 70000, "action": "allow", "a/b": null}}"#;
        let found: BTreeSet<_> = pointers(text).into_iter().collect();
        for wanted in [
            "/name",
            "/size",
            "/colour",
            "/rules/0/port",
            "/rules/1/prot",
            "/rules/2/action",
            "/rules/3/action",
            "/inner/port",
            "/inner/a~1b",
        ] {
            assert!(found.contains(wanted), "{wanted} in {found:?}");
        }
        assert!(!found.contains("/rules/4"), "{found:?}");
    }

    #[test]
    fn all_required_fields_are_named() {
        assert_eq!(pointers("{}"), ["/name", "/size"]);
    }

    #[test]
    fn a_key_given_twice_is_refused() {
        assert_eq!(pointers(r#"{"name": "a", "size": 1, "size": 2}"#), [""]);
    }

    #[test]
    fn another_type_altogether_is_one_error() {
        assert_eq!(pointers("[]"), [""]);
        assert_eq!(pointers("5"), [""]);
    }

    #[test]
    fn cut_off_text_is_a_syntax_error() {
        for text in ["", "{", r#"{"name": "a""#, r#"{"name": "a", "size": 1} x"#] {
            assert!(matches!(decode::<Outer>(text.as_bytes()), Err(DecodeError::Syntax(_))), "{text}");
        }
    }

    #[test]
    fn many_errors_end() {
        let rules = vec![r#"{"x": 1}"#; 500].join(",");
        let found = pointers(&format!(r#"{{"name": "a", "size": 1, "rules": [{rules}]}}"#));
        assert_eq!(found.len(), ERRORS);
    }
}
