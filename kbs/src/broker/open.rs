//! From a configuration to a broker: reads every file that it names.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cella_attest::{AnchorError, Anchors, VerifyOptions};

use super::Broker;
use crate::admin::{AdminKeyError, Admins};
use crate::audit::{AuditError, AuditLog};
use crate::clock::Clock;
use crate::config::Config;
use crate::files::{self, FileError};
use crate::session::Sessions;
use crate::storage::{KeyFormatError, KeyRing, Storage, StorageError, StorageKey};
use crate::token::{TokenKeys, TokenKeysError};

impl Broker {
    /// Opens a broker's files; makes the state folder, the database and the audit log if they are not
    /// there. Blocks.
    pub fn open(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&config.state_dir)
            .map_err(|source| OpenError::StateDir {
                path: config.state_dir.clone(),
                source,
            })?;
        let earlier = config.earlier_storage_keys.iter().map(|path| storage_key(path));
        let keys = KeyRing::new(storage_key(&config.storage_key)?, earlier.collect::<Result<_, _>>()?);
        let mut anchors = Anchors::amd();
        if let Some(path) = &config.simulated_root {
            anchors =
                anchors
                    .with_simulated_pem(&files::read_text(path)?)
                    .map_err(|source| OpenError::SimulatedRoot {
                        path: path.clone(),
                        source,
                    })?;
        }
        let mut admins = Admins::new();
        for path in &config.admin_keys {
            admins
                .add_pem(&files::read_text(path)?)
                .map_err(|source| OpenError::AdminKey {
                    path: path.clone(),
                    source,
                })?;
        }
        let storage = Storage::open(&config.state_dir.join("kbs.redb"), keys)?;
        let storage = Arc::new(storage);
        let tokens = TokenKeys::open(storage.clone(), clock.clone())?;
        let audit = AuditLog::open(&config.audit_log, clock.unix())?;
        Ok(Self {
            anchors,
            options: VerifyOptions::default().allow_milan(config.allow_milan),
            sessions: Sessions::new(config.limits.session_timeout, config.limits.sessions),
            tokens,
            storage,
            audit,
            admins,
            clock,
        })
    }
}

fn storage_key(path: &Path) -> Result<StorageKey, OpenError> {
    StorageKey::parse(&files::read_private(path)?).map_err(|source| OpenError::StorageKey {
        path: path.to_owned(),
        source,
    })
}

/// The broker cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A file that the configuration names cannot be used.
    #[error("a file of the broker cannot be used")]
    File(#[from] FileError),
    /// The state folder is not there and cannot be made.
    #[error("making the state folder {}", path.display())]
    StateDir {
        /// Which folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not a storage key.
    #[error("the storage key {} is not valid", path.display())]
    StorageKey {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: KeyFormatError,
    },
    /// The keys of tokens cannot be made or read.
    #[error("the token keys cannot be used")]
    TokenKeys(#[from] TokenKeysError),
    /// Not an admin's public key.
    #[error("the admin key {} is not valid", path.display())]
    AdminKey {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: AdminKeyError,
    },
    /// Not a root certificate.
    #[error("the simulated root {} is not valid", path.display())]
    SimulatedRoot {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: AnchorError,
    },
    /// The database cannot be opened.
    #[error("the database cannot be opened")]
    Storage(#[from] StorageError),
    /// The audit log cannot be opened.
    #[error("the audit log cannot be opened")]
    Audit(#[from] AuditError),
}
