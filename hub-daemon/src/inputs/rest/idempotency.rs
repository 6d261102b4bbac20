//! `Idempotency-Key`: a request that is sent again gets the answer of the first, and is done once.
//!
//! Only successes are kept: a refusal changed nothing, so trying again is safe and may succeed. Keys live
//! for [`KEY_TIME`] or until [`KEYS`] later ones have come, and answers not longer than the daemon. What made a persona
//! the hub remembers as well, with the persona, and longer than the daemon.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode, Uri};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;

use super::problem::ProblemDetails;
use crate::model::key::{KEY_TIME, KEYS, Key};

/// Most bytes of a key.
const KEY_BYTES: usize = 255;

/// Name of the header.
pub(super) const HEADER: &str = "idempotency-key";

/// The answer that requests with one key share.
type Answer<T> = Arc<OnceCell<T>>;

/// Answers by key.
#[derive(Debug)]
pub(super) struct Answers<T> {
    kept: Arc<Mutex<BTreeMap<String, Kept<T>>>>,
}

#[derive(Debug)]
struct Kept<T> {
    since: Instant,
    body: String,
    answer: Answer<T>,
}

impl<T> Clone for Answers<T> {
    fn clone(&self) -> Self {
        Self { kept: Arc::clone(&self.kept) }
    }
}

impl<T> Default for Answers<T> {
    fn default() -> Self {
        Self { kept: Arc::default() }
    }
}

/// The key of a request, if it has one.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, ProblemDetails> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= KEY_BYTES => Ok(Some(key.to_owned())),
        Ok(_) | Err(_) => {
            let detail = format!("Idempotency-Key: use 1 to {KEY_BYTES} ASCII characters");
            Err(ProblemDetails::of_status(StatusCode::BAD_REQUEST, detail))
        }
    }
}

/// A key that is used with where the request goes, and its body.
pub(super) fn about(key: Option<String>, uri: &Uri, body: &[u8]) -> Option<Key> {
    let mut about = uri.to_string().into_bytes();
    about.push(b'\n');
    about.extend_from_slice(body);
    key.map(|text| Key::new(text, &about))
}

impl<T: Clone + Send + Sync + 'static> Answers<T> {
    /// The answer to what `key` is used with, made once. It is made in a task of its own: a client that goes away
    /// must not make its next attempt a second one.
    pub(super) async fn once<M>(&self, key: Option<Key>, make: M) -> Result<T, ProblemDetails>
    where
        M: Future<Output = Result<T, ProblemDetails>> + Send + 'static,
    {
        let Some(key) = key else { return make.await };
        let answer = self.place(&key).await?;
        let answers = self.clone();
        let task = tokio::spawn(async move {
            let made = answer.get_or_try_init(|| make).await.cloned();
            if made.is_err() {
                answers.forget(&key.text, &answer).await;
            }
            made
        });
        task.await.map_err(|error| ProblemDetails::unavailable(&error.to_string()))?
    }

    /// The place for the answer to what `key` is used with. Requests that come while the first is under way
    /// wait for it there.
    async fn place(&self, key: &Key) -> Result<Answer<T>, ProblemDetails> {
        let now = Instant::now();
        let mut kept = self.kept.lock().await;
        kept.retain(|_, entry| now.duration_since(entry.since) < KEY_TIME.unsigned_abs());
        if let Some(entry) = kept.get(&key.text) {
            if entry.body == key.body {
                return Ok(Arc::clone(&entry.answer));
            }
            let detail = "Idempotency-Key: used before with another body";
            return Err(ProblemDetails::of_status(StatusCode::UNPROCESSABLE_ENTITY, detail));
        }
        if kept.len() >= KEYS {
            let oldest = kept.iter().min_by_key(|(_, entry)| entry.since).map(|(key, _)| key.clone());
            oldest.and_then(|key| kept.remove(&key));
        }
        let answer = Answer::default();
        kept.insert(
            key.text.clone(),
            Kept { since: now, body: key.body.clone(), answer: Arc::clone(&answer) },
        );
        Ok(answer)
    }

    /// Forgets a key whose request was refused.
    async fn forget(&self, key: &str, answer: &Answer<T>) {
        let mut kept = self.kept.lock().await;
        let refused = kept.get(key).is_some_and(|entry| Arc::ptr_eq(&entry.answer, answer));
        if refused && !answer.initialized() {
            kept.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn used(key: &str, body: &str) -> Key {
        Key::new(key.to_owned(), body.as_bytes())
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_bounded_in_time_and_number() {
        let answers = Answers::<()>::default();
        let first = answers.place(&used("first", "a")).await.unwrap();
        assert!(Arc::ptr_eq(&first, &answers.place(&used("first", "a")).await.unwrap()));
        assert!(answers.place(&used("first", "b")).await.is_err());
        tokio::time::advance(KEY_TIME.unsigned_abs()).await;
        answers.place(&used("first", "b")).await.unwrap();

        for number in 0..KEYS + 10 {
            tokio::time::advance(Duration::from_millis(1)).await;
            answers.place(&used(&number.to_string(), "")).await.unwrap();
        }
        assert_eq!(answers.kept.lock().await.len(), KEYS);
        assert!(!answers.kept.lock().await.contains_key("first"));
    }
}
