//! The owner's watch over the wall clock, and over passes that failed.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::Pass;
use super::{FULL_PASS, Owner, RETRY, SETTLE, deadline_in};
use crate::command::Command;
use crate::kernel::step::ClockSettings;
use crate::kernel::{boot, clock};

/// Part of the flow table in use that is worth a condition, in percent.
const CROWDED_PERCENT: u64 = 80;
/// Looks rest this many times as long as they take.
const REST: u32 = 4;
/// But no longer than this: what others change is put right soon, however large the hub is.
const LONGEST_REST: Duration = Duration::from_secs(2);

/// How long it takes to read the kernel and put it right, so that most of the time is left for changes.
#[derive(Debug, Default)]
pub(super) struct Look {
    began: Option<Instant>,
    ended: Option<Instant>,
    took: Duration,
}

impl Look {
    /// The kernel is being read.
    pub(super) fn begin(&mut self) {
        self.began.get_or_insert_with(Instant::now);
    }

    /// A pass is over: what was read before it is right.
    pub(super) fn end(&mut self) {
        if let Some(began) = self.began.take() {
            let now = Instant::now();
            (self.ended, self.took) = (Some(now), now - began);
        }
    }

    /// How long it is until changes are worth the next look, that rests so many times as long as one takes.
    fn rest(&self, times: u32) -> Duration {
        let rest = (self.took * times).min(LONGEST_REST);
        self.ended.map_or(Duration::ZERO, |ended| rest.saturating_sub(ended.elapsed()))
    }
}

impl Owner {
    /// Counts what a pass did, and says what it could not do.
    pub(super) fn count(&self, pass: &Pass, now: Timestamp) {
        self.stats.passes.add(1);
        let mut failures = 0;
        for report in &pass.reports {
            let table = self.stats.table(report.table);
            table.puts.add(report.put as u64);
            table.deletes.add(report.deleted as u64);
            table.failures.add(report.failures.len() as u64);
            table.drift.add(report.drift as u64);
            failures += report.failures.len();
            for failure in &report.failures {
                tracing::warn!(
                    table = report.table,
                    object = failure.object,
                    error = failure.error,
                    "refused"
                );
            }
            if report.drift > 0 {
                tracing::warn!(table = report.table, entries = report.drift, "drift repaired");
                self.event(
                    "drift",
                    None,
                    format!("{} entries of {} were put right", report.drift, report.table),
                );
            }
        }
        if failures == 0 {
            self.stats.succeeded(now);
        }
    }

    /// A wall clock that was set moves every deadline in the kernel, and makes no life longer.
    pub(super) fn look_for_step(&mut self) {
        let Some(by) = self.steps.look(clock::wall_before_boot()) else { return };
        tracing::warn!(seconds = by.as_secs_f64(), "the wall clock was set");
        self.hub.note_clocks(boot::clocks());
        self.internal(Command::ClockSet(by), Timestamp::now());
        self.keep();
        self.event("clock", None, format!("the wall clock was set by {:.1} s", by.as_secs_f64()));
        self.dirty = true;
        self.publish();
        self.begin_pass();
    }

    /// Has the kernel looked at, and a pass made, when the changes that come now have settled.
    pub(super) fn look_soon(&mut self) {
        let wait = self.look.rest(REST).max(SETTLE);
        self.look_within(wait);
    }

    /// As [`Self::look_soon`] for interfaces, with less rest: those that came need programs before anything
    /// passes them.
    pub(super) fn look_at_links(&mut self) {
        let wait = self.look.rest(1).max(SETTLE);
        self.look_within(wait);
    }

    pub(super) fn look_within(&mut self, wait: Duration) {
        let at = deadline_in(wait);
        self.look_at = Some(self.look_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Says when the flow table is nearly full.
    pub(super) fn collected(&mut self, flows: u64) {
        let crowded = flows * 100 >= self.flows_max * CROWDED_PERCENT;
        let message = format!("{flows} of {} flows are in use: raise `limits.flows`", self.flows_max);
        self.hub.set_condition("FlowTableCrowded", crowded.then_some(message));
        self.publish();
    }

    /// What a pass could not do is tried again soon: who was told of a change waits for it. The first time
    /// at once, for the kernel may have changed behind the last look.
    pub(super) fn retry(&mut self, has_failed: bool) {
        if !has_failed {
            self.failed_passes = 0;
            return;
        }
        let wait = match self.failed_passes.checked_sub(1) {
            None => SETTLE,
            Some(passes) => RETRY.saturating_mul(1 << passes.min(8)).min(FULL_PASS),
        };
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
