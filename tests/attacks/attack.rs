//! What an attack is, and the ground that it is tried on.
use std::sync::OnceLock;

use anyhow::{Result, anyhow};
use cella_tests::{Fixture, Outcome};

use crate::{
    hostile::{self, Hostile},
    stock::{self, Stock},
};

/// One entry of the list of threats.
pub(crate) struct Threat {
    /// Its number.
    pub(crate) number: u8,
    /// Its name in the list.
    pub(crate) title: &'static str,
    /// What is tried.
    pub(crate) attacks: &'static [Attack],
    /// What cannot be tried, since the thing that defends does not exist yet.
    pub(crate) open: &'static [Open],
}

impl Threat {
    pub(crate) fn test_name(&self, name: &str) -> String {
        format!("t{:02}::{name}", self.number)
    }
}

/// One attack: shown to work without the defence, then refused with it.
pub(crate) struct Attack {
    /// The test's name.
    pub(crate) name: &'static str,
    /// What the attacker does, for the table.
    pub(crate) tried: &'static str,
    /// What it is tried on.
    pub(crate) on: On,
    /// Tries it both ways. An error: it was not refused, or did not work without the defence either, which proves nothing.
    pub(crate) run: fn(&Ground) -> Result<Seen>,
}

/// What an attack is tried on.
#[derive(Clone, Copy)]
pub(crate) enum On {
    /// A micro-VM under containerd, with the simulated platform in the place of the security processor.
    Machine,
    /// The running key broker, with evidence of a simulated platform.
    Broker,
    /// A program of the owner's or the operator's desk.
    Desk,
    /// The library that the programs are made of, in process, with evidence that real hardware signed.
    RealEvidence,
    /// The library that the programs are made of, in process, with evidence of a simulated platform.
    SimulatedEvidence,
    /// The library that the programs are made of, in process.
    Library,
}

impl On {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Machine => "micro-VM, simulated TEE",
            Self::Broker => "cella-kbs, simulated evidence",
            Self::Desk => "cellactl",
            Self::RealEvidence => "verifier, evidence of real hardware",
            Self::SimulatedEvidence => "verifier, simulated evidence",
            Self::Library => "library",
        }
    }
}

/// What was seen of an attack that was refused.
pub(crate) struct Seen {
    /// What came of it without the defence, and what switched that off.
    pub(crate) without: String,
    /// The message that the operator reads.
    pub(crate) refusal: String,
}

impl Seen {
    pub(crate) fn new(without: impl Into<String>, refusal: impl Into<String>) -> Self {
        Self {
            without: without.into(),
            refusal: refusal.into(),
        }
    }
}

/// A part of a threat whose defence does not exist yet.
pub(crate) struct Open {
    /// The test's name.
    pub(crate) name: &'static str,
    /// What would be tried.
    pub(crate) part: &'static str,
    /// Why it is not.
    pub(crate) because: &'static str,
}

/// The stack, started for the first attack that needs it.
#[derive(Default)]
pub(crate) struct Ground {
    fixture: OnceLock<Result<Fixture, String>>,
    stock: OnceLock<Result<Stock, String>>,
    hostile: OnceLock<Result<Hostile, String>>,
}

impl Ground {
    pub(crate) fn fixture(&self) -> Result<&Fixture> {
        once(&self.fixture, Fixture::prepare)
    }

    /// A usual kernel on hostile hardware, tried once.
    pub(crate) fn stock(&self) -> Result<&Stock> {
        let run = || stock::run(self.fixture()?);
        once(&self.stock, run)
    }

    /// Cella's guest on hostile hardware, tried once.
    pub(crate) fn hostile(&self) -> Result<&Hostile> {
        let run = || hostile::run(self.fixture()?);
        once(&self.hostile, run)
    }

    /// Waits until nothing of a VM is left.
    pub(crate) fn leaves_nothing(&self) -> Result<()> {
        match self.fixture.get() {
            Some(Ok(fixture)) => fixture.stack.leaves_nothing(),
            _ => Ok(()),
        }
    }

    /// After an attack that went wrong: ends what still runs, and gives the last words of the services.
    pub(crate) fn clean(&self) -> String {
        match self.fixture.get() {
            Some(Ok(fixture)) => {
                let words = fixture.last_words();
                fixture.clean();
                words
            }
            _ => String::new(),
        }
    }

    pub(crate) fn finish(self) -> Result<()> {
        match self.fixture.into_inner() {
            Some(Ok(fixture)) => fixture.finish(),
            _ => Ok(()),
        }
    }
}

fn once<T>(cell: &OnceLock<Result<T, String>>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    cell.get_or_init(|| make().map_err(|e| format!("{e:#}")))
        .as_ref()
        .map_err(|e| anyhow!("{e}"))
}

/// What `ctr` said last: the operator's message.
pub(crate) fn said(outcome: &Outcome) -> String {
    last_line(&outcome.stderr)
}

/// What `cellactl` said, of an error that carries its command line too.
pub(crate) fn told(error: &anyhow::Error) -> String {
    let text = error.to_string();
    let said = text.split_once("cellactl: ").map_or(text.as_str(), |(_, said)| said);
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The last line of a text that says something.
pub(crate) fn last_line(text: &str) -> String {
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.unwrap_or_default().trim().to_owned()
}

/// An error with its causes, as programs print it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
