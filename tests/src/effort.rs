//! How long a test goes on: a short form in every run, a long form by `cargo xtask soak`.
//!
//! The two differ in amount alone. A long form also ends when its minutes are over, and every goal says
//! what it did: `cargo xtask soak` shows these lines.

use std::time::{Duration, Instant};

use crate::lab::now;

/// An amount of work, with an end in time for the long form.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    amount: u64,
    deadline: Option<Instant>,
}

/// Minutes of each goal's long form; unset in everyday runs.
const MINUTES: &str = "HUB_SOAK_MINUTES";

/// Whether this is a long run.
pub fn is_long() -> bool {
    minutes().is_some()
}

fn minutes() -> Option<u64> {
    std::env::var(MINUTES).ok().map(|text| text.parse().expect("HUB_SOAK_MINUTES is a number"))
}

impl Effort {
    /// This much in everyday runs and that much in long ones.
    pub fn new(short: u64, long: u64) -> Self {
        let minutes = minutes();
        Self {
            amount: if minutes.is_some() { long } else { short },
            deadline: minutes.map(|minutes| now() + Duration::from_secs(minutes * 60)),
        }
    }

    /// What there is to do.
    pub const fn amount(self) -> u64 {
        self.amount
    }

    /// Whether there is more to do after this much.
    pub fn goes_on(self, done: u64) -> bool {
        done < self.amount && self.deadline.is_none_or(|deadline| now() < deadline)
    }

    /// Numbers from 0 until the work is done or its time is over.
    pub fn rounds(self) -> impl Iterator<Item = u64> {
        (0..).take_while(move |round| self.goes_on(*round))
    }
}

/// Says what was done for a goal.
#[expect(clippy::print_stderr, reason = "the reader of the test's output is told what was done")]
pub fn figure(goal: &str, text: &str) {
    eprintln!("{goal}: {text}");
}
