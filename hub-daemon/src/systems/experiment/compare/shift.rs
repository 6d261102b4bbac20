//! How far two sides are apart: the estimate of Hodges and Lehmann, and the interval that goes with the test.
//!
//! The estimate is the median of all differences between an interface of B and one of A. The interval holds every
//! shift that the test of Mann and Whitney would not tell from chance, so that it holds 0 where the test finds no
//! difference, but for values that are the same on both sides.

use statrs::distribution::{ContinuousCDF as _, Normal};

use super::LEVEL;

/// How far B is from A.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shift {
    /// Median of the differences.
    pub(super) estimate: f64,
    /// Least and greatest shift that is not improbable.
    pub(super) interval: [f64; 2],
}

/// Compares each value of `b` with each of `a`; nothing where there are too few for an interval.
pub(super) fn shift(a: &[f64], b: &[f64]) -> Option<Shift> {
    let mut differences: Vec<f64> = b.iter().flat_map(|b| a.iter().map(move |a| b - a)).collect();
    let pairs = differences.len();
    let values = (a.len() + b.len() + 1) as f64;
    let deviation = (pairs as f64 * values / 12.0).sqrt();
    let quantile = Normal::standard().inverse_cdf(1.0 - LEVEL / 2.0);
    // The test counts pairs with the same correction for continuity.
    let outside = (pairs as f64 / 2.0 - 0.5 - quantile * deviation).ceil();
    if pairs == 0 || outside < 1.0 {
        return None;
    }
    #[expect(clippy::cast_sign_loss, reason = "it is at least 1")]
    let outside = outside as usize;
    let mut at = |rank: usize| *differences.select_nth_unstable_by(rank, f64::total_cmp).1;
    let interval = [at(outside - 1), at(pairs - outside)];
    let estimate = f64::midpoint(at((pairs - 1) / 2), at(pairs / 2));
    Some(Shift { estimate, interval })
}

#[cfg(test)]
mod tests {
    use super::super::test;
    use super::*;

    /// Numbers that are not evenly spread: squares of what Marsaglia's xorshift yields.
    fn numbers(state: &mut u64, count: usize, more: f64) -> Vec<f64> {
        let mut next = || {
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            (*state >> 40) as f64 / f64::from(1 << 24)
        };
        (0..count).map(|_| next().powi(2) + more).collect()
    }

    #[test]
    fn the_median_of_all_differences_is_the_estimate() {
        let a: Vec<f64> = (1..=8).map(f64::from).collect();
        let b: Vec<f64> = a.iter().map(|value| value + 10.0).collect();
        let found = shift(&a, &b).unwrap();
        assert!((found.estimate - 10.0).abs() < 1e-9, "{found:?}");
        let [low, high] = found.interval;
        assert!((10.0 - low - (high - 10.0)).abs() < 1e-9, "it is even: {found:?}");
        // Of 64 differences from 3 to 17, the seventh from either end.
        assert!((low - 6.0).abs() < 1e-9 && (high - 14.0).abs() < 1e-9, "{found:?}");
        assert_eq!(shift(&a[..3], &b[..3]), None, "no interval is so sure with so few");
        assert_eq!(shift(&[], &b), None);
    }

    #[test]
    fn the_interval_holds_what_is_and_nothing_where_the_test_finds_a_difference() {
        let (mut state, mut held, mut apart) = (0x9e37_79b9_u64, 0, 0);
        for round in 0..1_000 {
            let more = f64::from(round % 5) / 10.0;
            let (a, b) = (numbers(&mut state, 12, 0.0), numbers(&mut state, 15, more));
            let [low, high] = shift(&a, &b).unwrap().interval;
            held += u32::from(low <= more && more <= high);
            let is_apart = low > 0.0 || high < 0.0;
            assert_eq!(is_apart, test(&a, &b).0 < LEVEL, "{a:?} {b:?}");
            apart += u32::from(is_apart);
        }
        assert!(held >= 980, "{held} of 1,000, where 990 are to be expected");
        assert!((100..900).contains(&apart), "{apart}: both were tried");
    }
}
