//! The guest's console, kept in two files of bounded size.
//!
//! QEMU connects to a listener of the shim's, so nothing is lost at boot and a flood stalls the guest, not the host. The
//! bytes are the guest's: they are stored as they are, and made printable before they reach a log line.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use slog::{Logger, warn};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::process::Tail;

/// What is kept in memory for the report on a VM's death.
const TAIL: usize = 4 * 1024;

/// The console's last lines.
pub type ConsoleTail = Tail;

/// Two files, `console.log` and the older `console.log.1`, of at most half the bound each.
#[derive(Debug)]
pub struct ConsoleLog {
    path: PathBuf,
    half: u64,
    file: File,
    written: u64,
    tail: Tail,
}

impl ConsoleLog {
    /// Makes `console.log` in `dir`, with `bound` bytes for both files.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn create(dir: &Path, bound: u64) -> io::Result<Self> {
        let path = dir.join("console.log");
        let file = File::create_new(&path)?;
        Ok(Self {
            path,
            half: (bound / 2).max(1),
            file,
            written: 0,
            tail: Tail::new(TAIL),
        })
    }

    /// The last bytes, shared with this log.
    pub fn tail(&self) -> ConsoleTail {
        self.tail.clone()
    }

    /// Appends `bytes`; begins a new file when the current one is full.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.tail.push(bytes);
        while !bytes.is_empty() {
            let room = usize::try_from(self.half - self.written).unwrap_or(usize::MAX);
            if room == 0 {
                self.rotate()?;
                continue;
            }
            let now = bytes.get(..bytes.len().min(room)).unwrap_or_default();
            // A full disk takes a part: it counts.
            let taken = match self.file.write(now) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => taken,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.written += u64::try_from(taken).unwrap_or(u64::MAX);
            bytes = bytes.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// Copies `console` until it ends. The last line of a dying guest is worth waiting for, so this is not cut short by the
    /// VM's death but by the end of the stream.
    ///
    /// A file that cannot be written, most often for want of room, costs the file and nothing else: the stream is read on, for
    /// the tail and so that the guest does not stall.
    pub async fn record(mut self, mut console: impl AsyncRead + Unpin, log: Logger) {
        let mut buffer = [0; 4096];
        let mut kept = true;
        loop {
            let read = match console.read(&mut buffer).await {
                Ok(0) => return,
                Ok(read) => read,
                Err(error) => {
                    warn!(log, "reading the guest's console failed"; "error" => %error);
                    return;
                }
            };
            // Writes of a few KiB to a tmpfs.
            let written = self.write(buffer.get(..read).unwrap_or_default());
            if let Err(error) = &written
                && kept
            {
                warn!(log, "writing the guest's console log failed"; "path" => self.path.display().to_string(), "error" => %error);
            }
            kept = written.is_ok();
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
        self.file = File::create_new(&self.path)?;
        self.written = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_together_stay_within_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let mut console = ConsoleLog::create(dir.path(), 100).unwrap();
        for n in 0..50 {
            console.write(format!("line {n}\n").as_bytes()).unwrap();
            let size: u64 = std::fs::read_dir(dir.path())
                .unwrap()
                .map(|e| e.unwrap().metadata().unwrap().len())
                .sum();
            assert!(size <= 100, "{size}");
        }
        let old = std::fs::read_to_string(dir.path().join("console.log.1")).unwrap();
        let new = std::fs::read_to_string(dir.path().join("console.log")).unwrap();
        assert!((old + &new).ends_with("line 48\nline 49\n"));
        assert_eq!(console.tail().last_lines(1), ["line 49"]);
    }

    #[test]
    fn one_write_may_be_larger_than_both_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut console = ConsoleLog::create(dir.path(), 10).unwrap();
        console.write(b"0123456789abcdefghi").unwrap();
        assert_eq!(std::fs::read(dir.path().join("console.log.1")).unwrap(), b"abcde");
        assert_eq!(std::fs::read(dir.path().join("console.log")).unwrap(), b"fghi");
    }

    #[tokio::test]
    async fn a_full_disk_costs_the_file_and_not_the_last_lines() {
        let dir = tempfile::tempdir().unwrap();
        let mut console = ConsoleLog::create(dir.path(), 1 << 20).unwrap();
        console.file = File::options().write(true).open("/dev/full").unwrap();
        let tail = console.tail();
        let (mut guest, host) = tokio::io::duplex(16);
        let log = Logger::root(slog::Discard, slog::o!());
        let recorder = tokio::spawn(console.record(host, log));
        for n in 0..100 {
            tokio::io::AsyncWriteExt::write_all(&mut guest, format!("line {n}\n").as_bytes())
                .await
                .unwrap();
        }
        drop(guest);
        recorder.await.unwrap();
        assert_eq!(tail.last_lines(1), ["line 99"]);
    }

    #[tokio::test]
    async fn record_ends_with_the_stream() {
        let dir = tempfile::tempdir().unwrap();
        let console = ConsoleLog::create(dir.path(), 64).unwrap();
        let tail = console.tail();
        console
            .record(&b"Kernel panic\n"[..], Logger::root(slog::Discard, slog::o!()))
            .await;
        assert_eq!(tail.last_lines(3), ["Kernel panic"]);
    }
}
