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

/// Which part of how many a long run does, `2/6`; unset does all.
const PART: &str = "HUB_SOAK_PART";

/// Words that pieces of a long run's work have; unset means all of them.
const ONLY: &str = "HUB_SOAK_ONLY";

/// A part of a long run's work. What is in one is in no other, whatever else there is to do, so that parts which
/// are done one after the other add up.
#[derive(Clone, Debug)]
pub struct Part {
    number: u64,
    of: u64,
    only: Vec<String>,
}

impl Part {
    /// The part that was asked for.
    pub fn asked() -> Self {
        let only = std::env::var(ONLY).unwrap_or_default();
        let only = only.split_whitespace().map(str::to_owned).collect();
        let Ok(text) = std::env::var(PART) else { return Self { number: 1, of: 1, only } };
        let read =
            text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        let (number, of) = read.filter(|(number, of)| (1..=*of).contains(number)).unwrap_or_else(|| {
            panic!("{PART}={text}: write a part like 2/6");
        });
        Self { number, of, only }
    }

    /// Whether only pieces with some words are meant.
    pub const fn is_narrowed(&self) -> bool {
        !self.only.is_empty()
    }

    /// Whether a piece of work with this name is in it.
    pub fn has(&self, name: &str) -> bool {
        if !self.only.iter().all(|words| words.split('|').any(|word| name.contains(word))) {
            return false;
        }
        // FNV-1a: the same in every run and on every machine.
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        let hash: u64 = name.bytes().fold(0xcbf2_9ce4_8422_2325, mix);
        // The last bytes of a name, often digits, reach few bits of it: MurmurHash3's end of a hash spreads them.
        let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        (hash ^ (hash >> 33)) % self.of == self.number - 1
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "part {} of {}", self.number, self.of)
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_about_equal_and_each_piece_is_in_one() {
        let mut sizes = [0; 6];
        for piece in 0..6_000 {
            let part = |number: u64| Part { number, of: 6, only: Vec::new() };
            let has = |number: u64| part(number).has(&format!("Life bpf error=EIO {piece}"));
            let parts: Vec<usize> = (0..6).filter(|part| has(*part as u64 + 1)).collect();
            assert_eq!(parts.len(), 1, "piece {piece}");
            sizes[parts[0]] += 1;
        }
        assert!(sizes.iter().all(|size| (900..1_100).contains(size)), "{sizes:?}");
        assert!(Part { number: 1, of: 1, only: Vec::new() }.has("everything"));
    }

    #[test]
    fn only_what_has_a_word_of_each_is_meant() {
        let only = ["Life|Start", "ENOMEM"].map(str::to_owned).into();
        let part = Part { number: 1, of: 1, only };
        assert!(part.has("Start bpf ENOMEM"));
        assert!(!part.has("Start bpf EPERM") && !part.has("Resize bpf ENOMEM"));
    }
}
