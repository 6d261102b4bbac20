//! Waiting with a deadline.

use std::{thread, time::Duration};

use anyhow::Result;

/// Asks every millisecond, at most so many times, until the answer is yes. Says whether it was.
pub(super) fn until(times: u32, mut ready: impl FnMut() -> Result<bool>) -> Result<bool> {
    for _ in 0..times {
        if ready()? {
            return Ok(true);
        }
        thread::sleep(Duration::from_millis(1));
    }
    ready()
}
