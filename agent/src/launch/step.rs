//! Why a launch failed: at which step, on what, and what the kernel said.

use nix::errno::Errno;

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
}

impl StepError {
    /// `map_err(StepError::at("mount", "/proc"))`.
    pub fn at(step: &'static str, subject: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        move |source| Self {
            step,
            subject: subject.into(),
            source,
        }
    }

    /// The same for `std::io` errors, which come from the same kernel.
    pub fn io(step: &'static str, subject: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self {
            step,
            subject: subject.into(),
            source: error.raw_os_error().map_or(Errno::EIO, Errno::from_raw),
        }
    }

    /// One line for the way back to the agent: `exec /usr/bin/x: No such file or directory`.
    pub fn line(&self) -> String {
        let subject: String = self
            .subject
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect();
        format!("{} {subject}: {}", self.step, self.source.desc())
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
