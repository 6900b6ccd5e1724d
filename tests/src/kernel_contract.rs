//! What the guest's kernel must be: `guest-image/kernel.contract` against the `.config` of a build.
//!
//! kconfig drops and adds symbols silently, so what was asked for proves nothing; only the configuration that came out does.
use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};

/// The lines of a contract.
#[derive(Debug)]
pub struct Contract(Vec<Line>);

#[derive(Debug)]
struct Line {
    demand: Demand,
    threat: String,
    reason: String,
}

#[derive(Debug)]
enum Demand {
    /// A symbol has a value; `None`: it is not set.
    Symbol(String, Option<String>),
    /// Symbols with a prefix are set only if they are among these.
    Only(String, BTreeSet<String>),
    /// A word of the kernel's command line.
    Word(String),
}

impl Contract {
    /// Reads a contract. Comments begin with `#`.
    ///
    /// # Errors
    /// For a line without all its parts, a threat that is none, or a symbol that is named twice.
    pub fn parse(text: &str) -> Result<Self> {
        let mut lines = Vec::new();
        let mut seen = BTreeSet::new();
        for (number, text) in text.lines().enumerate() {
            if text.trim().is_empty() || text.starts_with('#') {
                continue;
            }
            let line = line(text).with_context(|| format!("kernel.contract, line {}: {text:?}", number + 1))?;
            let key = match &line.demand {
                Demand::Symbol(name, _) => name.clone(),
                Demand::Only(prefix, _) => format!("only {prefix}"),
                Demand::Word(word) => format!("word {word}"),
            };
            ensure!(seen.insert(key), "kernel.contract, line {}: again {text:?}", number + 1);
            lines.push(line);
        }
        ensure!(!lines.is_empty(), "kernel.contract demands nothing");
        Ok(Self(lines))
    }

    /// How many demands there are.
    #[must_use]
    pub fn demands(&self) -> usize {
        self.0.len()
    }

    /// Every demand that a configuration and a command line break, one line each.
    ///
    /// # Errors
    /// When `config` is not the `.config` of a kernel.
    pub fn broken_by(&self, config: &str, cmdline: &str) -> Result<Vec<String>> {
        let set = symbols(config)?;
        Ok(self
            .0
            .iter()
            .filter_map(|line| {
                let found = line.demand.broken_by(&set, cmdline)?;
                Some(format!("{}: {found} ({})", line.threat, line.reason))
            })
            .collect())
    }
}

impl Demand {
    fn broken_by(&self, set: &BTreeMap<&str, &str>, cmdline: &str) -> Option<String> {
        match self {
            Self::Symbol(name, wanted) => {
                let found = set.get(name.as_str()).copied();
                (found != wanted.as_deref()).then(|| {
                    format!(
                        "CONFIG_{name} is {}, must be {}",
                        found.unwrap_or("not set"),
                        wanted.as_deref().unwrap_or("not set")
                    )
                })
            }
            Self::Only(prefix, names) => {
                let strangers: Vec<_> = set
                    .keys()
                    .filter(|name| {
                        name.strip_prefix(prefix.as_str())
                            .is_some_and(|rest| !names.contains(rest))
                    })
                    .map(|name| format!("CONFIG_{name}"))
                    .collect();
                (!strangers.is_empty()).then(|| format!("{} set beside what is listed", strangers.join(", ")))
            }
            Self::Word(word) => (!cmdline.split_ascii_whitespace().any(|found| found == word))
                .then(|| format!("the command line lacks {word}")),
        }
    }
}

fn line(text: &str) -> Result<Line> {
    let (first, rest) = part(text)?;
    let (second, rest) = part(rest)?;
    let third = if first == "only" || first == "word" {
        None
    } else {
        Some(second)
    };
    let (threat, reason) = part(rest)?;
    ensure!(
        threat
            .strip_prefix('T')
            .is_some_and(|number| number.parse().is_ok_and(|number: u8| (1..=28).contains(&number))),
        "{threat:?} is no threat"
    );
    let demand = match third {
        Some(value) => {
            ensure!(
                first
                    .bytes()
                    .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_'),
                "{first:?} is no symbol"
            );
            Demand::Symbol(first.to_owned(), (value != "n").then(|| value.to_owned()))
        }
        None if first == "only" => Demand::Only(
            second.to_owned(),
            reason.split_ascii_whitespace().map(str::to_owned).collect(),
        ),
        None => Demand::Word(second.to_owned()),
    };
    Ok(Line {
        demand,
        threat: threat.to_owned(),
        reason: reason.to_owned(),
    })
}

/// The first word of a text, and what follows it.
fn part(text: &str) -> Result<(&str, &str)> {
    match text.trim_start().split_once(char::is_whitespace) {
        Some((word, rest)) if !rest.trim().is_empty() => Ok((word, rest.trim())),
        _ => bail!("a part is missing"),
    }
}

/// The symbols that are set, by their names without `CONFIG_`.
fn symbols(config: &str) -> Result<BTreeMap<&str, &str>> {
    let mut set = BTreeMap::new();
    for line in config.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let symbol = line.strip_prefix("CONFIG_").and_then(|symbol| symbol.split_once('='));
        let Some((name, value)) = symbol else {
            bail!("not the .config of a kernel: {line:?}")
        };
        set.insert(name, value);
    }
    ensure!(set.contains_key("X86_64"), "not the .config of an x86-64 kernel");
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "# Linux\nCONFIG_X86_64=y\n# CONFIG_SWAP is not set\nCONFIG_VIRTIO_BLK=y\nCONFIG_BITS=32\n";

    fn broken(contract: &str) -> Vec<String> {
        Contract::parse(contract)
            .unwrap()
            .broken_by(CONFIG, "quiet panic=-1\n")
            .unwrap()
    }

    #[test]
    fn what_is_demanded_is_looked_for() {
        let kept = "# c\n\nX86_64 y T1 r\nSWAP n T15 r\nUNKNOWN n T1 r\nBITS 32 T1 r\nonly VIRTIO_ T11 BLK NET\nword panic=-1 T1 r s\n";
        assert_eq!(broken(kept), Vec::<String>::new());
        for (line, said) in [
            ("X86_64 n T2 why so", "T2: CONFIG_X86_64 is y, must be not set (why so)"),
            ("SWAP y T2 why", "T2: CONFIG_SWAP is not set, must be y (why)"),
            ("BITS 28 T2 why", "T2: CONFIG_BITS is 32, must be 28 (why)"),
            (
                "only VIRTIO_ T2 NET",
                "T2: CONFIG_VIRTIO_BLK set beside what is listed (NET)",
            ),
            ("word panic T2 why", "T2: the command line lacks panic (why)"),
        ] {
            assert_eq!(broken(line), [said]);
        }
    }

    #[test]
    fn a_line_that_says_too_little_is_an_error() {
        for bad in [
            "",
            "# only a comment",
            "SWAP n T15",
            "SWAP n",
            "only VIRTIO_ T11",
            "SWAP n T0 r",
            "SWAP n 15 r",
            "swap n T1 r",
            "A n T1 r\nA y T1 r",
        ] {
            assert!(Contract::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_no_configuration_is_an_error() {
        let contract = Contract::parse("SWAP n T15 r").unwrap();
        for bad in ["", "hello", "CONFIG_ARM64=y\n", "\u{0}"] {
            assert!(contract.broken_by(bad, "").is_err(), "{bad:?}");
        }
    }
}
