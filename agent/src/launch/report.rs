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
    /// Everything is set up; the next thing is `exec`.
    Ready,
    /// A step failed; one line for people.
    Failed(String),
}

impl Report {
    /// Writes the report as one line.
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let line = match self {
            Self::Pid(pid) => format!("pid {pid}\n"),
            Self::Ready => "ready\n".to_owned(),
            Self::Failed(line) => format!("error {}\n", line.replace('\n', " ")),
        };
        to.write_all(line.as_bytes())
    }

    /// Reads a line without its end; `None` = not a report.
    pub(super) fn parse(line: &str) -> Option<Self> {
        if line == "ready" {
            return Some(Self::Ready);
        }
        match line.split_once(' ')? {
            ("pid", number) => number.parse().ok().filter(|pid| *pid > 1).map(Self::Pid),
            ("error", text) => Some(Self::Failed(text.chars().take(MAX_MESSAGE).collect())),
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
pub(super) const MAX_REPORTS: u64 = 16 * 1024;

/// Characters of a failure that are passed on.
const MAX_MESSAGE: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_survive_the_wire() {
        for report in [
            Report::Pid(42),
            Report::Ready,
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
