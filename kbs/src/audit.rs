//! The audit log: an append-only file of JSON lines, one for each decision, chained by SHA-256.
//!
//! Each line carries `seq`, from 0 without gaps, and `prev`, the SHA-256 of the line before it (of its bytes without
//! the line feed; zeros before the first). A changed, inserted, removed or reordered line breaks the chain at that
//! place. Lines cut off from the end do not: keep the `head` that [`verify`] prints elsewhere and compare.
//!
//! A line is written and synced *before* what it records takes effect: if the log cannot be written, no key leaves.
//! After a failed write the log takes no further line until the broker is started again.
//!
//! On opening, the whole chain is checked; a broken one refuses to be continued. A last line without its line feed is
//! what a crash leaves; nothing was released on it, and it is cut off and the cut recorded.
//!
//! Lines about *denied guests* can be caused by anybody who reaches the port, so they are rationed: 100 at once,
//! then 10 a second; the next line after a gap carries the number left out as `suppressed`.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

mod chain;
mod entry;
mod ration;

pub use chain::{Head, verify};
pub use entry::{Entry, Event, Outcome};

use chain::{Whole, walk};
use entry::Line;
use ration::Ration;

/// From how many bytes on a page is full. Lines are whole, so one has up to a line more.
const MAX_PAGE: usize = 1 << 20;

/// The open log.
pub struct AuditLog {
    inner: Mutex<Inner>,
}

struct Inner {
    file: File,
    path: PathBuf,
    replica: Option<String>,
    whole: Whole,
    /// Set while a line is being written: if that fails, the end of the file is not known any more.
    broken: bool,
    ration: Ration,
}

impl AuditLog {
    /// Opens a log, or creates it with mode 0600, for this process alone. Checks the whole chain: about a second for
    /// each 500 MB. `replica` says in every line whose log it is, where several brokers share a database.
    pub fn open(path: &Path, replica: Option<String>, now: Duration) -> Result<Self, AuditError> {
        let fail = |source| AuditError::Open {
            path: path.to_owned(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(fail)?;
        file.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => AuditError::Locked { path: path.to_owned() },
            TryLockError::Error(source) => fail(source),
        })?;
        let whole = walk(path, &file)?;
        let length = file.seek(SeekFrom::End(0)).map_err(fail)?;
        let torn = length.saturating_sub(whole.length);
        if torn > 0 {
            file.set_len(whole.length).map_err(fail)?;
        }
        let inner = Inner {
            file,
            path: path.to_owned(),
            replica,
            whole,
            broken: false,
            ration: Ration::new(now),
        };
        let log = Self {
            inner: Mutex::new(inner),
        };
        let mut start = Entry::new(Event::Start, Outcome::Allowed, "");
        start.reason = (torn > 0).then(|| format!("cut off {torn} bytes of an unfinished line"));
        log.append(&start, now)?;
        Ok(log)
    }

    /// Appends a line and syncs it to the disk. When this returns an error, what the entry records must not happen.
    pub fn append(&self, entry: &Entry<'_>, now: Duration) -> Result<(), AuditError> {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .append(entry, now)
    }

    /// Appends a line that anybody can cause, if the ration allows. Not synced: nothing depends on it.
    pub fn append_rationed(&self, entry: &Entry<'_>, now: Duration) -> Result<(), AuditError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.ration.take(now) {
            inner.write(entry, now)
        } else {
            Ok(())
        }
    }

    /// A log whose disk is full.
    #[cfg(test)]
    pub(crate) fn failing() -> Self {
        let path = PathBuf::from("/dev/full");
        let file = OpenOptions::new().append(true).open(&path).unwrap();
        let (whole, ration) = (Whole::empty(), Ration::new(Duration::ZERO));
        Self {
            inner: Mutex::new(Inner {
                file,
                path,
                replica: None,
                whole,
                broken: false,
                ration,
            }),
        }
    }

    /// Where the chain ends now.
    pub fn head(&self) -> Head {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .whole
            .head
            .clone()
    }

    /// Lines from number `from` on, as they stand in the file, up to a MiB of them; nothing where there are no more.
    pub fn page(&self, from: u64) -> Result<Vec<u8>, AuditError> {
        let (path, (place, skipped), end) = {
            let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            (inner.path.clone(), inner.whole.place(from), inner.whole.length)
        };
        let fail = |source| AuditError::Open {
            path: path.clone(),
            source,
        };
        let mut file = File::open(&path).map_err(fail)?;
        file.seek(SeekFrom::Start(place)).map_err(fail)?;
        // Not beyond what is written: another line may be on its way.
        let mut lines = BufReader::new(file.take(end.saturating_sub(place)));
        let (mut page, mut passed) = (Vec::new(), 0);
        while page.len() < MAX_PAGE {
            let start = page.len();
            if lines.read_until(b'\n', &mut page).map_err(fail)? == 0 {
                break;
            }
            if passed < skipped {
                page.truncate(start);
                passed += 1;
            }
        }
        Ok(page)
    }
}

impl Inner {
    fn append(&mut self, entry: &Entry<'_>, now: Duration) -> Result<(), AuditError> {
        self.write(entry, now)?;
        self.broken = true;
        self.file.sync_data().map_err(|source| AuditError::Append {
            path: self.path.clone(),
            source,
        })?;
        self.broken = false;
        Ok(())
    }

    fn write(&mut self, entry: &Entry<'_>, now: Duration) -> Result<(), AuditError> {
        if self.broken {
            return Err(AuditError::Broken {
                path: self.path.clone(),
            });
        }
        let mut line = Line::new(entry, &self.whole.head, self.ration.suppressed, now);
        line.replica = self.replica.as_deref();
        let mut text = serde_json::to_vec(&line).map_err(|source| AuditError::Encode { source })?;
        self.broken = true;
        text.push(b'\n');
        self.file.write_all(&text).map_err(|source| AuditError::Append {
            path: self.path.clone(),
            source,
        })?;
        text.pop();
        self.broken = false;
        self.ration.suppressed = 0;
        self.whole.follow(&text);
        Ok(())
    }
}

/// The audit log cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// Opening, reading or repairing failed.
    #[error("opening the audit log {}", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another process has it open.
    #[error("the audit log {} is in use by another process", path.display())]
    Locked {
        /// Which file.
        path: PathBuf,
    },
    /// Somebody changed the file.
    #[error("the chain of the audit log {} is broken at line {line}: keep the file, and start a new one", path.display())]
    Chain {
        /// Which file.
        path: PathBuf,
        /// First line that does not follow from those before it, or the line before which one was changed; from 1.
        line: u64,
    },
    /// The last line has no end.
    #[error("line {line} of the audit log {} is unfinished", path.display())]
    Torn {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: u64,
    },
    /// Writing or syncing failed.
    #[error("writing to the audit log {}", path.display())]
    Append {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An earlier write failed.
    #[error("the audit log {} failed earlier: restart the broker when its disk is well", path.display())]
    Broken {
        /// Which file.
        path: PathBuf,
    },
    /// The entry has no JSON form.
    #[error("encoding an audit line")]
    Encode {
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

#[cfg(test)]
mod tests;
