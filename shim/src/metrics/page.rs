//! Prometheus text: families with their help and type, then their samples.

use std::fmt::{Display, Write as _};
use std::time::Duration;

/// A page under construction.
#[derive(Default)]
pub(super) struct Page {
    text: String,
    family: &'static str,
}

/// The two types that are used.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

impl Page {
    /// Begins a family; its samples follow.
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) -> &mut Self {
        self.family = name;
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        self
    }

    /// A sample of the family.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        self.text.push_str(self.family);
        for (index, (name, value)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{name}=\"{}\"", escaped(value));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
        self
    }

    /// The text.
    pub(super) fn finish(self) -> String {
        self.text
    }
}

/// Seconds, as Prometheus wants every duration.
pub(super) fn seconds(duration: Duration) -> String {
    format!("{}.{:06}", duration.as_secs(), duration.subsec_micros())
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_durations_are_seconds() {
        let mut page = Page::default();
        page.family("a_total", Kind::Counter, "What it is.")
            .sample(&[], 1)
            .sample(&[("x", "a\"b\\c\nd"), ("y", "")], seconds(Duration::from_millis(1500)));
        let expected = "# HELP a_total What it is.\n# TYPE a_total counter\na_total 1\n\
                        a_total{x=\"a\\\"b\\\\c\\nd\",y=\"\"} 1.500000\n";
        assert_eq!(page.finish(), expected);
    }
}
