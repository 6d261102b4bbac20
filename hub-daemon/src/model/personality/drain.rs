//! How connections end that a personality would break.

use std::time::Duration;

use crate::document::personality::{BlockDocument, DrainDocument, OnTimeoutDocument, ScopeDocument};
use crate::model::problems::Problems;
use crate::model::span;

/// How long connections have.
const TIMEOUT: Duration = Duration::from_secs(30);
/// And at most.
const LONGEST: Duration = Duration::from_hours(1);
/// TCP that was silent for longer is not waited for.
const IDLE: Duration = Duration::from_mins(1);

/// How connections end that a personality would break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long they have; zero gives them none.
    pub timeout: Duration,
    /// As many may be left.
    pub threshold: u64,
    /// Which ones are waited for, and which new ones are refused.
    pub scope: ScopeDocument,
    /// What becomes of new connections.
    pub block: BlockDocument,
    /// What happens when the time is over.
    pub on_timeout: OnTimeoutDocument,
    /// Whether flows without connections are waited for.
    pub udp: bool,
    /// TCP that was silent for longer is not waited for.
    pub idle_cutoff: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            timeout: TIMEOUT,
            threshold: 0,
            scope: ScopeDocument::default(),
            block: BlockDocument::default(),
            on_timeout: OnTimeoutDocument::default(),
            udp: true,
            idle_cutoff: IDLE,
        }
    }
}

impl Drain {
    /// Checks `drain`; problems point below it.
    pub fn new(problems: &mut Problems, document: Option<&DrainDocument>) -> Self {
        let default = Self::default();
        let Some(document) = document else { return default };
        let mut time = |field: &str, written: Option<&String>, default: Duration| {
            let Some(text) = written else { return default };
            let pointer = format!("/drain/{field}");
            let parsed = match text.as_str() {
                "0" | "0s" => Ok(Duration::ZERO),
                text => span::parse(text).map_err(|error| error.to_string().replacen("duration", field, 1)),
            };
            let time = problems.take(&pointer, parsed).unwrap_or(default);
            if time > LONGEST {
                problems.add(pointer, format!("{field} `{text}`: use at most 1h"));
            }
            time
        };
        Self {
            timeout: time("timeout", document.timeout.as_ref(), default.timeout),
            idle_cutoff: time("idle_cutoff", document.idle_cutoff.as_ref(), default.idle_cutoff),
            threshold: document.threshold.unwrap_or_default(),
            scope: document.scope.unwrap_or_default(),
            block: document.block.unwrap_or_default(),
            on_timeout: document.on_timeout.unwrap_or_default(),
            udp: document.udp.unwrap_or(true),
        }
    }
}
