//! The log on stderr.

use std::{io, sync::Mutex};

use slog::{Drain, Logger, o};

/// Form of the log.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Term,
    /// One JSON object a line.
    Json,
}

/// A logger on stderr. Lines that cannot be written are lost.
pub(crate) fn stderr(format: Format) -> Logger {
    match format {
        Format::Term => {
            let decorator = slog_term::PlainSyncDecorator::new(io::stderr());
            Logger::root(slog_term::FullFormat::new(decorator).build().ignore_res(), o!())
        }
        Format::Json => Logger::root(Mutex::new(slog_json::Json::default(io::stderr())).ignore_res(), o!()),
    }
}
