//! The OpenMetrics text format: what `prometheus` has not, exemplars above all.

use std::fmt::{self, Write as _};
use std::time::SystemTime;

use http::HeaderMap;
use http::header::ACCEPT;
use prometheus::proto::{LabelPair, Metric, MetricType};

use super::exemplar::Exemplar;
use super::family::Gathered;

/// Content type of [`Metrics::render_open`](super::Metrics::render_open).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether a scraper would rather read OpenMetrics than the older text format.
#[must_use]
pub fn is_preferred(headers: &HeaderMap) -> bool {
    let (mut open, mut text) = (0.0, 0.0);
    let fields = headers.get_all(ACCEPT).iter();
    for range in fields.flat_map(|field| field.to_str().unwrap_or_default().split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let (mut quality, mut is_ours) = (1.0, true);
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim().to_ascii_lowercase().as_str() {
                "q" => quality = value.trim().parse::<f32>().unwrap_or(0.0),
                "version" => is_ours = value.trim().trim_matches('"') == "1.0.0",
                _ => {}
            }
        }
        if media.eq_ignore_ascii_case("application/openmetrics-text") && is_ours {
            open = quality.max(open);
        } else if media.eq_ignore_ascii_case("text/plain") {
            text = quality.max(text);
        }
    }
    open > 0.0 && open >= text
}

/// All of `families`, with the mark that nothing was cut off.
pub(super) fn encode(families: &[Gathered]) -> String {
    let mut text = String::new();
    for family in families {
        // Writing into a string does not fail.
        let _ = write_family(&mut text, family);
    }
    text.push_str("# EOF\n");
    text
}

fn write_family(text: &mut String, gathered: &Gathered) -> fmt::Result {
    let family = &gathered.family;
    let kind = family.get_field_type();
    // The family of a counter is called by what is counted; its one sample says that it is a total.
    let name = match kind {
        MetricType::COUNTER => {
            let name = family.name();
            name.strip_suffix("_total").unwrap_or(name)
        }
        _ => family.name(),
    };
    let word = match kind {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        MetricType::SUMMARY | MetricType::UNTYPED => "unknown",
    };
    writeln!(text, "# TYPE {name} {word}")?;
    writeln!(text, "# HELP {name} {}", Escaped(family.help()))?;
    for (position, metric) in family.get_metric().iter().enumerate() {
        let exemplar = |bucket| gathered.exemplar(position, bucket);
        match kind {
            MetricType::COUNTER => {
                let value = metric.get_counter().get_value();
                write_sample(text, name, "_total", metric, None, value)?;
                end(text, exemplar(0))?;
            }
            MetricType::HISTOGRAM => write_histogram(text, name, metric, exemplar)?,
            _ => {
                let value = metric.get_gauge().get_value();
                write_sample(text, name, "", metric, None, value)?;
                end(text, None)?;
            }
        }
    }
    Ok(())
}

#[allow(
    clippy::cast_precision_loss,
    reason = "the format has no other numbers"
)]
fn write_histogram<'e>(
    text: &mut String,
    name: &str,
    metric: &Metric,
    exemplar: impl Fn(usize) -> Option<&'e Exemplar>,
) -> fmt::Result {
    let histogram = metric.get_histogram();
    let (count, sum) = (histogram.get_sample_count(), histogram.get_sample_sum());
    let buckets = histogram.get_bucket();
    for (place, bucket) in buckets.iter().enumerate() {
        let bound = bucket.upper_bound();
        let seen = bucket.cumulative_count() as f64;
        write_sample(text, name, "_bucket", metric, Some(bound), seen)?;
        end(text, exemplar(place))?;
    }
    if buckets
        .last()
        .is_none_or(|last| last.upper_bound().is_finite())
    {
        let all = Some(f64::INFINITY);
        write_sample(text, name, "_bucket", metric, all, count as f64)?;
        end(text, exemplar(buckets.len()))?;
    }
    write_sample(text, name, "_count", metric, None, count as f64)?;
    end(text, None)?;
    write_sample(text, name, "_sum", metric, None, sum)?;
    end(text, None)
}

fn write_sample(
    text: &mut String,
    name: &str,
    suffix: &str,
    metric: &Metric,
    bound: Option<f64>,
    value: f64,
) -> fmt::Result {
    write!(text, "{name}{suffix}")?;
    let mut opening = '{';
    for (label, value) in metric.get_label().iter().map(both) {
        write!(text, "{opening}{label}=\"{}\"", Escaped(value))?;
        opening = ',';
    }
    if let Some(bound) = bound {
        write!(text, "{opening}le=\"{}\"", Bound(bound))?;
        opening = ',';
    }
    if opening == ',' {
        text.push('}');
    }
    write!(text, " {value}")
}

fn end(text: &mut String, exemplar: Option<&Exemplar>) -> fmt::Result {
    if let Some(exemplar) = exemplar {
        let since = exemplar.at.duration_since(SystemTime::UNIX_EPOCH);
        let at = since.unwrap_or_default().as_secs_f64();
        let (id, value) = (exemplar.id(), exemplar.value);
        write!(text, " # {{request_id=\"{id}\"}} {value} {at:.3}")?;
    }
    writeln!(text)
}

fn both(pair: &LabelPair) -> (&str, &str) {
    (pair.name(), pair.value())
}

/// A text between quotation marks.
struct Escaped<'t>(&'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// A bound of a bucket in its canonical spelling: a whole number is written as a float.
struct Bound(f64);

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_infinite() {
            f.write_str("+Inf")
        } else {
            write!(f, "{:?}", self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefers(accept: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        is_preferred(&headers)
    }

    #[test]
    fn scrapers_that_read_it_get_it_and_others_do_not() {
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for reads in [
            prometheus_2,
            prometheus_3,
            "application/openmetrics-text",
            "Application/OpenMetrics-Text; Version=\"1.0.0\"",
        ] {
            assert!(prefers(reads), "{reads}");
        }
        for does_not in [
            "*/*",
            "text/plain",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;version=1.0.0;q=0",
            "application/openmetrics-text;q=0.1, text/plain;q=0.9",
            "application/openmetrics-text;q=often",
            "application/json;x=application/openmetrics-text",
            "",
        ] {
            assert!(!prefers(does_not), "{does_not}");
        }
        assert!(!is_preferred(&HeaderMap::new()));
    }

    #[test]
    fn bounds_and_texts_are_spelt_as_the_format_says() {
        let spelt = |bound: f64| Bound(bound).to_string();
        assert_eq!(
            [spelt(0.0025), spelt(1.0), spelt(30.0)],
            ["0.0025", "1.0", "30.0"]
        );
        assert_eq!(spelt(f64::INFINITY), "+Inf");
        assert_eq!(Escaped("a\"b\\c\nd").to_string(), "a\\\"b\\\\c\\nd");
    }
}
