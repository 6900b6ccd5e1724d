//! What is wrong with a configuration.

use std::path::PathBuf;

use super::{CertificatesError, MAX_CONFIG, QemuVersionError, host};

/// A configuration that cannot be used. Says which key, which path and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file is not there or cannot be read.
    #[error("cannot read the configuration {path}: write it, or name another with --runtime-config-path")]
    Read {
        /// Where it was looked for.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Longer than any real configuration.
    #[error("configuration {origin} is longer than {MAX_CONFIG} bytes")]
    TooLong {
        /// Where it came from.
        origin: String,
    },
    /// Not TOML, an unknown key, a value of the wrong type.
    #[error("configuration {origin}, line {line}: {message}")]
    Parse {
        /// Where it came from.
        origin: String,
        /// Line, from 1; 0 where the parser names none.
        line: usize,
        /// What the parser says, with the key's name.
        message: String,
    },
    /// A number out of its range.
    #[error("configuration key {key} is {value}, allowed is {allowed}")]
    Range {
        /// The key.
        key: &'static str,
        /// The value.
        value: u64,
        /// The range in words.
        allowed: &'static str,
    },
    /// A text that is not allowed for its key.
    #[error("configuration key {key} is {value:?}: {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// The value, made printable.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file or directory that is named but absent.
    #[error("configuration key {key}: {path} {problem}; {remedy}")]
    Missing {
        /// The key.
        key: &'static str,
        /// The path that was looked at.
        path: PathBuf,
        /// "does not exist", "is not a file", …
        problem: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// A key that has no meaning for the chosen TEE.
    #[error("configuration key {key} is set, but is used with tee = {tees} only: remove it")]
    Unused {
        /// The key.
        key: &'static str,
        /// The values of `tee` that it has a meaning with.
        tees: String,
    },
    /// The file with this host's certificates.
    #[error(transparent)]
    Certificates(#[from] CertificatesError),
    /// A QEMU that cannot run what was asked for.
    #[error(transparent)]
    Qemu(#[from] QemuVersionError),
    /// The host cannot do what was asked for.
    #[error("configuration key {key}: {reason}")]
    Host {
        /// The key.
        key: &'static str,
        /// What is missing, and what to do.
        reason: host::Lack,
    },
}
