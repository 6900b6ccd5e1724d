//! Calls of the agent's that a pod can do without, and that tell of it or act on it.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use crate::names::NameError;

/// A call that the host may make only where the policy names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    /// Stopping a container's processes and letting them go on.
    Pause,
    /// Replacing a container's limits while it is there.
    Update,
    /// The numbers of a container's processes.
    Processes,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pause, Self::Update, Self::Processes];

    /// Its name in policies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Update => "update",
            Self::Processes => "processes",
        }
    }
}

impl FromStr for Call {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let found = Self::ALL.into_iter().find(|call| call.as_str() == text);
        found.ok_or_else(|| NameError::new("call", text, "must be pause, update or processes"))
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How exactly the host is told what containers use. Use of CPU and memory follows what a server works on (threat T4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stats {
    /// Not at all.
    Deny,
    /// Memory and CPU time, coarse, once a minute.
    Coarse,
    /// Everything that the guest's kernel counts, at any time.
    Exact,
}
