//! The table: threat, attack tried, what came of it without the defence, result, evidence. For people on standard output and as
//! Markdown, for programs as JSON.
use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::attack::{Attack, Open, Seen, Threat};

/// One line of the table.
#[derive(Clone)]
pub(crate) struct Row {
    number: u8,
    title: &'static str,
    tried: &'static str,
    on: &'static str,
    result: Outcome,
    without: String,
    evidence: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Refused,
    Failed,
    Open,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Failed => "FAILED",
            Self::Open => "open",
        }
    }
}

impl Row {
    pub(crate) fn tried(threat: &Threat, attack: &Attack, outcome: Result<Seen, String>) -> Self {
        let (result, without, evidence) = match outcome {
            Ok(seen) => (Outcome::Refused, seen.without, seen.refusal),
            Err(text) => (Outcome::Failed, String::new(), text),
        };
        Self {
            number: threat.number,
            title: threat.title,
            tried: attack.tried,
            on: attack.on.words(),
            result,
            without,
            evidence,
        }
    }

    fn open(threat: &Threat, open: &Open) -> Self {
        Self {
            number: threat.number,
            title: threat.title,
            tried: open.part,
            on: "nothing yet",
            result: Outcome::Open,
            without: String::new(),
            evidence: open.because.to_owned(),
        }
    }

    fn is_open(&self) -> bool {
        self.result == Outcome::Open
    }
}

/// All of it.
pub(crate) struct Report<'a> {
    pub(crate) threats: &'a [&'a Threat],
    pub(crate) rows: Vec<Row>,
    /// Whether every attack was tried.
    pub(crate) complete: bool,
}

impl Report<'_> {
    /// Prints the table and writes the files; gives the last line.
    pub(crate) fn write(mut self) -> Result<String> {
        let tried: BTreeSet<u8> = self.rows.iter().map(|row| row.number).collect();
        for threat in self.threats {
            if self.complete || tried.contains(&threat.number) {
                self.rows.extend(threat.open.iter().map(|open| Row::open(threat, open)));
            }
        }
        self.rows.sort_by_key(|row| row.number);
        let folder = logs()?;
        let stem = if self.complete { "attacks" } else { "attacks-partial" };
        let (markdown, json) = (folder.join(format!("{stem}.md")), folder.join(format!("{stem}.json")));
        fs::write(&markdown, self.markdown()).with_context(|| markdown.display().to_string())?;
        fs::write(&json, format!("{:#}\n", self.json())).with_context(|| json.display().to_string())?;
        print!("{}", self.text());
        println!("report: {} and {}", markdown.display(), json.display());
        Ok(self.last_line())
    }

    fn count(&self, result: Outcome) -> usize {
        self.rows.iter().filter(|row| row.result == result).count()
    }

    fn last_line(&self) -> String {
        let refused = self.count(Outcome::Refused);
        format!(
            "attacks: refused={refused} of={}",
            refused + self.count(Outcome::Failed)
        )
    }

    /// Threats of which nothing could be tried, and those of which a part could not.
    fn open_line(&self) -> String {
        let open: BTreeSet<u8> = self
            .rows
            .iter()
            .filter(|row| row.is_open())
            .map(|row| row.number)
            .collect();
        let words: Vec<_> = open
            .iter()
            .map(|number| {
                let whole = self.threats.iter().any(|t| t.number == *number && t.attacks.is_empty());
                format!("T{number}{}", if whole { "" } else { " in part" })
            })
            .collect();
        if words.is_empty() {
            return String::new();
        }
        format!("open, not tried and not counted: {}\n", words.join(", "))
    }

    fn text(&self) -> String {
        let mut text = String::from("\n");
        for row in &self.rows {
            text += &format!(
                "T{:<3} {:<8} {} [{}]\n",
                row.number,
                row.result.word(),
                row.tried,
                row.on
            );
            if !row.without.is_empty() {
                text += &format!("     without: {}\n", one_line(&row.without));
            }
            let name = if row.is_open() { "because" } else { "seen" };
            text += &format!("     {name}: {}\n", one_line(&row.evidence));
        }
        text + "\n" + &self.open_line()
    }

    fn markdown(&self) -> String {
        let mut text = format!(
            "# Attacks\n\nCommit {}. {}\n\n| threat | attack tried | on | without the defence | result | what the operator sees |\n|---|---|---|---|---|---|\n",
            commit(),
            if self.complete {
                "All of them."
            } else {
                "A part of them only."
            }
        );
        for row in &self.rows {
            let cell = |text: &str| one_line(text).replace('|', "\\|");
            text += &format!(
                "| T{} {} | {} | {} | {} | {} | {} |\n",
                row.number,
                row.title,
                cell(row.tried),
                row.on,
                cell(&row.without),
                row.result.word(),
                cell(&row.evidence)
            );
        }
        text + &format!("\n{}\n`{}`\n", self.open_line(), self.last_line())
    }

    fn json(&self) -> Value {
        let row = |row: &Row| {
            json!({
                "threat": format!("T{}", row.number),
                "title": row.title,
                "tried": row.tried,
                "on": row.on,
                "without": row.without,
                "result": row.result.word(),
                "evidence": row.evidence,
            })
        };
        json!({
            "commit": commit(),
            "complete": self.complete,
            "refused": self.count(Outcome::Refused),
            "of": self.count(Outcome::Refused) + self.count(Outcome::Failed),
            "open": self.count(Outcome::Open),
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
        })
    }
}

/// Checks that docs/threat-model.md has a line for each threat, with the name of each attack and of each part that is open, and no others.
pub(crate) fn documented(threats: &[&Threat]) -> Result<()> {
    let path = cella_tests::stack::repository().join("docs/threat-model.md");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let (_, section) = text
        .split_once("## Shown by attacks")
        .context("no section \"Shown by attacks\"")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    for threat in threats {
        let line = section
            .lines()
            .find(|line| line.starts_with(&format!("| T{} |", threat.number)));
        let mut cells = line
            .with_context(|| format!("no line for T{}", threat.number))?
            .split('|')
            .skip(2);
        let mut named = || -> BTreeSet<String> {
            let cell = cells.next().unwrap_or_default();
            cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
        };
        let attacks: BTreeSet<_> = threat.attacks.iter().map(|attack| attack.name.to_owned()).collect();
        let open: BTreeSet<_> = threat.open.iter().map(|open| open.name.to_owned()).collect();
        ensure!(named() == attacks, "T{}: the attacks are {attacks:?}", threat.number);
        ensure!(named() == open, "T{}: open are {open:?}", threat.number);
    }
    Ok(())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn commit() -> String {
    let git = |args: &[&str]| {
        let out = Command::new("git")
            .arg("-C")
            .arg(cella_tests::stack::repository())
            .args(args)
            .output()
            .ok()?;
        out.status
            .success()
            .then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    let changed = git(&["status", "--porcelain"]).is_some_and(|text| !text.is_empty());
    let id = git(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    if changed { format!("{id} with changes") } else { id }
}

fn logs() -> Result<PathBuf> {
    let cache = env::var_os("CELLA_CACHE").map(PathBuf::from);
    let folder = match cache {
        Some(cache) => cache,
        None => Path::new(&env::var_os("HOME").context("neither CELLA_CACHE nor HOME is set")?).join(".cache/cella"),
    }
    .join("logs");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}
