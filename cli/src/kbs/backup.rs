//! A copy of everything that a broker holds, and the way back. It is encrypted under the broker's storage key.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use serde::Deserialize;

use super::BrokerArgs;
use super::client::{AdminClient, ClientError};
use crate::files::{self, FileError};

/// `cellactl kbs backup`.
#[derive(Debug, clap::Args)]
pub(crate) struct BackupArgs {
    /// Where it goes. The file must not be there.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    broker: BrokerArgs,
}

/// `cellactl kbs restore`.
#[derive(Debug, clap::Args)]
pub(crate) struct RestoreArgs {
    /// The backup.
    file: PathBuf,
    #[command(flatten)]
    broker: BrokerArgs,
}

pub(super) async fn backup(args: &BackupArgs) -> Result<String, BackupError> {
    let client = AdminClient::new(&args.broker)?;
    let bytes = client.get_bytes("cella-backup", MAX_BACKUP).await?;
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&args.out)?;
        file.write_all(&bytes)?;
        file.sync_all()
    };
    write().map_err(|source| FileError::Write {
        path: args.out.clone(),
        source,
    })?;
    Ok(format!(
        "{}: {} bytes, readable with the broker's storage key only\n",
        args.out.display(),
        bytes.len()
    ))
}

pub(super) async fn restore(args: &RestoreArgs) -> Result<String, BackupError> {
    #[derive(Deserialize)]
    struct Restored {
        made: u64,
        values: u64,
    }
    let bytes = files::read(&args.file, MAX_BACKUP as u64)?;
    let answer = AdminClient::new(&args.broker)?.post("cella-restore", bytes).await?;
    let restored: Restored = super::client::parse(&answer)?;
    Ok(format!(
        "{} values of the backup made at {} (Unix seconds)\n",
        restored.values, restored.made
    ))
}

/// Why there is no backup, or it is not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum BackupError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The broker.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// As the broker's.
const MAX_BACKUP: usize = 64 << 20;
