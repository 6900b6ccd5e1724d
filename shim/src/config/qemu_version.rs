//! Whether the configured QEMU can run a TDX guest. Asked before a pod is made of it, since QEMU itself would say only that it does not know an object.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The first with `tdx-guest`.
const LEAST: Version = Version(10, 1);
/// For QEMU's answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer that is looked at, in bytes.
const MAX_ANSWER: usize = 4096;

/// Major and minor version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// A QEMU that cannot run a TDX guest, or that does not say whether it can.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QemuVersionError {
    /// Too old.
    #[error(
        "{path} is QEMU {found}, which cannot run tee = \"tdx\": {LEAST} is the first that can. Install it, or set the key to its path"
    )]
    TooOld {
        /// The program.
        path: PathBuf,
        /// Its version.
        found: Version,
    },
    /// It did not run, or did not answer in time.
    #[error("{path} --version gave no answer")]
    Silent {
        /// The program.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Its answer has no version in it.
    #[error("{path} --version does not say which QEMU it is")]
    Unknown {
        /// The program.
        path: PathBuf,
    },
}

/// Asks QEMU for its version, for at most ten seconds.
pub(super) fn runs_tdx(path: &Path) -> Result<(), QemuVersionError> {
    let answer = ask(path).map_err(|source| QemuVersionError::Silent {
        path: path.to_owned(),
        source,
    })?;
    match version(&answer) {
        Some(found) if found >= LEAST => Ok(()),
        Some(found) => Err(QemuVersionError::TooOld {
            path: path.to_owned(),
            found,
        }),
        None => Err(QemuVersionError::Unknown { path: path.to_owned() }),
    }
}

/// `QEMU emulator version 10.0.2 (…)`.
fn version(answer: &str) -> Option<Version> {
    let (_, rest) = answer.split_once("QEMU emulator version ")?;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit());
    Some(Version(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn ask(path: &Path) -> io::Result<String> {
    let mut child = Command::new(path)
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let answer = match child.stdout.take() {
        Some(output) => read(output),
        None => Err(io::ErrorKind::BrokenPipe.into()),
    };
    // Whatever it still does is of no interest.
    let _ = child.kill();
    child.wait()?;
    answer
}

/// Reads to the end, but not for longer or more than is allowed.
fn read(mut output: std::process::ChildStdout) -> io::Result<String> {
    let end = Instant::now() + PATIENCE;
    let mut answer = Vec::new();
    let mut buffer = [0; 512];
    while answer.len() < MAX_ANSWER {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| io::ErrorKind::TimedOut)?;
        let ready = rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&timeout)))?;
        if ready == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match output.read(&mut buffer)? {
            0 => break,
            count => answer.extend_from_slice(buffer.get(..count).unwrap_or_default()),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn qemu(dir: &Path, script: &str) -> PathBuf {
        let path = dir.join("qemu");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn an_old_qemu_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        for (text, fine) in [
            ("QEMU emulator version 10.1.0 (Debian 1:10.1.0+ds-1)", true),
            ("QEMU emulator version 11.0.1", true),
            ("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)", false),
            ("QEMU emulator version 9.2.4", false),
        ] {
            let path = qemu(dir.path(), &format!("echo '{text}'"));
            match runs_tdx(&path) {
                Ok(()) => assert!(fine, "{text}"),
                Err(QemuVersionError::TooOld { .. }) => assert!(!fine, "{text}"),
                Err(other) => panic!("{other}"),
            }
        }
        let path = qemu(dir.path(), "echo 'QEMU emulator version 10.0.2'");
        assert_eq!(
            runs_tdx(&path).unwrap_err().to_string(),
            format!(
                "{} is QEMU 10.0, which cannot run tee = \"tdx\": 10.1 is the first that can. Install it, or set the key to its path",
                path.display()
            )
        );
    }

    #[test]
    fn what_does_not_answer_is_refused_too() {
        let dir = tempfile::tempdir().unwrap();
        let absent = runs_tdx(&dir.path().join("absent"));
        assert!(matches!(absent, Err(QemuVersionError::Silent { .. })));
        for script in ["exit 1", "echo version 10.1", "echo 'QEMU emulator version x'", "yes"] {
            let result = runs_tdx(&qemu(dir.path(), script));
            assert!(
                matches!(result, Err(QemuVersionError::Unknown { .. })),
                "{script}: {result:?}"
            );
        }
    }
}
