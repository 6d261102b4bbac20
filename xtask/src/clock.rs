//! The only place where xtask reads a clock.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Does the work and says how long it took.
#[expect(clippy::disallowed_methods, reason = "this is xtask's clock")]
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

/// Asks until the answer is yes; how long that took, or nothing when patience ends.
#[expect(clippy::disallowed_methods, reason = "this is xtask's clock")]
pub(crate) fn wait_until(patience: Duration, mut holds: impl FnMut() -> bool) -> Option<Duration> {
    let start = Instant::now();
    loop {
        let asked = start.elapsed();
        if holds() {
            return Some(start.elapsed());
        }
        if asked > patience {
            return None;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Tells how much is left of a span that begins at once.
#[expect(clippy::disallowed_methods, reason = "this is xtask's clock")]
pub(crate) fn deadline(span: Duration) -> impl Fn() -> Duration {
    let start = Instant::now();
    move || span.saturating_sub(start.elapsed())
}
