//! Entity tags (RFC 9110 section 8.8.3): a persona's generation in quotes; a digest of others.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use ring::digest::{SHA256, digest};
use serde::Serialize;

use super::problem::ProblemDetails;
use crate::model::personality::hexadecimal;
use crate::view::PersonaView;

/// The tag of a persona.
pub(super) fn of(persona: &PersonaView) -> HeaderValue {
    let text = format!("\"{}\"", persona.generation);
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("\"0\""))
}

/// The generation that `If-Match` asks for; `None` when any will do.
///
/// With several tags, the current one counts when it is among them. A tag that is not one of ours, weak
/// ones included, matches nothing: generation 0.
pub(super) fn if_match(headers: &HeaderMap, current: Option<u64>) -> Option<u64> {
    let tags = tags(headers, &header::IF_MATCH)?;
    if tags.contains(&"*") {
        return None;
    }
    let generations: Vec<u64> = tags.iter().filter_map(|tag| generation(tag)).collect();
    match current {
        Some(current) if generations.contains(&current) => Some(current),
        Some(_) | None => Some(generations.first().copied().unwrap_or_default()),
    }
}

/// Whether `If-None-Match` says that the client has this persona already.
pub(super) fn known(headers: &HeaderMap, persona: &PersonaView) -> bool {
    tags(headers, &header::IF_NONE_MATCH).is_some_and(|tags| {
        tags.iter().any(|tag| {
            *tag == "*" || generation(tag.strip_prefix("W/").unwrap_or(tag)) == Some(persona.generation)
        })
    })
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

fn generation(tag: &str) -> Option<u64> {
    tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &'static str) -> HeaderMap {
        [(header::IF_MATCH, HeaderValue::from_static(value))].into_iter().collect()
    }

    #[test]
    fn if_match_picks_the_current_tag_or_one_that_fails() {
        assert_eq!(if_match(&HeaderMap::new(), Some(3)), None);
        assert_eq!(if_match(&headers("*"), Some(3)), None);
        assert_eq!(if_match(&headers("\"3\""), Some(3)), Some(3));
        assert_eq!(if_match(&headers("\"1\", \"3\""), Some(3)), Some(3));
        assert_eq!(if_match(&headers("\"1\", \"2\""), Some(3)), Some(1));
        assert_eq!(if_match(&headers("W/\"3\""), Some(3)), Some(0));
        assert_eq!(if_match(&headers("nonsense"), Some(3)), Some(0));
    }
}
