//! What containerd gives for a process's stdio: a path, or a URI that says what stands at it.
//!
//! | given | meaning |
//! |---|---|
//! | empty | none |
//! | `/path`, `fifo:///path` | a fifo |
//! | `file:///path` | output only: appended to the file, which is made if it is not there |
//! | `binary:///path?…` and all else | refused: the shim starts no program that a request names |

use std::path::PathBuf;

use super::error::TaskError;

/// Longest path that is taken, in bytes.
const MAX_PATH: usize = 4096;

/// A process's stdio as containerd gave it; checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stdio {
    /// As containerd wrote it; empty for none.
    pub stdin: String,
    /// Likewise.
    pub stdout: String,
    /// Likewise.
    pub stderr: String,
    /// Whether the process gets a terminal.
    pub terminal: bool,
}

/// Where output goes, or where input comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A fifo.
    Fifo(PathBuf),
    /// A file.
    File(PathBuf),
}

impl Stdio {
    /// Checks what containerd gave. A terminal has no stderr of its own, so its place is left alone then.
    ///
    /// # Errors
    /// A URI of a kind that is not supported.
    pub fn new(stdin: &str, stdout: &str, stderr: &str, terminal: bool) -> Result<Self, TaskError> {
        let stdio = Self {
            stdin: stdin.to_owned(),
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
            terminal,
        };
        stdio.input()?;
        stdio.outputs()?;
        Ok(stdio)
    }

    /// Whether stdin, stdout, stderr are wanted of the guest.
    pub fn wanted(&self) -> [bool; 3] {
        [
            !self.stdin.is_empty(),
            !self.stdout.is_empty(),
            !self.stderr.is_empty() && !self.terminal,
        ]
    }

    /// Where input comes from.
    ///
    /// # Errors
    /// As [`Stdio::new`].
    pub fn input(&self) -> Result<Option<PathBuf>, TaskError> {
        match place("stdin", &self.stdin)? {
            Some(Place::File(_)) => Err(unsupported("stdin", &self.stdin)),
            Some(Place::Fifo(path)) => Ok(Some(path)),
            None => Ok(None),
        }
    }

    /// Where stdout and stderr go.
    ///
    /// # Errors
    /// As [`Stdio::new`].
    pub fn outputs(&self) -> Result<[(&'static str, Option<Place>); 2], TaskError> {
        let stderr = if self.terminal { "" } else { &self.stderr };
        Ok([
            ("stdout", place("stdout", &self.stdout)?),
            ("stderr", place("stderr", stderr)?),
        ])
    }
}

fn place(pipe: &'static str, given: &str) -> Result<Option<Place>, TaskError> {
    if given.is_empty() {
        return Ok(None);
    }
    let absolute = |path: &str| {
        let usable = path.starts_with('/') && path.len() <= MAX_PATH && !path.contains('\0');
        usable.then(|| PathBuf::from(path))
    };
    let place = match given.split_once("://") {
        None | Some(("", _)) => absolute(given).map(Place::Fifo),
        Some(_) if given.starts_with('/') => absolute(given).map(Place::Fifo),
        Some(("fifo", path)) => absolute(path).map(Place::Fifo),
        Some(("file", path)) => absolute(path).map(Place::File),
        Some(_) => None,
    };
    place.map(Some).ok_or_else(|| unsupported(pipe, given))
}

fn unsupported(pipe: &'static str, given: &str) -> TaskError {
    TaskError::StdioKind {
        pipe,
        uri: crate::untrusted::printable(given, 128),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_uris() {
        let stdio = Stdio::new("/in", "fifo:///out", "file:///var/log/x", false).unwrap();
        assert_eq!(stdio.input().unwrap(), Some("/in".into()));
        let [stdout, stderr] = stdio.outputs().unwrap();
        assert_eq!(stdout, ("stdout", Some(Place::Fifo("/out".into()))));
        assert_eq!(stderr, ("stderr", Some(Place::File("/var/log/x".into()))));
        assert_eq!(stdio.wanted(), [true, true, true]);
        let odd_name = Stdio::new("/run/a://b", "", "", false).unwrap();
        assert_eq!(odd_name.input().unwrap(), Some("/run/a://b".into()));
    }

    #[test]
    fn a_terminal_has_no_stderr() {
        let stdio = Stdio::new("/in", "/out", "/err", true).unwrap();
        assert_eq!(stdio.wanted(), [true, true, false]);
        assert_eq!(stdio.outputs().unwrap()[1], ("stderr", None));
    }

    #[test]
    fn programs_and_relative_paths_are_refused_by_name() {
        for bad in ["binary:///usr/bin/logger?id=x", "fifo://out", "x", "npipe:////./x"] {
            let refused = Stdio::new("", bad, "", false).unwrap_err();
            assert!(
                matches!(&refused, TaskError::StdioKind { pipe: "stdout", uri } if uri == bad),
                "{refused:?}"
            );
        }
        assert!(Stdio::new("file:///x", "", "", false).is_err(), "input is never a file");
    }
}
