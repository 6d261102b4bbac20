//! How many connections a source may have at once.

use std::ops::RangeInclusive;

use super::problems::Problems;

/// Most connections that a limit may speak of: more than the table of connections holds by default.
const CONNECTIONS: RangeInclusive<u32> = 1..=1_000_000;

/// Reads `max_connections_per_source`, which stands in `base`.
pub(super) fn read(problems: &mut Problems, base: &str, written: Option<u32>) -> Option<u32> {
    let number = written?;
    if CONNECTIONS.contains(&number) {
        return Some(number);
    }
    let detail = format!("{number} connections: use {} to {}", CONNECTIONS.start(), CONNECTIONS.end());
    problems.add(format!("{base}/max_connections_per_source"), detail);
    None
}
