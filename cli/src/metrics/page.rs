//! Prometheus text of several shims, made into one: each family once, with every sample under its owner's name.
//!
//! A shim is no enemy of its operator, but it may be of another version, or an impostor's socket: a line that is no sample of
//! the family that it stands in is left out, so that a scraper never stumbles over the whole page.

use std::collections::{BTreeMap, BTreeSet};

/// Whose samples they are.
#[derive(Debug, Clone, Default)]
pub(super) struct Owner {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) id: String,
}

/// Families by name.
#[derive(Default)]
pub(super) struct Pages(BTreeMap<String, Family>);

#[derive(Default)]
struct Family {
    help: String,
    kind: String,
    /// Series and value; a series is there once.
    samples: Vec<(String, String)>,
    series: BTreeSet<String>,
}

impl Pages {
    /// A sample of this program's own.
    pub(super) fn own(&mut self, (name, help): (&str, &str), owner: &Owner, value: u8) {
        self.family(name, help, "gauge")
            .push(format!("{name}{{{}}}", owner.labels()), value.to_string());
    }

    /// The samples of a shim's page.
    pub(super) fn add(&mut self, page: &str, owner: &Owner) {
        let labels = owner.labels();
        let (mut help, mut current) = (None, None);
        for line in page.lines().take(MAX_LINES) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                (help, current) = (rest.split_once(' '), None);
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                current = rest
                    .split_once(' ')
                    .filter(|(name, kind)| is_name(name) && is_kind(kind));
                if let Some((name, kind)) = current {
                    let text = help.filter(|(of, _)| *of == name).map_or("", |(_, text)| text);
                    self.family(name, text, kind);
                }
            } else if let Some((name, _)) = current
                && let Some((own, value)) = sample(line, name)
                && let Some(family) = self.0.get_mut(name)
            {
                let separator = if own.is_empty() { "" } else { "," };
                family.push(format!("{name}{{{labels}{separator}{own}}}"), value.to_owned());
            }
        }
    }

    /// The text.
    pub(super) fn finish(self) -> String {
        let mut out = String::new();
        for (name, family) in self.0 {
            out.push_str(&format!(
                "# HELP {name} {}\n# TYPE {name} {}\n",
                family.help, family.kind
            ));
            for (series, value) in family.samples {
                out.push_str(&format!("{series} {value}\n"));
            }
        }
        out
    }

    fn family(&mut self, name: &str, help: &str, kind: &str) -> &mut Family {
        let family = self.0.entry(name.to_owned()).or_default();
        if family.kind.is_empty() {
            family.help = help.chars().filter(|c| !c.is_control()).take(MAX_HELP).collect();
            family.kind = kind.to_owned();
        }
        family
    }
}

impl Family {
    fn push(&mut self, series: String, value: String) {
        if self.series.insert(series.clone()) {
            self.samples.push((series, value));
        }
    }
}

impl Owner {
    fn labels(&self) -> String {
        let escaped = |text: &str| {
            let text: String = text.chars().filter(|c| !c.is_control()).take(MAX_LABEL).collect();
            text.replace('\\', "\\\\").replace('"', "\\\"")
        };
        let (namespace, pod, id) = (escaped(&self.namespace), escaped(&self.pod), escaped(&self.id));
        format!("namespace=\"{namespace}\",pod=\"{pod}\",id=\"{id}\"")
    }
}

/// The labels and the value of `name{labels} value`; none where the line is something else, or claims an owner.
fn sample<'a>(line: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    if line.len() > MAX_LINE || line.chars().any(char::is_control) {
        return None;
    }
    let rest = line.strip_prefix(name)?;
    let (labels, value) = match rest.strip_prefix('{') {
        None => ("", rest.strip_prefix(' ')?),
        Some(rest) => {
            let end = labels_end(rest)?;
            (rest.get(..end)?, rest.get(end..)?.strip_prefix("} ")?)
        }
    };
    value.parse::<f64>().is_ok().then_some((labels, value))
}

/// Where the labels end: behind `name="value"` pairs with commas between them.
fn labels_end(text: &str) -> Option<usize> {
    let mut rest = text;
    loop {
        let (name, value) = rest.split_once("=\"")?;
        if !is_name(name) || OWNER.contains(&name) {
            return None;
        }
        let mut escaped = false;
        let end = value.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        })?;
        rest = value.get(end + 1..)?;
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return rest.starts_with('}').then(|| text.len() - rest.len()),
        }
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_kind(kind: &str) -> bool {
    matches!(kind, "counter" | "gauge")
}

const OWNER: [&str; 3] = ["namespace", "pod", "id"];
const MAX_LINES: usize = 10_000;
const MAX_LINE: usize = 2048;
const MAX_HELP: usize = 400;
const MAX_LABEL: usize = 253;
