//! The only place where xtask reads a clock.

use std::time::{Duration, Instant};

/// Does the work and says how long it took.
#[expect(clippy::disallowed_methods, reason = "this is xtask's clock")]
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}
