//! JSON to a document, with every error and not only the first.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::command::{Problem, Rejection, RejectionKind};
use crate::document::persona::PersonaDocument;
use crate::document::read::Reading;

/// Why bytes are not a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DecodeError {
    /// Not JSON at all.
    Syntax(String),
    /// JSON, and not the document that was expected.
    Document(Rejection),
}

/// What is wrong with the end of a definition whose other parts may be wrong too.
pub(super) type Ends<'a> = dyn Fn(&PersonaDocument) -> Vec<Problem> + Send + Sync + 'a;

/// Reads a persona and checks what it says by itself.
pub(super) fn persona(bytes: &[u8], ends: &Ends<'_>) -> Result<PersonaDocument, DecodeError> {
    decode(bytes, |value| with_end(Reading::persona(value), ends))
}

/// Reads a persona whose hub may be left to choose.
pub(super) fn newcomer(bytes: &[u8], ends: &Ends<'_>) -> Result<PersonaDocument, DecodeError> {
    decode(bytes, |value| with_end(Reading::newcomer(value), ends))
}

/// Reads a persona that was JSON already.
pub(super) fn persona_from_value(value: Value, ends: &Ends<'_>) -> Result<PersonaDocument, Rejection> {
    document(with_end(Reading::persona(value), ends))
}

/// Where the hub will not be asked, what it would say of the end is said here.
fn with_end(mut reading: Reading<PersonaDocument>, ends: &Ends<'_>) -> Reading<PersonaDocument> {
    if !reading.problems.is_empty() {
        let wrong = reading.document.as_ref().map(ends);
        reading.add(wrong.unwrap_or_default());
    }
    reading
}

/// Reads something that refuses unknown fields itself.
pub(super) fn other<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    decode(bytes, Reading::new)
}

/// Reads something of a kind that is known.
pub(super) fn decode<T: DeserializeOwned>(
    bytes: &[u8],
    read: impl FnOnce(Value) -> Reading<T>,
) -> Result<T, DecodeError> {
    let syntax = |error: serde_json::Error| DecodeError::Syntax(error.to_string());
    let value: Value = serde_json::from_slice(bytes).map_err(syntax)?;
    let document = document(read(value)).map_err(DecodeError::Document)?;
    // Only the text still shows a key that is given twice.
    match serde_json::from_slice::<T>(bytes) {
        Ok(_) => Ok(document),
        Err(error) => Err(DecodeError::Document(refused(vec![Problem::new("", error.to_string())]))),
    }
}

fn document<T>(reading: Reading<T>) -> Result<T, Rejection> {
    match reading.document {
        Some(document) if reading.problems.is_empty() => Ok(document),
        Some(_) | None => Err(refused(without_echoes(reading.problems))),
    }
}

/// Leaves out that a field is missing where it is known to be wrong: it was taken out to read on.
fn without_echoes(mut problems: Vec<Problem>) -> Vec<Problem> {
    let known: BTreeSet<String> = problems.iter().map(|problem| problem.pointer.clone()).collect();
    problems.retain(|problem| {
        let rest = problem.detail.strip_prefix("field `").and_then(|rest| rest.strip_suffix("` is missing"));
        rest.is_none_or(|field| !known.contains(&format!("{}/{field}", problem.pointer)))
    });
    problems
}

fn refused(problems: Vec<Problem>) -> Rejection {
    Rejection { kind: RejectionKind::Invalid, problems }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_given_twice_is_refused() {
        let text = br#"{"name": "a", "ip_range": "10.0.0.0/24", "name": "b"}"#;
        let Err(DecodeError::Document(rejection)) = persona(text, &|_| Vec::new()) else {
            panic!("accepted")
        };
        assert!(rejection.problems[0].detail.contains("duplicate field `name`"), "{rejection:?}");
    }

    #[test]
    fn cut_off_text_is_a_syntax_error() {
        for text in ["", "{", r#"{"name": "a""#, r#"{"name": "a"} x"#] {
            assert!(
                matches!(persona(text.as_bytes(), &|_| Vec::new()), Err(DecodeError::Syntax(_))),
                "{text}"
            );
        }
    }
}
