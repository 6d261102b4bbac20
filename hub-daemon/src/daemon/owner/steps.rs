//! The owner's watch over the wall clock.

use jiff::Timestamp;

use super::Owner;
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
}

/// Returns when somebody set the wall clock.
pub(super) async fn set(settings: Option<&ClockSettings>) {
    match settings {
        Some(settings) => settings.changed().await,
        None => std::future::pending().await,
    }
}
