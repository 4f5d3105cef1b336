//! The two text formats of metrics, and which one a client gets.
//!
//! OpenMetrics 1.0 is what is written; the older format of Prometheus, 0.0.4, is made of it line
//! by line, for readers that do not ask for the newer one. The two differ in the lines about a
//! family alone, since counters are told of under their samples' name in the older one.

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format of Prometheus, version 0.0.4.
    Prometheus,
}

impl Format {
    /// What an `Accept` header asks for: OpenMetrics where it is named, unless with a weight of
    /// nothing, and the older format otherwise.
    #[must_use]
    pub fn asked(accept: Option<&str>) -> Format {
        let mut ranges = accept.unwrap_or_default().split(',');
        let is_named = ranges.any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let is_type = parts.next().is_some_and(|it| it.eq_ignore_ascii_case(OPEN_METRICS));
            let is_refused = |it: &str| it.strip_prefix("q=").is_some_and(is_nothing);
            is_type && !parts.any(is_refused)
        });
        if is_named { Format::OpenMetrics } else { Format::Prometheus }
    }

    /// The value of `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Turns a text of OpenMetrics into one of this format.
    pub(super) fn of(self, text: String) -> String {
        if self == Format::OpenMetrics {
            return text;
        }
        let mut written = String::with_capacity(text.len());
        let mut help = "";
        for line in text.lines() {
            let mut words = line.splitn(4, ' ');
            match (words.next(), words.next(), words.next(), words.next()) {
                // It stands before the type, which its name depends on.
                (Some("#"), Some("HELP"), Some(_), said) => help = said.unwrap_or_default(),
                (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                    let (suffix, kind) = match kind {
                        "counter" => ("_total", kind),
                        "info" => ("_info", "gauge"),
                        _ => ("", kind),
                    };
                    let about = [
                        ["# HELP ", name, suffix, " ", help, "\n"],
                        ["# TYPE ", name, suffix, " ", kind, "\n"],
                    ];
                    written.extend(about.into_iter().flatten());
                }
                (Some("#"), ..) => {}
                _ => written.extend([line, "\n"]),
            }
        }
        written
    }
}

/// Whether a weight is 0 (RFC 9110 §12.4.2).
fn is_nothing(weight: &str) -> bool {
    weight.starts_with('0') && weight.bytes().all(|byte| matches!(byte, b'0' | b'.'))
}

/// The media type of OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_given_to_those_that_name_it() {
        for (accept, format) in [
            (None, Format::Prometheus),
            (Some("*/*"), Format::Prometheus),
            (Some("text/plain;version=0.0.4;q=1,*/*;q=0.1"), Format::Prometheus),
            (Some("application/openmetrics-text"), Format::OpenMetrics),
            (Some("text/html, APPLICATION/OpenMetrics-Text; version=1.0.0"), Format::OpenMetrics),
            (
                Some("application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1"),
                Format::OpenMetrics,
            ),
            (Some("application/openmetrics-text;q=0.0, text/plain"), Format::Prometheus),
        ] {
            assert_eq!(Format::asked(accept), format, "{accept:?}");
        }
    }

    #[test]
    fn the_older_format_tells_of_a_counter_under_its_samples_name() {
        let text = "# HELP a_seconds What it is.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\n\
                    a_seconds_total{worker=\"0\"} 1\n# HELP b Facts.\n# TYPE b info\nb_info{v=\"1\"} 1\n\
                    # HELP c Now.\n# TYPE c gauge\nc 3\n# EOF\n";
        let expected = "# HELP a_seconds_total What it is.\n# TYPE a_seconds_total counter\n\
                        a_seconds_total{worker=\"0\"} 1\n# HELP b_info Facts.\n# TYPE b_info gauge\n\
                        b_info{v=\"1\"} 1\n# HELP c Now.\n# TYPE c gauge\nc 3\n";
        assert_eq!(Format::Prometheus.of(text.to_owned()), expected);
        assert_eq!(Format::OpenMetrics.of(text.to_owned()), text);
    }
}
