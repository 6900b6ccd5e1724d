//! What of a container's streams reaches the host.

/// Its three streams, and those of every further process in it. The host's wish for pipes is no offence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stdio {
    /// Whether the host may write to stdin. Otherwise it is empty.
    pub stdin: bool,
    /// What is printed.
    pub stdout: Output,
    /// What is printed about errors.
    pub stderr: Output,
}

/// What of a stream of output reaches the host, the strictest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// Nothing: it is drained in the guest.
    Deny,
    /// That there was some, and about how much: rounded up, and seldom. Never a byte of it.
    Redact,
    /// Every byte.
    Allow,
}

impl Stdio {
    /// Nothing either way.
    pub const DENY: Self = Self {
        stdin: false,
        stdout: Output::Deny,
        stderr: Output::Deny,
    };

    /// Everything both ways.
    pub const ALLOW: Self = Self {
        stdin: true,
        stdout: Output::Allow,
        stderr: Output::Allow,
    };

    /// What of a terminal's output reaches the host: both streams come out of it, so the stricter of the two.
    pub fn terminal(self) -> Output {
        self.stdout.min(self.stderr)
    }

    /// Whether the host may read what a program leaves at its end: not where it may not read all that it prints.
    pub fn tells_last_words(self) -> bool {
        self.terminal() == Output::Allow
    }
}
