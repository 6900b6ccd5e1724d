//! Signals that a policy may name.

use std::fmt;
use std::str::FromStr;

use crate::names::shown;

/// One of the 31 classic signals of Linux on x86-64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(u32);

impl Signal {
    /// SIGKILL, which no policy can forbid: the host can end the machine anyway.
    pub const KILL: Signal = Signal(9);

    /// The signal's number.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The signal of a number, 1 to 31.
    pub fn from_number(number: u32) -> Option<Self> {
        (1..=31).contains(&number).then_some(Self(number))
    }
}

impl FromStr for Signal {
    type Err = SignalError;

    fn from_str(text: &str) -> Result<Self, SignalError> {
        let bare = text
            .strip_prefix("SIG")
            .ok_or_else(|| SignalError { given: shown(text) })?;
        NAMES
            .iter()
            .position(|name| *name == bare)
            .and_then(|index| u32::try_from(index).ok())
            .map(|index| Self(index + 1))
            .ok_or_else(|| SignalError { given: shown(text) })
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = usize::try_from(self.0).ok().and_then(|number| number.checked_sub(1));
        write!(
            f,
            "SIG{}",
            index.and_then(|index| NAMES.get(index)).copied().unwrap_or_default()
        )
    }
}

/// A name that is no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given} is no signal; write for example SIGTERM")]
pub struct SignalError {
    given: String,
}

/// SIGHUP = 1 and on.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree_with_linux() {
        for (name, number) in [
            ("SIGHUP", 1),
            ("SIGKILL", 9),
            ("SIGTERM", 15),
            ("SIGCHLD", 17),
            ("SIGSYS", 31),
        ] {
            let signal: Signal = name.parse().unwrap();
            assert_eq!(signal.number(), number);
            assert_eq!(signal.to_string(), name);
            assert_eq!(Signal::from_number(number), Some(signal));
        }
        for bad in ["TERM", "SIG", "SIGRTMIN", "sigterm", "15"] {
            assert!(bad.parse::<Signal>().is_err(), "{bad}");
        }
        assert_eq!(Signal::from_number(0), None);
        assert_eq!(Signal::from_number(32), None);
    }
}
