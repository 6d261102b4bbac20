//! The owner's watch over the wall clock, and over passes that failed.

use std::time::Duration;

use jiff::Timestamp;

use super::{FULL_PASS, Owner, RETRY, SETTLE, deadline_in};
use crate::command::Command;
use crate::kernel::clock;
use crate::kernel::step::ClockSettings;

impl Owner {
    /// A wall clock that was set moves every deadline in the kernel, and makes no life longer.
    pub(super) fn look_for_step(&mut self) {
        let Some(by) = self.steps.look(clock::wall_before_boot()) else { return };
        tracing::warn!(seconds = by.as_secs_f64(), "the wall clock was set");
        self.internal(Command::ClockSet(by), Timestamp::now());
        self.event("clock", None, format!("the wall clock was set by {:.1} s", by.as_secs_f64()));
        self.dirty = true;
        self.publish();
        self.begin_pass();
    }

    /// Has the kernel looked at, and a pass made, when the changes that come now have settled.
    pub(super) fn look_soon(&mut self) {
        self.look_within(SETTLE);
    }

    pub(super) fn look_within(&mut self, wait: Duration) {
        let at = deadline_in(wait);
        self.look_at = Some(self.look_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// What a pass could not do is tried again soon: who was told of a change waits for it.
    pub(super) fn retry(&mut self, has_failed: bool) {
        if !has_failed {
            self.failed_passes = 0;
            return;
        }
        let wait = RETRY.saturating_mul(1 << self.failed_passes.min(8)).min(FULL_PASS);
        self.failed_passes = self.failed_passes.saturating_add(1);
        self.look_within(wait);
    }
}

/// Returns when somebody set the wall clock.
pub(super) async fn set(settings: Option<&ClockSettings>) {
    match settings {
        Some(settings) => settings.changed().await,
        None => std::future::pending().await,
    }
}
