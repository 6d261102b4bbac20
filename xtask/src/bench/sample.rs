//! Numbers out of samples: quantiles, and ratios that noise cannot reach.

/// The value below which `part` (0 to 1) of the samples lie, interpolated; NaN without samples.
pub(super) fn quantile(samples: &[f64], part: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = part * number(last as u64);
    let at = |place: f64| sorted.get(whole(place) as usize).copied().unwrap_or(f64::NAN);
    let (low, high) = (at(place.floor()), at(place.ceil()));
    low + (high - low) * place.fract()
}

/// The lower quartile: what it costs when nobody disturbs.
pub(super) fn lower_quartile(samples: &[f64]) -> f64 {
    quantile(samples, 0.25)
}

/// The median over rounds of one contender's ratio to another in the same round.
pub(super) fn ratio(samples: &[f64], base: &[f64]) -> f64 {
    let ratios: Vec<f64> = samples.iter().zip(base).map(|(sample, base)| sample / base).collect();
    quantile(&ratios, 0.5)
}

/// A count as a sample.
#[expect(clippy::cast_precision_loss, reason = "counts and nanoseconds here stay far below 2^52")]
pub(super) fn number(count: u64) -> f64 {
    count as f64
}

/// A sample as a count: without its fraction, 0 for negative ones.
#[expect(clippy::cast_sign_loss, reason = "the cast ends at 0")]
pub(super) fn whole(sample: f64) -> u32 {
    sample as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        let samples = [4.0, 1.0, 3.0, 2.0, 5.0];
        assert_eq!([0.0, 0.25, 0.5, 1.0].map(|part| whole(quantile(&samples, part))), [1, 2, 3, 5]);
        assert!((quantile(&samples, 0.375) - 2.5).abs() < 1e-9);
        assert!(lower_quartile(&[]).is_nan());
    }

    #[test]
    fn one_disturbed_round_does_not_move_a_ratio() {
        let (base, ours) = ([100.0, 100.0, 200.0, 100.0, 100.0], [50.0, 50.0, 100.0, 900.0, 50.0]);
        assert!((ratio(&ours, &base) - 0.5).abs() < 1e-9);
    }
}
