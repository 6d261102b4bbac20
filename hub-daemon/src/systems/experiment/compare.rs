//! The comparison of the two sides of an experiment.
//!
//! Interfaces were put on sides by chance, so an interface is one observation, however many packets it has. Two
//! sides differ if the test of Mann and Whitney says so at [`LEVEL`]; it asks only which of two values is greater,
//! not how they are distributed. The module `shift` says by how much.

#![expect(clippy::cast_precision_loss, reason = "what is counted is far below 2^52")]

mod shift;

use serde::{Deserialize, Serialize};
use statrs::stats_tests::Alternative;
use statrs::stats_tests::mannwhitneyu::{MannWhitneyUMethod, mannwhitneyu};
use utoipa::ToSchema;

use self::shift::shift;
use super::totals::Totals;
use super::{Arm, Experiment};

/// How probable a difference by chance alone may be.
pub const LEVEL: f64 = 0.01;
/// An interface counts after so many milliseconds.
pub const OBSERVED_MS: u64 = 60_000;
/// And of what is a part of something, if there is so much of that.
const SAMPLES: u64 = 20;

/// Which values are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Smaller,
    Greater,
    /// It says how the sides are used.
    Neither,
}

/// Something that sides are compared by: a part of something.
struct Metric {
    name: &'static str,
    wanted: Wanted,
    part: fn(&Totals) -> u64,
    of: fn(&Totals) -> u64,
    /// What there must be for the ratio to say something.
    least: u64,
    /// The unit of `part` is this many of the one that is shown.
    scale: f64,
}

const METRICS: [Metric; 8] = [
    Metric {
        name: "handshake_mean_ms",
        wanted: Wanted::Smaller,
        part: |totals| totals.handshake_us,
        of: |totals| totals.handshakes,
        least: SAMPLES,
        scale: 1_000.0,
    },
    Metric {
        name: "retransmitted_segments_ratio",
        wanted: Wanted::Smaller,
        part: |totals| totals.segments_again,
        of: |totals| totals.segments + totals.segments_again,
        least: SAMPLES,
        scale: 1.0,
    },
    Metric {
        name: "dropped_packets_ratio",
        wanted: Wanted::Smaller,
        part: |totals| totals.dropped,
        of: |totals| totals.packets + totals.dropped,
        least: SAMPLES,
        scale: 1.0,
    },
    Metric {
        name: "refused_flows_ratio",
        wanted: Wanted::Smaller,
        part: |totals| totals.refused,
        of: |totals| totals.flows + totals.refused,
        least: SAMPLES,
        scale: 1.0,
    },
    Metric {
        name: "failed_checks_ratio",
        wanted: Wanted::Smaller,
        part: |totals| totals.rounds_failed,
        of: |totals| totals.rounds,
        least: 1,
        scale: 1.0,
    },
    Metric {
        name: "bytes_per_second",
        wanted: Wanted::Greater,
        part: |totals| totals.bytes,
        of: |totals| totals.observed_ms,
        least: 1,
        scale: 0.001,
    },
    Metric {
        name: "packets_per_second",
        wanted: Wanted::Neither,
        part: |totals| totals.packets,
        of: |totals| totals.observed_ms,
        least: 1,
        scale: 0.001,
    },
    Metric {
        name: "flows_per_second",
        wanted: Wanted::Neither,
        part: |totals| totals.flows,
        of: |totals| totals.observed_ms,
        least: 1,
        scale: 0.001,
    },
];

impl Metric {
    fn value(&self, totals: &Totals) -> Option<f64> {
        let of = (self.of)(totals);
        (of >= self.least).then(|| (self.part)(totals) as f64 / of as f64 / self.scale)
    }
}

/// What a comparison found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// B is better than A.
    Better,
    /// B is worse than A.
    Worse,
    /// B has more than A, which is neither good nor bad.
    More,
    /// B has less than A, which is neither good nor bad.
    Less,
    /// What differs may be chance.
    NoDifference,
    /// There are too few interfaces, or they were observed for too short, for any difference to be seen.
    TooFew,
}

impl Verdict {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::More => "more",
            Self::Less => "less",
            Self::NoDifference => "no difference",
            Self::TooFew => "too few",
        }
    }
}

/// The two sides compared by one number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Compared {
    /// The number.
    pub metric: String,
    /// Of side A, all of its interfaces together.
    pub a: Option<f64>,
    /// Of side B, all of its interfaces together.
    pub b: Option<f64>,
    /// B by A.
    pub ratio: Option<f64>,
    /// How much more an interface of B has than one of A: the median of the differences between each two.
    pub difference: Option<f64>,
    /// Between what it is with 99 in 100 probability; absent where there are too few interfaces.
    pub interval: Option<[f64; 2]>,
    /// Interfaces of A and of B that count.
    pub interfaces: [usize; 2],
    /// How probable such a difference is by chance alone; absent where there are too few interfaces.
    pub p_value: Option<f64>,
    /// What that means.
    pub verdict: Verdict,
}

/// Compares the sides of an experiment by everything that is counted.
pub fn compare(experiment: &Experiment) -> Vec<Compared> {
    let sides = Arm::ALL.map(|arm| {
        let totals = experiment.of(arm).map(|(_, member)| &member.totals);
        totals.filter(|totals| totals.observed_ms >= OBSERVED_MS).collect::<Vec<_>>()
    });
    METRICS.iter().map(|metric| compare_by(metric, &sides)).collect()
}

fn compare_by(metric: &Metric, sides: &[Vec<&Totals>; 2]) -> Compared {
    let values = sides
        .each_ref()
        .map(|side| side.iter().filter_map(|totals| metric.value(totals)).collect::<Vec<f64>>());
    let [a, b] = sides.each_ref().map(|side| metric.value(&Totals::sum(side)));
    let interfaces = values.each_ref().map(Vec::len);
    let [of_a, of_b] = &values;
    let tested = can_tell(interfaces).then(|| test(of_a, of_b));
    let shift = tested.and_then(|_| shift(of_a, of_b));
    let verdict = match tested {
        None => Verdict::TooFew,
        Some((p_value, _)) if p_value >= LEVEL => Verdict::NoDifference,
        Some((_, b_is_greater)) => match (metric.wanted, b_is_greater) {
            (Wanted::Smaller, true) | (Wanted::Greater, false) => Verdict::Worse,
            (Wanted::Smaller, false) | (Wanted::Greater, true) => Verdict::Better,
            (Wanted::Neither, true) => Verdict::More,
            (Wanted::Neither, false) => Verdict::Less,
        },
    };
    Compared {
        metric: metric.name.to_owned(),
        a,
        b,
        ratio: a.zip(b).filter(|(a, _)| *a != 0.0).map(|(a, b)| b / a),
        difference: shift.map(|shift| shift.estimate),
        interval: shift.map(|shift| shift.interval),
        interfaces,
        p_value: tested.map(|(p_value, _)| p_value),
        verdict,
    }
}

/// Whether the clearest difference there can be would be told from chance: six interfaces on each side are enough,
/// or three of one and fifteen of the other.
fn can_tell([a, b]: [usize; 2]) -> bool {
    let low: Vec<f64> = (0..a).map(|number| number as f64).collect();
    let high: Vec<f64> = (a..a + b).map(|number| number as f64).collect();
    a > 0 && b > 0 && test(&low, &high).0 < LEVEL
}

/// How probable the difference is by chance alone, and whether values of `b` are the greater ones.
fn test(a: &[f64], b: &[f64]) -> (f64, bool) {
    // The exact way counts all ways to put interfaces on sides, which are too many.
    let method = MannWhitneyUMethod::AsymptoticInclContinuityCorrection;
    let found = mannwhitneyu(b, a, method, Alternative::TwoSided);
    // Where all values are the same there is no distribution to ask.
    let (wins, p_value) = found.ok().filter(|(_, p_value)| p_value.is_finite()).unwrap_or((0.0, 1.0));
    (p_value, wins > (a.len() * b.len()) as f64 / 2.0)
}

#[cfg(test)]
mod tests;
