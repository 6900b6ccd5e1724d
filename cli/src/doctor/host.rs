//! The machine as the checks see it: files below a root, programs that answer.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};

use crate::files;

/// Where to look, and how to ask a program.
pub(super) struct Host {
    root: PathBuf,
    ask: Box<Ask>,
}

/// A program and its arguments; the error says why it did not run.
type Ask = dyn Fn(&Path, &[&str]) -> io::Result<Answer>;

/// What a program said.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub(super) succeeded: bool,
    /// Standard output, then standard error.
    pub(super) text: String,
}

impl Host {
    /// This machine.
    pub(super) fn real() -> Self {
        Self {
            root: PathBuf::from("/"),
            ask: Box::new(ask),
        }
    }

    /// A machine that is a directory, with programs that are a function.
    #[cfg(test)]
    pub(super) fn fake(root: &Path, ask: impl Fn(&Path, &[&str]) -> io::Result<Answer> + 'static) -> Self {
        Self {
            root: root.to_owned(),
            ask: Box::new(ask),
        }
    }

    /// Where `path` really is.
    pub(super) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A text file; none where it cannot be read.
    pub(super) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        files::read_text(&self.path(path), files::MAX_TEXT).ok()
    }

    /// Whether anything is there.
    pub(super) fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).exists()
    }

    pub(super) fn is_file(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).is_file()
    }

    /// Whether a device opens for reading and writing.
    pub(super) fn opens(&self, path: impl AsRef<Path>) -> io::Result<()> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path(path))
            .map(drop)
    }

    /// Whether a kernel parameter is on.
    pub(super) fn parameter(&self, path: &str) -> bool {
        self.text(path).is_some_and(|text| matches!(text.trim(), "Y" | "1"))
    }

    pub(super) fn is_socket(&self, path: impl AsRef<Path>) -> bool {
        fs::metadata(self.path(path)).is_ok_and(|metadata| metadata.file_type().is_socket())
    }

    /// Runs a program: by path, or by name through PATH. At most [`PATIENCE`].
    pub(super) fn ask(&self, program: impl AsRef<Path>, arguments: &[&str]) -> io::Result<Answer> {
        (self.ask)(program.as_ref(), arguments)
    }
}

fn ask(program: &Path, arguments: &[&str]) -> io::Result<Answer> {
    // Into files: a program that floods its pipes must not stall, and one that hangs must not hold us.
    let (output, errors) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(errors.try_clone()?)
        .spawn()?;
    let ended = ends_within(&child, PATIENCE);
    if !matches!(ended, Ok(true)) {
        child.kill()?;
    }
    let status = child.wait()?;
    if !ended? {
        let text = format!("no answer within {} s", PATIENCE.as_secs());
        return Err(io::Error::new(io::ErrorKind::TimedOut, text));
    }
    Ok(Answer {
        succeeded: status.success(),
        text: read(output)? + &read(errors)?,
    })
}

/// A process's descriptor is readable once it has ended.
fn ends_within(child: &Child, patience: Duration) -> io::Result<bool> {
    let process = rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let timeout = Timespec {
        tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: patience.subsec_nanos().into(),
    };
    let mut wait = [PollFd::new(&process, PollFlags::IN)];
    let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut wait, Some(&timeout)))?;
    Ok(ready > 0)
}

fn read(mut file: fs::File) -> io::Result<String> {
    use std::io::{Read as _, Seek as _};
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(files::MAX_TEXT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// For one program's answer.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_asked_and_its_absence_is_an_error() {
        let host = Host::real();
        let answer = host.ask("sh", &["-c", "echo out; echo err >&2; exit 3"]).unwrap();
        assert_eq!((answer.succeeded, answer.text.as_str()), (false, "out\nerr\n"));
        assert!(host.ask("/nonexistent/program", &[]).is_err());
    }
}
