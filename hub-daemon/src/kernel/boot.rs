//! Ends that a stepped clock does not move and a reboot does not outlive.

use std::fs;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::clock::{boot_ns, wall_before_boot};
use crate::command::{Clocks, Deadline};

/// A random number that the kernel draws at each start.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// How the clocks are to each other.
pub fn clocks() -> Clocks {
    let wall_before_boot_ns = i64::try_from(wall_before_boot()).unwrap_or_default();
    Clocks { boot_id: boot_id(), wall_before_boot_ns }
}

/// The end of a time that begins here.
pub fn deadline(life: Duration) -> Deadline {
    let span = SignedDuration::try_from(life).unwrap_or(SignedDuration::MAX);
    Deadline {
        until: Timestamp::now().saturating_add(span).unwrap_or(Timestamp::MAX),
        boot_id: boot_id(),
        boot_ns: boot_ns().saturating_add(u64::try_from(life.as_nanos()).unwrap_or(u64::MAX)),
    }
}

/// Whether an end is past: by the boot clock in the run of the kernel that it was set in, and always in
/// another run.
pub fn is_over(deadline: &Deadline) -> bool {
    is_over_at(deadline, &boot_id(), boot_ns(), Timestamp::now())
}

fn is_over_at(deadline: &Deadline, boot_id: &str, boot_ns: u64, now: Timestamp) -> bool {
    if boot_id.is_empty() {
        // Without /proc there is the wall clock alone.
        return now >= deadline.until;
    }
    deadline.boot_id != boot_id || boot_ns >= deadline.boot_ns
}

/// What tells this run of the kernel from others; empty where that is not known.
pub fn boot_id() -> String {
    fs::read_to_string(BOOT_ID).map(|text| text.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_decides_and_a_reboot_is_past_every_end() {
        let until: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let deadline = Deadline { until, boot_id: "a".into(), boot_ns: 100 };
        let stepped = until + SignedDuration::from_hours(5);
        assert!(!is_over_at(&deadline, "a", 99, stepped) && is_over_at(&deadline, "a", 100, until));
        assert!(is_over_at(&deadline, "b", 1, until - SignedDuration::from_hours(1)));
        assert!(
            is_over_at(&deadline, "", 0, until) && !is_over_at(&deadline, "", 200, Timestamp::UNIX_EPOCH)
        );
    }

    #[test]
    fn steps_are_told_from_daemon_to_daemon_and_not_across_reboots() {
        let clocks =
            |boot_id: &str, wall_before_boot_ns| Clocks { boot_id: boot_id.into(), wall_before_boot_ns };
        let before = clocks("a", 7_200_000_000_000);
        assert_eq!(before.step_until(&clocks("a", 0)), Some(SignedDuration::from_hours(-2)));
        assert_eq!(before.step_until(&clocks("a", 7_200_400_000_000)), None, "read a moment later");
        assert_eq!(before.step_until(&clocks("b", 0)), None);
        assert_eq!(clocks("", 7_200_000_000_000).step_until(&clocks("", 0)), None, "without /proc");
        assert_eq!(super::clocks().step_until(&super::clocks()), None);
    }

    #[test]
    fn an_end_is_as_far_away_as_asked() {
        let near = deadline(Duration::from_millis(1));
        std::thread::sleep(Duration::from_millis(2));
        assert!(is_over(&near) && !is_over(&deadline(Duration::from_mins(1))));
    }
}
