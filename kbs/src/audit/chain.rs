//! The chain through the lines of a log, and what breaks it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use ring::digest;
use serde::Deserialize;

use super::AuditError;

/// Longest line that is read back.
const MAX_LINE: usize = 16 * 1024;
/// Of how many lines one is remembered by its place.
const STRIDE: u64 = 1024;

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

/// A log as far as its lines are whole.
pub(super) struct Whole {
    pub(super) head: Head,
    /// Its bytes.
    pub(super) length: u64,
    /// Where every 1024th line starts.
    marks: Vec<u64>,
}

impl Whole {
    pub(super) fn empty() -> Self {
        Self {
            head: Head::empty(),
            length: 0,
            marks: Vec::new(),
        }
    }

    /// One more line, without its line feed.
    pub(super) fn follow(&mut self, line: &[u8]) {
        if self.head.lines.is_multiple_of(STRIDE) {
            self.marks.push(self.length);
        }
        self.length += line.len() as u64 + 1;
        self.head.follow(line);
    }

    /// A place at or before a line, and how many lines are to be passed over from there.
    pub(super) fn place(&self, line: u64) -> (u64, u64) {
        let mark = usize::try_from(line / STRIDE)
            .ok()
            .and_then(|index| self.marks.get(index));
        mark.map_or((self.length, 0), |&offset| (offset, line % STRIDE))
    }
}

/// Checks a log's chain from its first line to its last. A torn last line is an error here.
pub fn verify(path: &Path) -> Result<Head, AuditError> {
    let file = File::open(path).map_err(|source| AuditError::Open {
        path: path.to_owned(),
        source,
    })?;
    let whole = walk(path, &file)?;
    let length = file
        .metadata()
        .map_err(|source| AuditError::Open {
            path: path.to_owned(),
            source,
        })?
        .len();
    if length == whole.length {
        Ok(whole.head)
    } else {
        Err(AuditError::Torn {
            path: path.to_owned(),
            line: whole.head.lines + 1,
        })
    }
}

/// Follows the chain through the whole lines.
pub(super) fn walk(path: &Path, file: &File) -> Result<Whole, AuditError> {
    #[derive(Deserialize)]
    struct Link {
        seq: u64,
        prev: String,
    }
    let mut reader = BufReader::new(file);
    let mut whole = Whole::empty();
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
                Ok(whole)
            } else {
                Err(broken(path, &whole.head))
            };
        }
        let link: Link = serde_json::from_slice(&line).map_err(|_| broken(path, &whole.head))?;
        if link.seq != whole.head.lines || link.prev != whole.head.sha256 {
            return Err(broken(path, &whole.head));
        }
        whole.follow(&line);
    }
}

fn broken(path: &Path, head: &Head) -> AuditError {
    AuditError::Chain {
        path: path.to_owned(),
        line: head.lines + 1,
    }
}
