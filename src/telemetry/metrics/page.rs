//! The page of metrics, in the two text formats that scrapers read.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{self, DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Registry,
};

use super::{Histogram, process};

/// What is counted, as a metric of one name with `N` labels.
#[derive(Debug)]
pub struct Family<const N: usize> {
    /// The name without the role's prefix and, for a counter, without `_total`; its unit at the end.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// What its series are told apart by.
    pub labels: [&'static str; N],
}

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Times by their lengths.
    Histogram,
}

/// A [`Family`] whatever its labels, for tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// As of [`Family`].
    pub name: &'static str,
    /// As of [`Family`].
    pub kind: Kind,
    /// As of [`Family`].
    pub labels: &'static [&'static str],
}

impl<const N: usize> Family<N> {
    /// A counter.
    #[must_use]
    pub const fn counter(
        name: &'static str,
        labels: [&'static str; N],
        help: &'static str,
    ) -> Self {
        Self::new(name, Kind::Counter, labels, help)
    }

    /// A gauge.
    #[must_use]
    pub const fn gauge(name: &'static str, labels: [&'static str; N], help: &'static str) -> Self {
        Self::new(name, Kind::Gauge, labels, help)
    }

    /// A histogram.
    #[must_use]
    pub const fn histogram(
        name: &'static str,
        labels: [&'static str; N],
        help: &'static str,
    ) -> Self {
        Self::new(name, Kind::Histogram, labels, help)
    }

    const fn new(
        name: &'static str,
        kind: Kind,
        labels: [&'static str; N],
        help: &'static str,
    ) -> Self {
        Self {
            name,
            help,
            kind,
            labels,
        }
    }

    /// Its row in a table of all.
    #[must_use]
    pub const fn row(&'static self) -> Row {
        Row {
            name: self.name,
            kind: self.kind,
            labels: &self.labels,
        }
    }
}

#[cfg(test)]
impl Row {
    /// Its name on the page of a role, its type and its labels, as docs/operating.md has them.
    pub(crate) fn documented(&self, prefix: &str) -> (String, String, Vec<String>) {
        let (kind, end) = match self.kind {
            Kind::Counter => ("counter", "_total"),
            Kind::Gauge => ("gauge", ""),
            Kind::Histogram => ("histogram", ""),
        };
        let labels = self.labels.iter().map(|label| (*label).to_owned());
        (
            format!("{prefix}_{}{end}", self.name),
            kind.to_owned(),
            labels.collect(),
        )
    }
}

/// Somebody whose numbers can be read.
pub trait Source: Send + Sync + 'static {
    /// Writes every family, those without a series too.
    ///
    /// # Errors
    /// If the page takes no more.
    fn collect(&self, page: &mut Page<'_>) -> fmt::Result;
}

/// What is being written.
#[derive(Debug)]
pub struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    /// Writes one family; `each` writes its series.
    ///
    /// # Errors
    /// If the page takes no more.
    pub fn family<const N: usize>(
        &mut self,
        family: &Family<N>,
        each: impl FnOnce(&mut Series<'_, N>) -> fmt::Result,
    ) -> fmt::Result {
        let kind = match family.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
        };
        let encoder = self
            .0
            .encode_descriptor(family.name, family.help, None, kind)?;
        each(&mut Series {
            kind: family.kind,
            labels: family.labels,
            encoder,
        })
    }

    /// Writes a family that has no labels.
    ///
    /// # Errors
    /// If the page takes no more.
    pub fn number(&mut self, family: &Family<0>, number: u64) -> fmt::Result {
        self.family(family, |series| series.number([], number))
    }
}

/// The series of one family.
#[derive(Debug)]
pub struct Series<'a, const N: usize> {
    kind: Kind,
    labels: [&'static str; N],
    encoder: MetricEncoder<'a>,
}

impl<const N: usize> Series<'_, N> {
    /// Writes the series with these values of the labels: a count, or a gauge's number.
    ///
    /// # Errors
    /// If the page takes no more, or the family counts times.
    pub fn number(&mut self, values: [&str; N], number: u64) -> fmt::Result {
        let labels = labelled(self.labels, values);
        let mut series = self.encoder.encode_family(&labels)?;
        match self.kind {
            Kind::Counter => series.encode_counter::<NoLabelSet, _, f64>(&number, None),
            Kind::Gauge => series.encode_gauge(&number),
            Kind::Histogram => Err(fmt::Error),
        }
    }

    /// The same for a gauge that is no whole number.
    ///
    /// # Errors
    /// If the page takes no more.
    pub fn fraction(&mut self, values: [&str; N], number: f64) -> fmt::Result {
        let labels = labelled(self.labels, values);
        self.encoder.encode_family(&labels)?.encode_gauge(&number)
    }

    /// The same for times.
    ///
    /// # Errors
    /// If the page takes no more.
    pub fn times(&mut self, values: [&str; N], times: &Histogram) -> fmt::Result {
        let labels = labelled(self.labels, values);
        let buckets = times.buckets();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let mut series = self.encoder.encode_family(&labels)?;
        series.encode_histogram::<NoLabelSet>(times.sum(), count, &buckets, None)
    }
}

fn labelled<'a, const N: usize>(
    names: [&'static str; N],
    values: [&'a str; N],
) -> [(&'static str, &'a str); N] {
    let mut values = values.into_iter();
    names.map(|name| (name, values.next().unwrap_or_default()))
}

/// All metrics of a process with one role.
#[derive(Debug)]
pub struct Exposition(Registry);

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Exposition {
    /// The metrics of `source` under names that begin with `prefix`, and those of the process.
    #[must_use]
    pub fn new(prefix: &'static str, source: impl Source) -> Self {
        let mut registry = Registry::default();
        let role = registry.sub_registry_with_prefix(prefix);
        role.register_collector(Box::new(Collected(source)));
        let process = registry.sub_registry_with_prefix("process");
        process.register_collector(Box::new(Collected(process::Process)));
        Self(registry)
    }

    /// The whole page.
    ///
    /// # Errors
    /// [`fmt::Error`] if it cannot be written.
    pub fn render(&self, format: Format) -> Result<String, fmt::Error> {
        let mut text = String::new();
        match format {
            Format::Prometheus => encoding::prometheus_text::encode(&mut text, &self.0)?,
            Format::OpenMetrics => encoding::text::encode(&mut text, &self.0)?,
        }
        Ok(text)
    }
}

struct Collected<S>(S);

impl<S> fmt::Debug for Collected<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collected")
    }
}

impl<S: Source> Collector for Collected<S> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.collect(&mut Page(encoder))
    }
}

/// What an `Accept` field asks for (RFC 9110 section 12.5.1).
#[derive(Clone, Copy, Debug)]
pub struct Accepts<'a>(pub &'a str);

impl Accepts<'_> {
    /// OpenMetrics where it is named and nothing else is preferred.
    #[must_use]
    pub fn format(self) -> Format {
        let open_metrics = self.quality_of("application/openmetrics-text");
        if open_metrics > 0.0 && open_metrics >= self.quality_of("text/plain") {
            Format::OpenMetrics
        } else {
            Format::Prometheus
        }
    }

    /// The highest quality that a media type is given; 0 where it is not named.
    fn quality_of(self, media_type: &str) -> f32 {
        let ranges = self.0.split(',').filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let named = parts.next()?.eq_ignore_ascii_case(media_type);
            let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok());
            named.then(|| quality.unwrap_or(1.0_f32))
        });
        ranges.fold(0.0, f32::max)
    }
}

impl Format {
    /// Its media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SEEN: Family<2> = Family::counter("seen", ["a", "b"], "What was seen.");
    const HELD: Family<0> = Family::gauge("held_bytes", [], "What is held.");
    const LEFT: Family<1> = Family::gauge("left_seconds", ["a"], "What is left.");
    const TOOK: Family<1> = Family::histogram("took_seconds", ["a"], "How long it took.");

    struct Some;

    impl Source for Some {
        fn collect(&self, page: &mut Page<'_>) -> fmt::Result {
            page.family(&SEEN, |series| {
                series.number(["x", "quote \" backslash \\ line\n"], 2)?;
                series.number(["y", ""], 0)
            })?;
            page.number(&HELD, 3)?;
            page.family(&LEFT, |series| series.fraction(["x"], 1.5))?;
            let times = Histogram::default();
            times.observe(Duration::from_millis(1500));
            page.family(&TOOK, |series| series.times(["x"], &times))
        }
    }

    #[test]
    fn both_formats_name_and_escape_as_they_must() {
        let page = Exposition::new("role", Some);
        let common = [
            "role_seen_total{a=\"x\",b=\"quote \\\" backslash \\\\ line\\n\"} 2",
            "role_seen_total{a=\"y\",b=\"\"} 0",
            "# TYPE role_held_bytes gauge",
            "role_held_bytes 3",
            "role_left_seconds{a=\"x\"} 1.5",
            "role_took_seconds_sum{a=\"x\"} 1.5",
            "role_took_seconds_count{a=\"x\"} 1",
        ];
        let text = page.render(Format::Prometheus).unwrap();
        for line in common {
            assert!(text.lines().any(|it| it == line), "{line} in {text}");
        }
        assert!(
            text.contains(
                "# HELP role_seen_total What was seen.\n# TYPE role_seen_total counter\n"
            )
        );
        assert!(text.contains("role_took_seconds_bucket{"), "{text}");
        let text = page.render(Format::OpenMetrics).unwrap();
        for line in common {
            assert!(text.lines().any(|it| it == line), "{line} in {text}");
        }
        assert!(
            text.contains("# TYPE role_seen counter\n") && text.ends_with("# EOF\n"),
            "{text}"
        );
    }

    #[test]
    fn the_format_is_the_one_that_is_asked_for() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,\
                          application/openmetrics-text;version=0.0.1;q=0.4,\
                          text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        let cases = [
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            (
                "text/plain, application/openmetrics-text; q=0.5",
                Format::Prometheus,
            ),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            ("text/html,*/*;q=0.8", Format::Prometheus),
            ("", Format::Prometheus),
            (";;q=,,q=x", Format::Prometheus),
        ];
        for (accept, format) in cases {
            assert_eq!(Accepts(accept).format(), format, "{accept}");
        }
    }
}
