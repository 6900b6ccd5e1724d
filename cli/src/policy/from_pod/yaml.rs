//! YAML as a tree that remembers its lines, so that whatever is refused can be found.
//!
//! A file is read within bounds: bytes, nodes (what an alias repeats counts again) and depth. A key that stands twice is
//! refused: which one counts depends on the reader. A plain word that YAML 1.1 takes for a number, a truth or nothing is
//! none of these where Kubernetes wants text, and Kubernetes refuses it there; so does this.

use std::collections::BTreeMap;
use std::fmt;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// A word as it stands, and whether it is in quotes or a block.
    Scalar { text: String, quoted: bool },
    /// A list.
    List(Vec<Node>),
    /// A table, in its order.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// A value of the table; `None` where it is not there or `null`.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        let Value::Map(entries) = &self.value else {
            return None;
        };
        let (_, node) = entries.iter().find(|(name, _)| name == key)?;
        (!node.is_null()).then_some(node)
    }

    /// The value at the end of a way through tables.
    pub(super) fn at(&self, way: &[&str]) -> Option<&Node> {
        way.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The entries of a table.
    pub(super) fn entries(&self) -> Result<&[(String, Node)], YamlError> {
        match &self.value {
            Value::Map(entries) => Ok(entries),
            _ => Err(self.not("a table")),
        }
    }

    /// The items of a list.
    pub(super) fn items(&self) -> Result<&[Node], YamlError> {
        match &self.value {
            Value::List(items) => Ok(items),
            _ => Err(self.not("a list")),
        }
    }

    /// A text.
    pub(super) fn text(&self) -> Result<&str, YamlError> {
        match &self.value {
            Value::Scalar { text, quoted } if *quoted || !is_typed(text) => Ok(text),
            Value::Scalar { .. } => Err(self.not("a text: put it in quotes")),
            _ => Err(self.not("a text")),
        }
    }

    /// `true` or `false`.
    pub(super) fn truth(&self) -> Result<bool, YamlError> {
        match &self.value {
            Value::Scalar { text, quoted: false } if text == "true" => Ok(true),
            Value::Scalar { text, quoted: false } if text == "false" => Ok(false),
            _ => Err(self.not("true or false")),
        }
    }

    /// A number from 0 on.
    pub(super) fn number(&self) -> Result<u64, YamlError> {
        match &self.value {
            Value::Scalar { text, quoted: false } => text.parse().map_err(|_| self.not("a number from 0 on")),
            _ => Err(self.not("a number from 0 on")),
        }
    }

    /// A number or a text, as a text.
    pub(super) fn word(&self) -> Result<&str, YamlError> {
        match &self.value {
            Value::Scalar { text, .. } => Ok(text),
            _ => Err(self.not("a number or a text")),
        }
    }

    fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, quoted: false } if NULLS.contains(&text.as_str()))
    }

    fn not(&self, expected: &'static str) -> YamlError {
        YamlError::Kind {
            line: self.line,
            expected,
        }
    }
}

/// The documents of a file.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, YamlError> {
    if text.len() > MAX_BYTES {
        return Err(YamlError::Large { found: text.len() });
    }
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|source| YamlError::Syntax { source })?;
        builder.take(event, span.start.line())?;
    }
    Ok(builder.documents)
}

/// A list or table that is not complete.
struct Open {
    line: usize,
    anchor: usize,
    container: Container,
}

enum Container {
    List(Vec<Node>),
    Map {
        entries: Vec<(String, Node)>,
        /// The key whose value comes next, and its line.
        key: Option<String>,
    },
}

#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    open: Vec<Open>,
    /// What aliases stand for.
    anchors: BTreeMap<usize, (Node, Extent)>,
    nodes: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), YamlError> {
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let value = Value::Scalar {
                    text: text.into_owned(),
                    quoted: style != ScalarStyle::Plain,
                };
                self.put(Node { line, value }, anchor, 1)
            }
            Event::SequenceStart(anchor, _) => self.begin(line, anchor, Container::List(Vec::new())),
            Event::MappingStart(anchor, _) => self.begin(
                line,
                anchor,
                Container::Map {
                    entries: Vec::new(),
                    key: None,
                },
            ),
            Event::SequenceEnd | Event::MappingEnd => self.end(line),
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some((_, extent)) if self.open.len().saturating_add(extent.depth) > MAX_DEPTH => {
                    Err(YamlError::Deep { line })
                }
                Some((node, extent)) => {
                    let (node, size) = (node.clone(), extent.nodes);
                    self.put(node, 0, size)
                }
                None => Err(YamlError::Alias { line }),
            },
            Event::DocumentEnd => {
                // Aliases do not reach across documents.
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => Ok(()),
        }
    }

    fn begin(&mut self, line: usize, anchor: usize, container: Container) -> Result<(), YamlError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(YamlError::Deep { line });
        }
        self.open.push(Open {
            line,
            anchor,
            container,
        });
        Ok(())
    }

    fn end(&mut self, line: usize) -> Result<(), YamlError> {
        let open = self.open.pop().ok_or(YamlError::Deep { line })?;
        let value = match open.container {
            Container::List(items) => Value::List(items),
            Container::Map { entries, .. } => Value::Map(entries),
        };
        let node = Node { line: open.line, value };
        self.put(node, open.anchor, 1)
    }

    /// Puts a complete node where it belongs. `size` is how many nodes it adds.
    fn put(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), YamlError> {
        let line = node.line;
        self.nodes = self.nodes.saturating_add(size);
        if self.nodes > MAX_NODES {
            return Err(YamlError::Many { line });
        }
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), Extent::of(&node)));
        }
        match self.open.last_mut().map(|open| &mut open.container) {
            None => self.documents.push(node),
            Some(Container::List(items)) => items.push(node),
            Some(Container::Map { entries, key }) => match key.take() {
                Some(name) => entries.push((name, node)),
                None => {
                    let Value::Scalar { text, .. } = node.value else {
                        return Err(YamlError::Key { line });
                    };
                    if entries.iter().any(|(name, _)| *name == text) {
                        return Err(YamlError::Twice { line, key: text });
                    }
                    *key = Some(text);
                }
            },
        }
        Ok(())
    }
}

/// How much an alias repeats.
#[derive(Clone, Copy)]
struct Extent {
    nodes: usize,
    /// Of lists and tables.
    depth: usize,
}

impl Extent {
    fn of(node: &Node) -> Self {
        let mut extent = Self { nodes: 0, depth: 0 };
        let mut open = vec![(node, 0_usize)];
        while let Some((node, above)) = open.pop() {
            extent.nodes = extent.nodes.saturating_add(1);
            let depth = above.saturating_add(1);
            match &node.value {
                Value::Scalar { .. } => continue,
                Value::List(items) => open.extend(items.iter().map(|node| (node, depth))),
                Value::Map(entries) => open.extend(entries.iter().map(|(_, node)| (node, depth))),
            }
            extent.depth = extent.depth.max(depth);
        }
        extent
    }
}

/// Whether YAML 1.1, which Kubernetes reads, takes the plain word for something else than text.
fn is_typed(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let number = text.trim_start_matches(['+', '-']);
    NULLS.contains(&text)
        || ["true", "false", "yes", "no", "on", "off", "y", "n"].contains(&lower.as_str())
        || [".inf", ".nan"].contains(&number.to_ascii_lowercase().as_str())
        || (number.starts_with(|c: char| c.is_ascii_digit() || c == '.')
            && (text.replace('_', "").parse::<f64>().is_ok() || is_based(number)))
}

/// `0x1f`, `0o17`, `0b11`.
fn is_based(number: &str) -> bool {
    [("0x", 16), ("0o", 8), ("0b", 2)].into_iter().any(|(prefix, base)| {
        let digits = number.strip_prefix(prefix);
        digits.is_some_and(|digits| !digits.is_empty() && digits.chars().all(|c| c.is_digit(base)))
    })
}

/// Why a text is no YAML that is read here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum YamlError {
    #[error("it has {found} bytes, more than {MAX_BYTES}")]
    Large { found: usize },
    #[error("line {}: {}", source.marker().line(), shown(source))]
    Syntax { source: ScanError },
    #[error("line {line}: nested more than {MAX_DEPTH} deep")]
    Deep { line: usize },
    #[error("line {line}: more than {MAX_NODES} values, counted with what aliases repeat")]
    Many { line: usize },
    #[error("line {line}: an alias to nothing that is complete")]
    Alias { line: usize },
    #[error("line {line}: a key must be a word")]
    Key { line: usize },
    #[error("line {line}: key {key:?} stands there twice")]
    Twice { line: usize, key: String },
    #[error("line {line}: this must be {expected}")]
    Kind { line: usize, expected: &'static str },
}

/// The parser's words without its own idea of a position.
fn shown(error: &ScanError) -> impl fmt::Display {
    error
        .info()
        .chars()
        .filter(|c| !c.is_control())
        .take(200)
        .collect::<String>()
}

const NULLS: [&str; 5] = ["", "~", "null", "Null", "NULL"];
/// Larger than etcd takes.
const MAX_BYTES: usize = 2 << 20;
const MAX_NODES: usize = 100_000;
const MAX_DEPTH: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Node {
        parse(text).unwrap().remove(0)
    }

    #[test]
    fn lines_are_remembered() {
        let node = one("a:\n  - b: 1\n    c: \"x\"\n");
        let c = node.get("a").unwrap().items().unwrap()[0].get("c").unwrap();
        assert_eq!((c.line, c.text().unwrap()), (3, "x"));
        assert_eq!(node.at(&["a", "b"]), None);
        let documents = parse("a: 1\n---\nb: 2\n---\n# nothing\n").unwrap();
        assert_eq!(documents[1].get("b").unwrap().line, 3);
    }

    #[test]
    fn text_that_kubernetes_would_not_take_is_refused() {
        for typed in [
            "true", "yes", "No", "1", "1.5", "-3", "0x1f", "~", "null", "1e3", ".inf", "1_000",
        ] {
            let error = one(&format!("value: [{typed}]")).get("value").unwrap().items().unwrap()[0]
                .text()
                .unwrap_err();
            assert!(
                error.to_string().starts_with("line 1: this must be a text"),
                "{typed}: {error}"
            );
        }
        for text in ["x", "1.2.3", "10.0.0.1", "a1", "-x", "\"1\"", "'true'", "0xz", "+"] {
            assert!(
                one(&format!("value: [{text}]")).get("value").unwrap().items().unwrap()[0]
                    .text()
                    .is_ok()
            );
        }
    }

    #[test]
    fn bombs_and_doubles_are_refused() {
        assert!(matches!(parse("a: 1\na: 2"), Err(YamlError::Twice { line: 2, .. })));
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for step in 1..10 {
            let refs = vec![format!("*a{}", step - 1); 10].join(", ");
            bomb.push_str(&format!("a{step}: &a{step} [{refs}]\n"));
        }
        assert!(matches!(parse(&bomb), Err(YamlError::Many { .. })));
        let deep = format!(
            "a: &a {}{}\nb: {}*a{}",
            "[".repeat(40),
            "]".repeat(40),
            "[".repeat(40),
            "]".repeat(40)
        );
        assert!(matches!(parse(&deep), Err(YamlError::Deep { line: 2 })));
        assert!(matches!(
            parse(&"[".repeat(100)),
            Err(YamlError::Deep { .. } | YamlError::Syntax { .. })
        ));
        assert!(matches!(parse("? [a]\n: b"), Err(YamlError::Key { .. })));
        assert!(matches!(
            parse(&"#".repeat(MAX_BYTES + 1)),
            Err(YamlError::Large { .. })
        ));
        assert!(parse("a: [").is_err());
        assert!(parse("a: &x [*x]").is_err());
    }

    #[test]
    fn aliases_stand_for_what_they_name() {
        let node = one("a: &x {b: c}\nd: *x\n");
        assert_eq!(node.at(&["d", "b"]).unwrap().text().unwrap(), "c");
    }
}
