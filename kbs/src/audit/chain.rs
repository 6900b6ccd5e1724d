//! The chain through the lines of a log, and what breaks it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use ring::digest;
use serde::Deserialize;

use super::AuditError;

/// Longest line that is read back.
const MAX_LINE: usize = 16 * 1024;
/// Where a chain ends.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Head {
    /// How many lines it has.
    pub lines: u64,
    /// SHA-256 of the last line, hex.
    pub sha256: String,
}

impl Head {
    pub(super) fn empty() -> Self {
        Self {
            lines: 0,
            sha256: "0".repeat(64),
        }
    }

    pub(super) fn follow(&mut self, line: &[u8]) {
        self.lines += 1;
        self.sha256 = hex::encode(digest::digest(&digest::SHA256, line));
    }
}

/// Checks a log's chain from its first line to its last. A torn last line is an error here.
pub fn verify(path: &Path) -> Result<Head, AuditError> {
    let file = File::open(path).map_err(|source| AuditError::Open {
        path: path.to_owned(),
        source,
    })?;
    let (head, whole) = walk(path, &file)?;
    let length = file
        .metadata()
        .map_err(|source| AuditError::Open {
            path: path.to_owned(),
            source,
        })?
        .len();
    if length == whole {
        Ok(head)
    } else {
        Err(AuditError::Torn {
            path: path.to_owned(),
            line: head.lines + 1,
        })
    }
}

/// Follows the chain; gives its head and the length of its whole lines.
pub(super) fn walk(path: &Path, file: &File) -> Result<(Head, u64), AuditError> {
    #[derive(Deserialize)]
    struct Link {
        seq: u64,
        prev: String,
    }
    let mut reader = BufReader::new(file);
    let mut head = Head::empty();
    let mut whole = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = std::io::Read::take(&mut reader, MAX_LINE as u64)
            .read_until(b'\n', &mut line)
            .map_err(|source| AuditError::Open {
                path: path.to_owned(),
                source,
            })?;
        if line.pop() != Some(b'\n') {
            // Either the end, or a line that a crash left unfinished. A line of the log is never this long.
            return if read < MAX_LINE {
                Ok((head, whole))
            } else {
                Err(broken(path, &head))
            };
        }
        let link: Link = serde_json::from_slice(&line).map_err(|_| broken(path, &head))?;
        if link.seq != head.lines || link.prev != head.sha256 {
            return Err(broken(path, &head));
        }
        whole += read as u64;
        head.follow(&line);
    }
}

fn broken(path: &Path, head: &Head) -> AuditError {
    AuditError::Chain {
        path: path.to_owned(),
        line: head.lines + 1,
    }
}
