//! Writes one metric family of the hub with all its series.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelValue, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::outputs::switches::Times;
use crate::systems::experiment::totals::Totals;

/// Labels of one series, and its value.
pub(super) type Sample<V, const N: usize> = ([(&'static str, V); N], u64);

/// A distribution: upper bounds, each with how many are below it and above the one before.
#[derive(Debug)]
pub(super) struct Distribution {
    sum: f64,
    count: u64,
    buckets: Vec<(f64, u64)>,
}

impl From<Times> for Distribution {
    fn from(times: Times) -> Self {
        Self { sum: times.sum_seconds, count: times.count, buckets: times.buckets() }
    }
}

impl Distribution {
    /// Handshakes by powers of two of microseconds, in seconds.
    pub(super) fn of_micros(totals: &Totals) -> Self {
        let counts = (0..).zip(&totals.handshake_buckets);
        let bounded = counts.map(|(power, count)| (f64::exp2(f64::from(power)) / 1e6, *count));
        let last = (f64::INFINITY, 0);
        Self {
            sum: Duration::from_micros(totals.handshake_us).as_secs_f64(),
            count: totals.handshakes,
            buckets: bounded.chain([last]).collect(),
        }
    }
}

/// Where families are written to.
#[derive(Debug)]
pub(super) struct Series<'a>(DescriptorEncoder<'a>);

impl<'a> Series<'a> {
    pub(super) fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self(encoder)
    }

    /// A family of numbers that only grow; `_total` is added to the name.
    pub(super) fn counters<V: EncodeLabelValue, const N: usize>(
        &mut self,
        name: &'static str,
        help: &str,
        samples: impl IntoIterator<Item = Sample<V, N>>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in samples {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&value, None)?;
        }
        Ok(())
    }

    /// One number that only grows; `_total` is added to the name.
    pub(super) fn counter(&mut self, name: &'static str, help: &str, value: u64) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        family.encode_counter::<NoLabelSet, u64, u64>(&value, None)
    }

    /// A family of numbers that go up and down.
    pub(super) fn gauges<V: EncodeLabelValue, const N: usize>(
        &mut self,
        name: &'static str,
        help: &str,
        samples: impl IntoIterator<Item = Sample<V, N>>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            // Gauges are signed; none of ours reaches 2^63.
            family.encode_family(&labels)?.encode_gauge(&value.cast_signed())?;
        }
        Ok(())
    }

    /// A family of numbers that go up and down and are no whole ones.
    pub(super) fn measures<const N: usize>(
        &mut self,
        name: &'static str,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'static str, String); N], f64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// A family of distributions, each of buckets with their upper bounds.
    pub(super) fn histograms<V: EncodeLabelValue, const N: usize>(
        &mut self,
        name: &'static str,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'static str, V); N], Times)>,
    ) -> fmt::Result {
        let samples = samples.into_iter().map(|(labels, times)| (labels, Distribution::from(times)));
        self.distributions(name, help, samples)
    }

    /// The same, with bounds that differ.
    pub(super) fn distributions<V: EncodeLabelValue, const N: usize>(
        &mut self,
        name: &'static str,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'static str, V); N], Distribution)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, Distribution { sum, count, buckets }) in samples {
            let mut one = family.encode_family(&labels)?;
            one.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    /// One distribution.
    pub(super) fn histogram(&mut self, name: &'static str, help: &str, times: &Times) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        family.encode_histogram::<NoLabelSet>(times.sum_seconds, times.count, &times.buckets(), None)
    }

    /// One number that goes up and down; absent when there is none.
    pub(super) fn gauge(
        &mut self,
        name: &'static str,
        help: &str,
        value: impl Into<Option<u64>>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        match value.into() {
            Some(value) => family.encode_gauge(&value.cast_signed()),
            None => Ok(()),
        }
    }
}
