//! Entity tags (RFC 9110 section 8.8.3). A persona's has its id, its generation and a digest of all that is shown of
//! it, `"ID.GENERATION.DIGEST"`: `If-Match` asks for the definition, the first two; `If-None-Match` for all that is
//! shown, its state too. Tags of others are digests.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use ring::digest::{SHA256, digest};
use serde::Serialize;

use super::problem::ProblemDetails;
use crate::model::personality::hexadecimal;
use crate::view::PersonaView;

/// Digits of a digest: enough to tell one state of a persona from the next.
const DIGITS: usize = 16;

/// The tag of a persona.
pub(super) fn of(persona: &PersonaView) -> HeaderValue {
    let digest = hash(persona);
    let text = format!("{}.{}", definition(persona), digest.get(..DIGITS).unwrap_or_default());
    of_digest(&text)
}

/// What a tag says of a persona's definition.
fn definition(persona: &PersonaView) -> String {
    format!("{}.{}", persona.id, persona.generation)
}

/// The generation that `If-Match` asks for; `None` when any will do.
///
/// One of several tags is enough. Generation 0 is nobody's: what is asked for is another persona, an earlier
/// definition, or no tag of ours, weak ones included.
pub(super) fn if_match(headers: &HeaderMap, current: Option<&PersonaView>) -> Option<u64> {
    let tags = tags(headers, &header::IF_MATCH)?;
    if tags.contains(&"*") {
        return None;
    }
    let current = current.filter(|current| {
        let definition = definition(current);
        tags.iter().any(|tag| asked(tag) == Some(&definition))
    });
    Some(current.map_or(0, |current| current.generation))
}

/// Who is meant by a name with the answer of [`if_match`]: a tag is one persona's, and not of the next one of that name.
pub(super) fn meant(held: Option<&PersonaView>, if_generation: Option<u64>, named: String) -> String {
    held.filter(|_| if_generation.is_some()).map_or(named, |held| held.id.to_string())
}

/// The tag of what has this digest.
pub(super) fn of_digest(digest: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{digest}\"")).unwrap_or(HeaderValue::from_static("\"0\""))
}

/// The digest of a value.
pub(super) fn hash(value: &impl Serialize) -> String {
    let text = serde_json::to_vec(value).unwrap_or_default();
    hexadecimal(digest(&SHA256, &text).as_ref())
}

/// Whether `If-Match` asks for this tag; `None` when any will do.
pub(super) fn wants(headers: &HeaderMap, tag: &HeaderValue) -> Option<bool> {
    let tags = tags(headers, &header::IF_MATCH)?;
    if tags.contains(&"*") {
        return None;
    }
    Some(tags.iter().any(|asked| asked.as_bytes() == tag.as_bytes()))
}

/// Whether `If-None-Match` says that the client has what has this tag.
pub(super) fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    tags(headers, &header::IF_NONE_MATCH).is_some_and(|tags| {
        let is = |asked: &&str| asked.strip_prefix("W/").unwrap_or(asked).as_bytes() == tag.as_bytes();
        tags.iter().any(|asked| *asked == "*" || is(asked))
    })
}

/// Refuses `If-Match` where nothing can match yet.
pub(super) fn refuse_precondition(headers: &HeaderMap) -> Result<(), ProblemDetails> {
    if headers.contains_key(header::IF_MATCH) {
        let detail = "If-Match does not go with a request that makes something";
        return Err(ProblemDetails::of_status(StatusCode::PRECONDITION_FAILED, detail));
    }
    Ok(())
}

fn tags<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Vec<&'a str>> {
    headers.contains_key(name).then(|| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).map(str::trim).collect()
    })
}

/// The definition that a tag speaks of.
fn asked(tag: &str) -> Option<&str> {
    Some(tag.strip_prefix('"')?.strip_suffix('"')?.rsplit_once('.')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        let value = HeaderValue::from_str(value).unwrap();
        [(header::IF_MATCH, value.clone()), (header::IF_NONE_MATCH, value)].into_iter().collect()
    }

    fn view(id: &str, generation: u64, state: &str) -> PersonaView {
        serde_json::from_value(serde_json::json!({
            "id": id, "generation": generation, "state": state, "segment": 7, "created_at": "2026-01-01T00:00:00Z",
            "origin": {"by": "api"}, "conditions": [], "warnings": [], "rule_sources": [],
            "definition": {"name": "web", "ip_range": "10.1.0.0/24"},
        }))
        .unwrap()
    }

    #[test]
    fn if_match_asks_for_the_definition_of_this_persona() {
        let held = view("01A", 3, "active");
        let tag = of(&held);
        let tag = tag.to_str().unwrap();
        let asks = |text: &str| if_match(&headers(text), Some(&held));
        assert_eq!(if_match(&HeaderMap::new(), Some(&held)), None);
        assert_eq!(asks("*"), None);
        assert_eq!(asks(tag), Some(3));
        assert_eq!(asks(&format!("\"01A.1.0\", {tag}")), Some(3));
        // It became active meanwhile, or got a warning: the definition is the same.
        assert_eq!(if_match(&headers(tag), Some(&view("01A", 3, "failed"))), Some(3));
        for other in ["\"01A.2.0\"", "\"01B.3.0\"", "\"3\"", "nonsense", &format!("W/{tag}")] {
            assert_eq!(asks(other), Some(0), "{other}");
        }
        assert_eq!(if_match(&headers(tag), None), Some(0), "it is gone");
    }

    #[test]
    fn if_none_match_asks_for_all_that_is_shown() {
        let held = view("01A", 3, "provisioning");
        let tag = of(&held);
        assert!(is_known(&headers(tag.to_str().unwrap()), &tag));
        assert!(is_known(&headers(&format!("W/{}", tag.to_str().unwrap())), &tag));
        let next = of(&view("01A", 3, "active"));
        assert!(!is_known(&headers(tag.to_str().unwrap()), &next), "another state");
        let other = of(&view("01B", 3, "provisioning"));
        assert!(!is_known(&headers(tag.to_str().unwrap()), &other), "another persona");
    }
}
