//! One family of the text format under construction.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use super::exemplar::Exemplar;

/// A name, what it means, and its values by label.
pub(super) struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    metrics: Vec<Metric>,
    exemplars: Vec<Placed>,
}

/// Behind which value of a family an exemplar stands: which metric, and which bucket of it.
struct Placed {
    metric: usize,
    bucket: usize,
    exemplar: Exemplar,
}

/// A family with its values, ready to be written.
pub(super) struct Gathered {
    pub(super) family: MetricFamily,
    /// In the order of their places.
    exemplars: Vec<Placed>,
}

impl Gathered {
    /// The exemplar behind one value.
    pub(super) fn exemplar(&self, metric: usize, bucket: usize) -> Option<&Exemplar> {
        let place = |placed: &Placed| (placed.metric, placed.bucket);
        let found = self
            .exemplars
            .binary_search_by_key(&(metric, bucket), place);
        Some(&self.exemplars.get(found.ok()?)?.exemplar)
    }
}

impl From<MetricFamily> for Gathered {
    fn from(family: MetricFamily) -> Self {
        Self {
            family,
            exemplars: Vec::new(),
        }
    }
}

impl Family {
    /// Only grows.
    pub(super) fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::COUNTER)
    }

    /// Goes up and down.
    pub(super) fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::GAUGE)
    }

    /// A distribution.
    pub(super) fn histogram(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::HISTOGRAM)
    }

    fn new(name: &'static str, help: &'static str, kind: MetricType) -> Self {
        Self {
            name,
            help,
            kind,
            metrics: Vec::new(),
            exemplars: Vec::new(),
        }
    }

    /// Adds a value. Whole numbers are exact up to 2^53.
    pub(super) fn push(&mut self, labels: &[(&str, &str)], value: f64) {
        let mut metric = Metric::from_label(labels.iter().map(pair).collect());
        if self.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    /// Adds a whole number.
    #[allow(
        clippy::cast_precision_loss,
        reason = "the text format has no other numbers"
    )]
    pub(super) fn count(&mut self, labels: &[(&str, &str)], count: u64) {
        self.push(labels, count as f64);
    }

    /// Says which request is behind the value that was added last.
    pub(super) fn exemplify(&mut self, bucket: usize, exemplar: Option<Exemplar>) {
        let metric = self.metrics.len().saturating_sub(1);
        self.exemplars.extend(exemplar.map(|exemplar| Placed {
            metric,
            bucket,
            exemplar,
        }));
    }

    /// Adds a distribution that carries its labels.
    pub(super) fn push_histogram(&mut self, histogram: &prometheus::Histogram) {
        self.metrics
            .push(prometheus::core::Metric::metric(histogram));
    }

    /// Adds a distribution without labels: upper bounds with the number of values up to each, the last infinite.
    pub(super) fn push_buckets(&mut self, buckets: &[(f64, u64)], sum: f64) {
        let mut histogram = Histogram::default();
        histogram.set_sample_sum(sum);
        histogram.set_sample_count(buckets.last().map_or(0, |(_, count)| *count));
        let finite = buckets.iter().filter(|(bound, _)| bound.is_finite());
        let finite = finite.map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(*count);
            bucket
        });
        histogram.set_bucket(finite.collect());
        let mut metric = Metric::default();
        metric.set_histogram(histogram);
        self.metrics.push(metric);
    }

    /// `None` without values: the text format knows no empty family.
    pub(super) fn gathered(self) -> Option<Gathered> {
        if self.metrics.is_empty() {
            return None;
        }
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(self.kind);
        family.set_metric(self.metrics);
        let mut exemplars = self.exemplars;
        exemplars.sort_unstable_by_key(|placed| (placed.metric, placed.bucket));
        Some(Gathered { family, exemplars })
    }
}

fn pair((name, value): &(&str, &str)) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name((*name).to_owned());
    pair.set_value((*value).to_owned());
    pair
}
