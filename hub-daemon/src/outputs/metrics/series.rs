//! Writes one metric family with all its series.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelValue, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::qos_view::HandshakeTimes;

/// Labels of one series, and its value.
pub(super) type Sample<V, const N: usize> = ([(&'static str, V); N], u64);

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

    /// A family of times, in seconds; values are microseconds.
    pub(super) fn times<V: EncodeLabelValue, const N: usize>(
        &mut self,
        name: &'static str,
        help: &str,
        samples: impl IntoIterator<Item = Sample<V, N>>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value_us) in samples {
            family.encode_family(&labels)?.encode_gauge(&Duration::from_micros(value_us).as_secs_f64())?;
        }
        Ok(())
    }

    /// A family of times of handshakes, in seconds.
    pub(super) fn handshakes<V: EncodeLabelValue, const N: usize>(
        &mut self,
        name: &'static str,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'static str, V); N], HandshakeTimes)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, times) in samples {
            let bounds = (0..times.buckets.len().saturating_sub(1) as u32)
                .map(|power| Duration::from_micros(1_u64.checked_shl(power).unwrap_or(u64::MAX)));
            let bounds = bounds.map(|bound| bound.as_secs_f64()).chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(times.buckets.iter().copied()).collect();
            let sum = Duration::from_micros(times.sum_us).as_secs_f64();
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                sum,
                times.count,
                &buckets,
                None,
            )?;
        }
        Ok(())
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
