//! The two files of a guest's console, read as one, also while the shim turns them over.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::LogsError;
use crate::terminal::escaped_line;

/// The console of the guest whose run directory is `dir`.
pub(super) struct Console {
    dir: PathBuf,
    line: Vec<u8>,
}

impl Console {
    pub(super) fn of(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            line: Vec::new(),
        }
    }

    /// Gives each line to `print`; with `follow` until the run directory is gone.
    pub(super) async fn copy(&mut self, follow: bool, print: impl Fn(&str) -> io::Result<()>) -> Result<(), LogsError> {
        if let Some(mut older) = self.open("console.log.1")? {
            self.drain(&mut older, &print)?;
        }
        let mut file = None;
        loop {
            if file.is_none() {
                file = self.open("console.log")?;
            }
            if let Some(open) = &mut file {
                self.drain(open, &print)?;
                if self.is_turned_over(open)? {
                    // What was written between the reading and the turn.
                    self.drain(open, &print)?;
                    file = None;
                    continue;
                }
            }
            if !follow || !self.dir.exists() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.end_line(&print)
    }

    fn drain(&mut self, file: &mut File, print: &impl Fn(&str) -> io::Result<()>) -> Result<(), LogsError> {
        let mut buffer = [0; 8192];
        loop {
            let read = file.read(&mut buffer).map_err(|source| LogsError::Console { source })?;
            if read == 0 {
                return Ok(());
            }
            for byte in buffer.iter().take(read) {
                match byte {
                    b'\n' => self.end_line(print)?,
                    byte => self.line.push(*byte),
                }
                if self.line.len() == MAX_LINE {
                    self.end_line(print)?;
                }
            }
        }
    }

    fn end_line(&mut self, print: &impl Fn(&str) -> io::Result<()>) -> Result<(), LogsError> {
        if self.line.is_empty() {
            return Ok(());
        }
        // A serial line ends with both.
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        print(&escaped_line(line)).map_err(|source| LogsError::Output { source })?;
        self.line.clear();
        Ok(())
    }

    /// Whether `console.log` is another file by now.
    fn is_turned_over(&self, open: &File) -> Result<bool, LogsError> {
        let now = match std::fs::symlink_metadata(self.dir.join("console.log")) {
            Ok(now) => now,
            // Gone with the pod, or between two names.
            Err(_) => return Ok(false),
        };
        let open = open.metadata().map_err(|source| LogsError::Console { source })?;
        Ok((now.dev(), now.ino()) != (open.dev(), open.ino()))
    }

    fn open(&self, name: &str) -> Result<Option<File>, LogsError> {
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(self.dir.join(name));
        match file {
            Ok(file) if file.metadata().is_ok_and(|metadata| metadata.is_file()) => Ok(Some(file)),
            Ok(_) => Err(LogsError::Console {
                source: io::Error::other("not a plain file"),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LogsError::Console { source }),
        }
    }
}

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);
/// Longest line; a longer one is broken.
const MAX_LINE: usize = 4096;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fs;
    use std::io::Write as _;

    use super::*;

    async fn read(dir: &Path) -> Result<Vec<String>, LogsError> {
        let lines = RefCell::new(Vec::new());
        Console::of(dir)
            .copy(false, |line| {
                lines.borrow_mut().push(line.to_owned());
                Ok(())
            })
            .await?;
        Ok(lines.into_inner())
    }

    #[tokio::test]
    async fn both_files_are_one_log_and_a_line_may_cross_them() {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            read(dir.path()).await.unwrap().is_empty(),
            "a directory that is half made"
        );
        fs::write(dir.path().join("console.log"), b"ee\r\n\x1b[2Jfour\n\nfi\xffve").unwrap();
        fs::write(dir.path().join("console.log.1"), b"one\r\ntwo\nthr").unwrap();
        assert_eq!(
            read(dir.path()).await.unwrap(),
            ["one", "two", "three", "\\x1b[2Jfour", "fi\\xffve"]
        );
    }

    #[tokio::test]
    async fn an_endless_line_is_broken_and_a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("console.log"), vec![b'x'; MAX_LINE * 2 + 1]).unwrap();
        let lengths: Vec<_> = read(dir.path()).await.unwrap().iter().map(String::len).collect();
        assert_eq!(lengths, [MAX_LINE, MAX_LINE, 1]);
        fs::remove_file(dir.path().join("console.log")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("console.log")).unwrap();
        assert!(matches!(read(dir.path()).await, Err(LogsError::Console { .. })));
    }

    #[tokio::test]
    async fn following_survives_the_turn_and_ends_with_the_pod() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("pod");
        fs::create_dir(&dir).unwrap();
        let mut log = File::create(dir.join("console.log")).unwrap();
        log.write_all(b"one\n").unwrap();
        let (sender, mut lines) = tokio::sync::mpsc::unbounded_channel();
        let follow_dir = dir.clone();
        let following = tokio::spawn(async move {
            let mut console = Console::of(&follow_dir);
            console
                .copy(true, |line| sender.send(line.to_owned()).map_err(io::Error::other))
                .await
        });
        assert_eq!(lines.recv().await.unwrap(), "one");
        log.write_all(b"two\n").unwrap();
        fs::rename(dir.join("console.log"), dir.join("console.log.1")).unwrap();
        log.write_all(b"three\n").unwrap();
        let mut log = File::create(dir.join("console.log")).unwrap();
        log.write_all(b"four\n").unwrap();
        for expected in ["two", "three", "four"] {
            assert_eq!(lines.recv().await.unwrap(), expected);
        }
        log.write_all(b"five").unwrap();
        fs::remove_dir_all(&dir).unwrap();
        following.await.unwrap().unwrap();
        assert_eq!(lines.recv().await.unwrap(), "five");
    }
}
