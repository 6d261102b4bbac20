//! A wall clock that is set: seen at once, and told apart from one that runs a little fast or slow.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::sync::Notify;

use crate::command::Clocks;

/// A time that no timer reaches.
const FAR: Duration = Duration::from_secs(1 << 34);

/// How far the wall clock is before the boot clock, as it was seen last.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    ahead_ns: i128,
}

impl Steps {
    /// Begins with this difference.
    pub const fn new(ahead_ns: i128) -> Self {
        Self { ahead_ns }
    }

    /// By how much the wall clock was set since the last look, if it was.
    pub fn look(&mut self, ahead_ns: i128) -> Option<SignedDuration> {
        let by = ahead_ns - std::mem::replace(&mut self.ahead_ns, ahead_ns);
        let nanos = i64::try_from(by).unwrap_or(if by < 0 { i64::MIN } else { i64::MAX });
        (by.abs() >= i128::from(Clocks::STEP_NS)).then_some(SignedDuration::from_nanos(nanos))
    }
}

/// Tells when somebody sets the wall clock (`TFD_TIMER_CANCEL_ON_SET`). Waiting for that blocks, so a thread
/// does it, which ends with the process.
#[derive(Debug)]
pub struct ClockSettings(Arc<Notify>);

impl ClockSettings {
    /// Begins to watch. Without it, steps are still found by looking.
    pub fn watch() -> io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_REALTIME, TimerFlags::TFD_CLOEXEC)?;
        arm(&timer)?;
        let set = Arc::new(Notify::new());
        let told = Arc::clone(&set);
        std::thread::Builder::new().name("clock".to_owned()).spawn(move || {
            // A timer that is cancelled has done its work once.
            while timer.wait().and_then(|()| arm(&timer)).is_ok() {
                told.notify_one();
            }
        })?;
        Ok(Self(set))
    }

    /// Returns when the clock was set.
    pub async fn changed(&self) {
        self.0.notified().await;
    }
}

fn arm(timer: &TimerFd) -> nix::Result<()> {
    let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
    timer.set(Expiration::OneShot(TimeSpec::from_duration(FAR)), flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_told_once_and_drift_is_not() {
        let mut steps = Steps::new(1_000);
        assert_eq!(steps.look(1_000), None);
        assert_eq!(steps.look(400_000_000), None, "a clock that runs fast");
        assert_eq!(steps.look(3_400_000_000), Some(SignedDuration::from_secs(3)));
        assert_eq!(steps.look(3_400_000_000), None);
        assert_eq!(steps.look(3_400_000_000 - 7_200_000_000_000), Some(SignedDuration::from_hours(-2)));
    }

    // The machine's clock is not the test's to set: what can be shown is that the kernel takes the timer, and
    // that nothing is heard while nobody sets the clock.
    #[tokio::test]
    async fn a_clock_that_nobody_sets_is_silent() {
        let watch = ClockSettings::watch().expect("the kernel takes a timer that a set clock cancels");
        let heard = tokio::time::timeout(Duration::from_millis(200), watch.changed());
        assert!(heard.await.is_err());
    }
}
