//! From a configuration to a broker: reads every file that it names.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use cella_attest::{AnchorError, Anchors, VerifyOptions};

use super::Broker;
use crate::admin::{AdminKeyError, Admins};
use crate::audit::{AuditError, AuditLog};
use crate::clock::Clock;
use crate::config::Config;
use crate::files::{self, FileError};
use crate::session::Sessions;
use crate::storage::{KeyFormatError, Storage, StorageError, StorageKey};
use crate::token::{TokenKey, TokenKeyError};

impl Broker {
    /// Opens a broker's files; makes the state folder, the database, the token key and the audit log if they are not
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
        let storage_key =
            StorageKey::parse(&files::read_private(&config.storage_key)?).map_err(|source| OpenError::StorageKey {
                path: config.storage_key.clone(),
                source,
            })?;
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
        let tokens = token_key(config)?;
        let storage = Storage::open(&config.state_dir.join("kbs.redb"), storage_key)?;
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

fn token_key(config: &Config) -> Result<TokenKey, OpenError> {
    let path = config.state_dir.join("token.key");
    let fail = |source| OpenError::TokenKey {
        path: path.clone(),
        source,
    };
    if !path.exists() {
        files::replace(&path, &TokenKey::generate().map_err(fail)?)?;
    }
    TokenKey::from_pkcs8(&files::read_private(&path)?).map_err(fail)
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
    /// Not a token key.
    #[error("the token key {} is not valid", path.display())]
    TokenKey {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: TokenKeyError,
    },
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
