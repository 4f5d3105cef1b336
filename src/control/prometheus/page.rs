//! Writes metric families: a name, what it means, its unit, and a value for each set of labels.
//!
//! The library writes the text; this spares its callers the types of its encoders.

use std::fmt;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, MetricEncoder,
    NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::metrics::Distribution;

/// What metrics are written on.
pub(super) struct Page<'e>(DescriptorEncoder<'e>);

/// A metric's name, without the prefix and `_total`, and what it means.
pub(super) type About = (&'static str, &'static str);

impl<'e> Page<'e> {
    pub(super) fn new(encoder: DescriptorEncoder<'e>) -> Page<'e> {
        Page(encoder)
    }

    /// A number that only grows.
    pub(super) fn counter(&mut self, about: About, value: u64) -> fmt::Result {
        self.counter_in(None, about, value)
    }

    /// The same in a unit, by which the name ends.
    pub(super) fn counter_in<V: EncodeCounterValue>(
        &mut self,
        unit: Option<Unit>,
        about: About,
        value: V,
    ) -> fmt::Result {
        encode_counter(self.describe(about, unit.as_ref(), MetricType::Counter)?, value)
    }

    /// Numbers that only grow, by their labels.
    pub(super) fn counters<L: EncodeLabelSet>(
        &mut self,
        about: About,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        self.counters_in(None, about, values)
    }

    /// The same in a unit, by which the name ends.
    pub(super) fn counters_in<L: EncodeLabelSet, V: EncodeCounterValue>(
        &mut self,
        unit: Option<Unit>,
        about: About,
        values: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let mut encoder = self.describe(about, unit.as_ref(), MetricType::Counter)?;
        for (labels, value) in values {
            encode_counter(encoder.encode_family(&labels)?, value)?;
        }
        Ok(())
    }

    /// A number as it is now.
    pub(super) fn gauge<V: EncodeGaugeValue>(&mut self, about: About, value: V) -> fmt::Result {
        self.gauge_in(None, about, value)
    }

    /// The same in a unit, by which the name ends.
    pub(super) fn gauge_in<V: EncodeGaugeValue>(
        &mut self,
        unit: Option<Unit>,
        about: About,
        value: V,
    ) -> fmt::Result {
        let encoder = self.describe(about, unit.as_ref(), MetricType::Gauge)?;
        encode_gauge(encoder, value)
    }

    /// Numbers as they are now, by their labels.
    pub(super) fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        about: About,
        values: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let mut encoder = self.describe(about, None, MetricType::Gauge)?;
        for (labels, value) in values {
            encode_gauge(encoder.encode_family(&labels)?, value)?;
        }
        Ok(())
    }

    /// How long something took, in seconds.
    pub(super) fn seconds(&mut self, about: About, times: &Distribution) -> fmt::Result {
        let encoder = self.describe(about, Some(&Unit::Seconds), MetricType::Histogram)?;
        encode_buckets(encoder, times.sum_seconds(), &times.coarse())
    }

    /// The same in coarse buckets, by their labels: a sum, and how many lay below each bound and
    /// not below the one before.
    pub(super) fn seconds_by<L: EncodeLabelSet>(
        &mut self,
        about: About,
        times: impl IntoIterator<Item = (L, (f64, Vec<(f64, u64)>))>,
    ) -> fmt::Result {
        let mut encoder = self.describe(about, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (labels, (sum, buckets)) in times {
            encode_buckets(encoder.encode_family(&labels)?, sum, &buckets)?;
        }
        Ok(())
    }

    /// Facts, as labels.
    pub(super) fn info(&mut self, about: About, labels: &impl EncodeLabelSet) -> fmt::Result {
        self.describe(about, None, MetricType::Info)?.encode_info(labels)
    }

    fn describe<'s>(
        &'s mut self,
        (name, meaning): About,
        unit: Option<&'s Unit>,
        metric_type: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, meaning, unit, metric_type)
    }
}

fn encode_counter<V: EncodeCounterValue>(mut encoder: MetricEncoder<'_>, value: V) -> fmt::Result {
    encoder.encode_counter::<NoLabelSet, _, f64>(&value, None)
}

fn encode_gauge<V: EncodeGaugeValue>(mut encoder: MetricEncoder<'_>, value: V) -> fmt::Result {
    encoder.encode_gauge(&value)
}

fn encode_buckets(mut encoder: MetricEncoder<'_>, sum: f64, buckets: &[(f64, u64)]) -> fmt::Result {
    let count = buckets.iter().map(|(_, count)| count).sum();
    encoder.encode_histogram::<NoLabelSet>(sum, count, buckets, None)
}
