//! The agent's log: one terse line each on the guest console, which the host reads.
//!
//! `[    1.234567] cella INFO container started, container: web`. Times are seconds since the kernel started. Whoever logs
//! must not put arguments, environment values, container output or anything secret into a record.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    sync::{Mutex, PoisonError},
};

use slog::{Drain, KV, Level, Logger, OwnedKVList, Record, o};

use crate::{stage::boot_time_us, untrusted::one_line};

/// A logger on `/dev/console`, or on standard error where that cannot be opened.
pub fn console() -> Logger {
    let console = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NOCTTY | libc::O_CLOEXEC)
        .open("/dev/console");
    match console {
        Ok(file) => to(file),
        Err(_) => to(io::stderr()),
    }
}

/// A logger on any writer.
pub fn to(writer: impl Write + Send + 'static) -> Logger {
    let lines = Lines {
        writer: Mutex::new(writer),
    };
    Logger::root(slog::LevelFilter::new(lines, Level::Info).fuse(), o!())
}

/// Writes one line to the console without a logger: for a panic, when nothing else may work.
pub fn last_words(text: &str) {
    let line = format!("cella CRIT {}\n", one_line(text));
    // There is nobody to tell when the console is gone.
    let _ = OpenOptions::new()
        .write(true)
        .open("/dev/console")
        .and_then(|mut file: File| file.write_all(line.as_bytes()));
}

struct Lines<W> {
    writer: Mutex<W>,
}

impl<W: Write> Drain for Lines<W> {
    type Ok = ();
    type Err = io::Error;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> io::Result<()> {
        let time = boot_time_us();
        let (level, message) = (record.level().as_short_str(), record.msg());
        let mut line = format!(
            "[{:5}.{:06}] cella {level} {message}",
            time / 1_000_000,
            time % 1_000_000
        );
        let mut pairs = Pairs(Vec::new());
        // A pair that does not serialize is left out.
        let _ = record.kv().serialize(record, &mut pairs);
        let _ = values.serialize(record, &mut pairs);
        // slog gives them last first.
        line.extend(pairs.0.into_iter().rev());
        let line = one_line(&line) + "\n";
        self.writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_all(line.as_bytes())
    }
}

struct Pairs(Vec<String>);

impl slog::Serializer for Pairs {
    fn emit_arguments(&mut self, key: slog::Key, value: &fmt::Arguments<'_>) -> slog::Result {
        self.0.push(format!(", {key}: {value}"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use slog::info;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_record_is_one_line() {
        let buffer = Buffer::default();
        let log = to(buffer.clone());
        info!(log, "container started"; "container" => "a\nb", "pid" => 7);
        slog::debug!(log, "not shown");
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(text.contains("] cella INFO container started, "), "{text:?}");
        assert!(
            text.ends_with("container started, container: a b, pid: 7\n"),
            "{text:?}"
        );
    }
}
