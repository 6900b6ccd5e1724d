//! Why a launch failed: at which step, on what, and what the kernel said.

use nix::errno::Errno;

use super::report::Report;

/// One step of the launch that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{step} {subject}")]
pub struct StepError {
    /// What was being done: `mount`, `exec`.
    pub step: &'static str,
    /// To what: a path inside the container, a limit's name.
    pub subject: String,
    /// What the kernel said.
    #[source]
    pub source: Errno,
    /// What people read in its place; `None` = the kernel's words.
    words: Option<&'static str>,
}

impl StepError {
    /// The program could not be started, in the words that every runtime uses and operators know.
    pub fn program(program: &str, source: Errno) -> Self {
        let words = match source {
            Errno::ENOENT => Some("no such file or directory"),
            Errno::EACCES => Some("permission denied"),
            Errno::ENOEXEC => Some("exec format error"),
            _ => None,
        };
        Self {
            step: "exec:",
            subject: format!("{program:?}"),
            source,
            words,
        }
    }

    /// The program is nowhere in `PATH`.
    pub fn not_in_path(program: &str) -> Self {
        Self {
            words: Some("executable file not found in $PATH"),
            ..Self::program(program, Errno::ENOENT)
        }
    }

    /// As the agent hears it.
    pub(super) fn report(&self) -> Report {
        // Processes or memory of the cgroup are used up: the launch would be fine at another time.
        if matches!((self.step, self.source), ("fork", Errno::EAGAIN | Errno::ENOMEM)) {
            Report::Full(self.line())
        } else {
            Report::Failed(self.line())
        }
    }

    /// `map_err(StepError::at("mount", "/proc"))`.
    pub fn at(step: &'static str, subject: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        move |source| Self {
            step,
            subject: subject.into(),
            source,
            words: None,
        }
    }

    /// The same for `std::io` errors, which come from the same kernel.
    pub fn io(step: &'static str, subject: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self {
            step,
            subject: subject.into(),
            source: error.raw_os_error().map_or(Errno::EIO, Errno::from_raw),
            words: None,
        }
    }

    /// One line for the way back to the agent: `mount /proc: Operation not permitted`.
    pub fn line(&self) -> String {
        let subject: String = self
            .subject
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect();
        let words = self.words.unwrap_or_else(|| self.source.desc());
        format!("{} {subject}: {words}", self.step)
    }
}

/// Why a container did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The launcher process could not be made.
    #[error("starting the launcher failed")]
    Spawn(#[source] std::io::Error),
    /// The plan could not be handed over.
    #[error("handing the plan to the launcher failed")]
    Plan(#[source] std::io::Error),
    /// The launcher's socket failed.
    #[error("listening to the launcher failed")]
    Report(#[source] std::io::Error),
    /// A step failed, in the launcher's words.
    #[error("{0}")]
    Step(String),
    /// There is no room for a further process, in the launcher's words.
    #[error("{0}")]
    Full(String),
    /// The launcher or the new process died without a word, of a signal or for lack of memory.
    #[error("the launcher ended before the program was started (killed, or out of memory)")]
    Died,
    /// It took too long.
    #[error("the launcher did not finish within {seconds} s")]
    TimedOut {
        /// The limit.
        seconds: u64,
    },
}
