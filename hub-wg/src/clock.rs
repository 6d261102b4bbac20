//! The only place that reads clocks.

use std::time::{Duration, Instant, SystemTime};

/// Time that never goes back.
#[expect(clippy::disallowed_methods, reason = "a tunnel runs in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Time since 1970 of what happened this long ago.
#[expect(clippy::disallowed_methods, reason = "handshakes are told by the wall clock")]
pub(crate) fn wall(ago: Duration) -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().saturating_sub(ago)
}
