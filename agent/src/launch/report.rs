//! What launcher and agent say to each other: lines on a socket, and one byte back.
//!
//! The launcher is our own code but shares the socket with a process that is about to become the workload, so the
//! reading side bounds what it takes. The workload itself never holds the socket: it is close-on-exec.

use std::io::{self, Read, Write};

/// One line from the launcher.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// Process 1 of the container, as the agent's process namespace numbers it.
    Pid(u32),
    /// The terminal's master side comes with this line.
    Terminal,
    /// Everything is set up; the next thing is `exec`.
    Ready,
    /// There is no room for a further process; one line for people.
    Full(String),
    /// A step failed; one line for people.
    Failed(String),
}

impl Report {
    /// Writes the report as one line.
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(self.line().as_bytes())
    }

    /// The report as it is sent.
    pub(super) fn line(&self) -> String {
        match self {
            Self::Pid(pid) => format!("pid {pid}\n"),
            Self::Terminal => "terminal\n".to_owned(),
            Self::Ready => "ready\n".to_owned(),
            Self::Full(line) => format!("full {}\n", line.replace('\n', " ")),
            Self::Failed(line) => format!("error {}\n", line.replace('\n', " ")),
        }
    }

    /// Reads a line without its end; `None` = not a report.
    pub(super) fn parse(line: &str) -> Option<Self> {
        match line {
            "ready" => return Some(Self::Ready),
            "terminal" => return Some(Self::Terminal),
            _ => {}
        }
        let bounded = |text: &str| text.chars().take(MAX_MESSAGE).collect();
        match line.split_once(' ')? {
            ("pid", number) => number.parse().ok().filter(|pid| *pid > 1).map(Self::Pid),
            ("full", text) => Some(Self::Full(bounded(text))),
            ("error", text) => Some(Self::Failed(bounded(text))),
            _ => None,
        }
    }
}

/// Waits for the agent's acknowledgement; the end of the socket is an error.
pub(super) fn await_ack(from: &mut impl Read) -> io::Result<()> {
    from.read_exact(&mut [0])
}

/// The acknowledgement.
pub(super) const ACK: &[u8] = b"k";

/// Bytes that the agent reads from the socket at most.
pub(super) const MAX_REPORTS: usize = 16 * 1024;

/// Characters of a failure that are passed on.
const MAX_MESSAGE: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_survive_the_wire() {
        for report in [
            Report::Pid(42),
            Report::Terminal,
            Report::Ready,
            Report::Full("fork: Resource temporarily unavailable".into()),
            Report::Failed("exec /x: No such file".into()),
        ] {
            let mut wire = Vec::new();
            report.write(&mut wire).unwrap();
            let line = String::from_utf8(wire).unwrap();
            assert_eq!(Report::parse(line.strip_suffix('\n').unwrap()), Some(report));
        }
    }

    #[test]
    fn what_is_no_report_is_refused() {
        for line in ["", "pid", "pid x", "pid 1", "pid -4", "ready ", "error", "hello world"] {
            assert_eq!(Report::parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn a_failure_is_one_bounded_line() {
        let mut wire = Vec::new();
        Report::Failed("two\nlines".into()).write(&mut wire).unwrap();
        assert_eq!(wire, b"error two lines\n");
        let Some(Report::Failed(text)) = Report::parse(&format!("error {}", "x".repeat(5000))) else {
            panic!()
        };
        assert_eq!(text.len(), MAX_MESSAGE);
    }
}
