//! Logging to containerd: logfmt lines on the bundle's `log` fifo, one `write` each.
//!
//! `containerd-shim` gives a spawned shim `/dev/null` as stderr, so the fifo is the only way out; a panic hook reports there
//! too. Writes never block: with nobody reading (containerd down) or a full pipe the line is dropped, and the fifo is opened
//! again with the next one.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use slog::{Drain, Key, Level, Logger, Never, OwnedKVList, Record, Serializer, error, o};

/// The least severe level that is written; shared by a logger and whoever reads the configuration later. What containerd's
/// debug switch and the configuration ask for are kept apart: the less severe one counts.
#[derive(Clone)]
pub struct Verbosity {
    configured: Arc<AtomicUsize>,
    pinned: Arc<AtomicUsize>,
}

impl Verbosity {
    /// Starts at `level`.
    pub fn new(level: Level) -> Self {
        Self {
            configured: Arc::new(AtomicUsize::new(level.as_usize())),
            pinned: Arc::default(),
        }
    }

    /// Writes `level` and everything more severe, as the configuration asks.
    pub fn set_from_config(&self, level: Level) {
        self.configured.store(level.as_usize(), Ordering::Relaxed);
    }

    /// Writes at least `level` and everything more severe, whatever the configuration asks.
    pub fn pin(&self, level: Level) {
        self.pinned.store(level.as_usize(), Ordering::Relaxed);
    }

    fn admits(&self, level: Level) -> bool {
        let level = level.as_usize();
        level <= self.configured.load(Ordering::Relaxed) || level <= self.pinned.load(Ordering::Relaxed)
    }
}

/// A logger that writes to the fifo at `path`, and the handle on its level.
pub fn fifo(path: &Path, verbosity: Verbosity) -> Logger {
    Logger::root(
        LogfmtDrain {
            sink: Sink::Fifo(Mutex::new(Fifo::new(path))),
            verbosity,
        }
        .fuse(),
        o!(),
    )
}

/// A logger that writes to stderr, for the `delete` action: containerd keeps that text.
pub fn stderr(verbosity: Verbosity) -> Logger {
    Logger::root(
        LogfmtDrain {
            sink: Sink::Stderr,
            verbosity,
        }
        .fuse(),
        o!(),
    )
}

/// Reports panics to `log` (place and message; the message of a panic in this program holds no secret, the shim has none).
pub fn report_panics(log: Logger) {
    std::panic::set_hook(Box::new(move |info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let message = info.payload_as_str().unwrap_or("(no text)").to_owned();
        error!(log, "panic"; "at" => place, "message" => message);
    }));
}

/// Sends what libraries log through the `log` crate (containerd-shim, ttrpc) to `log` as well. Later calls change nothing.
pub fn adopt_library_logs(log: &Logger) {
    let bridge = LibraryLog(log.new(o!("from" => "library")));
    if log::set_boxed_logger(Box::new(bridge)).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}

struct LibraryLog(Logger);

impl log::Log for LibraryLog {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = crate::untrusted::printable(&record.args().to_string(), crate::untrusted::MAX_MESSAGE);
        match record.level() {
            log::Level::Error => slog::error!(self.0, "{}", text),
            log::Level::Warn => slog::warn!(self.0, "{}", text),
            log::Level::Info => slog::debug!(self.0, "{}", text),
            log::Level::Debug | log::Level::Trace => slog::trace!(self.0, "{}", text),
        }
    }

    fn flush(&self) {}
}

enum Sink {
    Fifo(Mutex<Fifo>),
    Stderr,
}

struct LogfmtDrain {
    sink: Sink,
    verbosity: Verbosity,
}

impl Drain for LogfmtDrain {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        if !self.verbosity.admits(record.level()) {
            return Ok(());
        }
        let line = format_line(record, values);
        match &self.sink {
            Sink::Fifo(fifo) => fifo
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .write(line.as_bytes()),
            // Nobody to tell when stderr is gone.
            Sink::Stderr => drop(std::io::stderr().write_all(line.as_bytes())),
        }
        Ok(())
    }
}

struct Fifo {
    path: PathBuf,
    file: Option<File>,
}

impl Fifo {
    fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            file: None,
        }
    }

    fn write(&mut self, line: &[u8]) {
        if self.file.is_none() {
            let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
            self.file = OpenOptions::new()
                .write(true)
                .custom_flags(nonblock)
                .open(&self.path)
                .ok();
        }
        let Some(file) = &mut self.file else { return };
        match file.write(line) {
            // A full pipe: containerd is slow, this line is lost.
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => self.file = None,
        }
    }
}

fn format_line(record: &Record<'_>, values: &OwnedKVList) -> String {
    let now = time::OffsetDateTime::now_utc();
    let stamp = now
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_default();
    let level = match record.level() {
        Level::Critical => "fatal",
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    let mut fields = Fields(String::new());
    // Writing to a String does not fail.
    let _ = slog::KV::serialize(&record.kv(), record, &mut fields);
    let _ = slog::KV::serialize(values, record, &mut fields);
    format!(
        "time={} level={level} msg={}{}\n",
        quote(&stamp),
        quote(&record.msg().to_string()),
        fields.0
    )
}

/// `text` as a JSON string: no quote or newline of it can end the field or forge a record.
fn quote(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

struct Fields(String);

impl Serializer for Fields {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        write!(self.0, " {key}={}", quote(&value.to_string()))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use slog::{debug, info};

    use super::*;

    fn read_all(path: &Path) -> String {
        let mut text = String::new();
        File::open(path).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn one_line_per_record_with_quoted_values() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        File::create(&path).unwrap();
        let log = fifo(&path, Verbosity::new(Level::Info)).new(o!("pod" => "a\"b"));
        info!(log, "container started\nlevel=fatal"; "container" => "c1");
        debug!(log, "not written");
        let text = read_all(&path);
        assert_eq!(text.lines().count(), 1, "{text}");
        let tail = r#" level=info msg="container started\nlevel=fatal" container="c1" pod="a\"b""#;
        assert!(text.trim_end().ends_with(tail), "{text}");
    }

    #[test]
    fn level_can_change_while_running() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        File::create(&path).unwrap();
        let verbosity = Verbosity::new(Level::Warning);
        let log = fifo(&path, verbosity.clone());
        info!(log, "one");
        verbosity.pin(Level::Debug);
        verbosity.set_from_config(Level::Error);
        debug!(log, "two");
        let text = read_all(&path);
        assert!(!text.contains("one") && text.contains("two"), "{text}");
    }

    #[test]
    fn a_fifo_without_reader_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = fifo(&path, Verbosity::new(Level::Info));
        info!(log, "nobody is there");
        File::create(&path).unwrap();
        info!(log, "somebody is");
        assert!(read_all(&path).contains("somebody is"));
    }
}
