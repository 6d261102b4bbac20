//! How the checks of an interface come out while no switch is under way, and what follows.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::checks::Past;
use crate::model::check::CheckResult;

/// Time between two rounds.
pub const EVERY: Duration = Duration::from_secs(5);
/// Rounds in a row that must fail before something is wrong.
pub const FAILURES: u32 = 3;
/// How long a personality must be healthy to be one to go back to.
pub const GOOD_AFTER: SignedDuration = SignedDuration::from_secs(60);
/// The hub begins no switch by itself so soon after the one before.
pub const HOLD_DOWN: SignedDuration = SignedDuration::from_secs(60);
/// And no more than so many, of each kind …
pub const AUTOMATIC: usize = 3;
/// … in this time.
pub const AUTOMATIC_IN: SignedDuration = SignedDuration::from_mins(10);

/// How the checks of an interface came out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// Rounds in a row with a failure.
    #[serde(skip)]
    pub failures: u32,
    /// The first failure of the last round.
    #[serde(skip)]
    pub failure: Option<String>,
    /// The last answers.
    #[serde(skip)]
    pub results: Vec<CheckResult>,
    /// How checks came out when the personality was verified; else in the first good round since the hub is there.
    #[serde(skip)]
    pub baseline: Option<Past>,
    /// When the personality has been healthy for long enough.
    pub good_at: Option<Timestamp>,
    /// When switches ended or were begun by the hub itself, the last ones.
    pub automatic: Vec<Timestamp>,
    /// When the last switch was over.
    pub settled_at: Option<Timestamp>,
    /// Since when the check of `failover` fails.
    #[serde(skip)]
    pub fails_since: Option<Timestamp>,
    /// Since when it succeeds again.
    #[serde(skip)]
    pub works_since: Option<Timestamp>,
}

impl Health {
    /// When time alone changes something.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.good_at
    }

    /// Notes one round.
    pub fn note(&mut self, failure: Option<String>, results: Vec<CheckResult>, now: Timestamp) {
        self.failures = if failure.is_some() { self.failures.saturating_add(1) } else { 0 };
        if failure.is_some() && self.good_at.is_some() {
            self.good_at = Some(after(now, GOOD_AFTER));
        }
        self.failure = failure;
        self.results = results;
    }

    /// What of it is stored: what was seen is seen again.
    #[must_use]
    pub fn stored(&self) -> Self {
        Self {
            good_at: self.good_at,
            automatic: self.automatic.clone(),
            settled_at: self.settled_at,
            ..Self::default()
        }
    }

    /// The clock was set: what counts time lasts as long as before.
    pub fn shift(&mut self, by: SignedDuration) {
        let all = [&mut self.good_at, &mut self.settled_at, &mut self.fails_since, &mut self.works_since];
        for at in all.into_iter().flatten().chain(&mut self.automatic) {
            *at = after(*at, by);
        }
    }

    /// Whether something is wrong.
    pub fn is_bad(&self) -> bool {
        self.failures >= FAILURES
    }

    /// A switch is over: what was seen before it says nothing any more.
    pub fn begin(&mut self, now: Timestamp, has: Has) {
        (self.failures, self.failure) = (0, None);
        (self.fails_since, self.works_since) = (None, None);
        self.good_at = match has {
            Has::Another => Some(after(now, GOOD_AFTER)),
            Has::TheSame(took) => self.good_at.map(|at| after(at, took)),
            Has::TheOneBefore => self.good_at.map(|_| after(now, GOOD_AFTER)),
            Has::None => None,
        };
        self.settled_at = Some(now);
    }

    /// Whether the hub may begin a switch by itself.
    pub fn may_switch(&self, now: Timestamp) -> May {
        if self.settled_at.is_some_and(|at| now < after(at, HOLD_DOWN)) {
            return May::Later;
        }
        if soonest(&self.automatic, now) > now { May::NoMore } else { May::Now }
    }

    /// Notes that it does.
    pub fn switches(&mut self, now: Timestamp) {
        note(&mut self.automatic, now);
    }
}

/// The soonest time, from now on, that the hub does again by itself what it did at these times.
pub fn soonest(times: &[Timestamp], now: Timestamp) -> Timestamp {
    let oldest = times.iter().rev().nth(AUTOMATIC - 1);
    oldest.map_or(now, |oldest| after(*oldest, AUTOMATIC_IN).max(now))
}

/// Notes that it does, and forgets what counts no more.
pub fn note(times: &mut Vec<Timestamp>, now: Timestamp) {
    times.retain(|at| now < after(*at, AUTOMATIC_IN));
    times.push(now);
}

/// What an interface has when a switch is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Has {
    /// Another personality.
    Another,
    /// The same, which was never away. For so long nobody looked after it: that time does not count for it.
    TheSame(SignedDuration),
    /// The one of before, which was away.
    TheOneBefore,
    /// None that works.
    None,
}

/// Whether the hub may begin a switch by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum May {
    /// Yes.
    Now,
    /// The last one is too recent.
    Later,
    /// There were too many.
    NoMore,
}

fn after(time: Timestamp, span: SignedDuration) -> Timestamp {
    time.saturating_add(span).unwrap_or(Timestamp::MAX)
}
