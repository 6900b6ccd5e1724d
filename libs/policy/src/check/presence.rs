//! Who of the policy's containers is there, as far as the agent has seen: whose turn it is, and whether clients may come in.
//!
//! ```text
//!              started                    ended with 0
//! left out ──────────────▶ running ──────────────────────▶ completed
//!     ▲                      │  ▲                             │
//!     └── ended otherwise ───┘  └────────── started ──────────┘        (paused counts as not running)
//! ```
//! The ingress is open while no required container is missing: `presence = "running"` must run now, and one that is
//! `"completed"` must have ended with status 0 once. It shuts again as soon as one is gone. While it is shut nothing that the host
//! writes reaches a program, and no command line that the policy does not name is run.

use std::collections::BTreeMap;
use std::fmt;

use super::{Denial, Subject};
use crate::names::shown;
use crate::policy::{ContainerPolicy, Policy, Presence};

/// The containers of a policy and what has become of them. Pure: the agent tells it what happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineup {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    presence: Presence,
    after: Vec<String>,
    /// Instances that run and are not paused.
    running: u32,
    completed: bool,
}

/// What happens to one instance of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Its program runs, for the first time or again after a pause.
    Running,
    /// Its processes are stopped by the host; they may go on.
    Paused,
    /// Its first process has ended.
    Ended {
        /// With which status.
        status: u32,
        /// Whether it was paused: then it has not counted as running already.
        paused: bool,
    },
}

/// A required container that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The policy's name for it.
    pub container: String,
    /// What must be true of it.
    pub presence: Presence,
}

impl Lineup {
    /// Nobody is there yet.
    pub fn new(policy: &Policy) -> Self {
        let entry = |container: &ContainerPolicy| Entry {
            presence: container.presence,
            after: container.after.clone(),
            running: 0,
            completed: false,
        };
        let containers = policy.containers().iter();
        Self {
            entries: containers
                .map(|container| (container.name.clone(), entry(container)))
                .collect(),
        }
    }

    /// Whether the container may start now.
    ///
    /// # Errors
    /// [`Denial::Order`]: the first container that its `after` names and that is not there.
    pub fn check_start(&self, name: &str) -> Result<(), Denial> {
        let after = self.entries.get(name).map(|entry| entry.after.as_slice());
        for other in after.unwrap_or_default() {
            let needed = match self.entries.get(other) {
                Some(entry) if entry.is_there() => continue,
                Some(entry) => entry.presence.needed(),
                None => Presence::Running.needed(),
            };
            return Err(Denial::Order {
                subject: Subject::Container(name.to_owned()),
                other: shown(other),
                needed,
            });
        }
        Ok(())
    }

    /// Whether the host may run a command line of its own choice in `container` now, if it may at all. Those that the policy names
    /// may run at any time: probes and hooks do so before everybody is there.
    ///
    /// # Errors
    /// [`Denial::ExecShut`], with who is missing.
    pub fn check_exec(&self, container: &ContainerPolicy) -> Result<(), Denial> {
        match self.shut_because() {
            Some(missing) if container.exec.is_any() => Err(Denial::ExecShut {
                subject: Subject::Exec(container.name.clone()),
                missing,
            }),
            _ => Ok(()),
        }
    }

    /// Notes what has happened to a container of the policy.
    pub fn note(&mut self, name: &str, turn: Turn) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        match turn {
            Turn::Running => entry.running = entry.running.saturating_add(1),
            Turn::Paused => entry.running = entry.running.saturating_sub(1),
            Turn::Ended { status, paused } => {
                entry.running = entry.running.saturating_sub(u32::from(!paused));
                entry.completed |= status == 0;
            }
        }
    }

    /// The required containers that are not there, by name.
    pub fn missing(&self) -> Vec<Missing> {
        let missing = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.presence != Presence::Optional && !entry.is_there());
        missing
            .map(|(name, entry)| Missing {
                container: name.clone(),
                presence: entry.presence,
            })
            .collect()
    }

    /// Why the ingress is shut, in words; `None` where it is open.
    pub fn shut_because(&self) -> Option<String> {
        let names: Vec<String> = self.missing().iter().map(ToString::to_string).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }
}

impl Entry {
    fn is_there(&self) -> bool {
        match self.presence {
            Presence::Running | Presence::Optional => self.running > 0,
            Presence::Completed => self.completed,
        }
    }
}

impl Presence {
    const fn needed(self) -> &'static str {
        match self {
            Self::Running | Self::Optional => "runs",
            Self::Completed => "has ended with status 0",
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.presence {
            Presence::Running | Presence::Optional => "does not run",
            Presence::Completed => "has not ended with status 0",
        };
        write!(f, "container {:?} {state}", self.container)
    }
}
