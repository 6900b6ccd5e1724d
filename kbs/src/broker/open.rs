//! From a configuration to a broker: reads every file that it names.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use super::Broker;
use crate::admin::{Admins, PublicKeyError};
use crate::audit::{AuditError, AuditLog};
use crate::clock::Clock;
use crate::config::Config;
use crate::files::{self, FileError};
use crate::session::{SessionStore, Sessions, SharedSessions};
use crate::storage::{KeyFormatError, KeyRing, Storage, StorageError, StorageKey};
use crate::token::{TokenKeys, TokenKeysError};
use crate::trust::{Trust, TrustError};

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
        let trust = Trust::load(config)?;
        let mut admins = Admins::new();
        for path in &config.admin_keys {
            admins
                .add_pem(&files::read_text(path)?)
                .map_err(|source| OpenError::AdminKey {
                    path: path.clone(),
                    source,
                })?;
        }
        let storage = match &config.postgres {
            Some(postgres) => Storage::connect(&postgres.connection, postgres.ca.as_deref(), keys)?,
            None => Storage::open(&config.state_dir.join("kbs.redb"), keys)?,
        };
        let storage = Arc::new(storage);
        let tokens = TokenKeys::open(storage.clone(), clock.clone())?;
        let (timeout, bound) = (config.limits.session_timeout, config.limits.sessions);
        let (sessions, replica) = match &config.postgres {
            Some(postgres) => {
                let shared = SharedSessions::new(storage.clone(), timeout, bound)?;
                (SessionStore::Shared(shared), Some(postgres.replica.clone()))
            }
            None => (SessionStore::Own(Sessions::new(timeout, bound)), None),
        };
        let audit = AuditLog::open(&config.audit_log, replica, clock.unix())?;
        Ok(Self {
            trust: RwLock::new(Arc::new(trust)),
            sessions,
            tokens,
            storage,
            audit,
            admins,
            clock,
        })
    }

    /// Reads roots, revocation lists, collateral and signers again, and judges by them from now on; if one of them cannot be used, by those of
    /// before. Gives how many files of collateral there are. Blocks.
    pub fn reload(&self, config: &Config) -> Result<usize, TrustError> {
        let trust = Trust::load(config)?;
        let collateral = trust.collateral.len();
        *self.trust.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(trust);
        Ok(collateral)
    }

    /// What counts now.
    pub(super) fn trust(&self) -> Arc<Trust> {
        self.trust.read().unwrap_or_else(PoisonError::into_inner).clone()
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
        source: PublicKeyError,
    },
    /// Roots, revocation lists, collateral or signers cannot be used.
    #[error("what evidence is judged by cannot be read")]
    Trust(#[from] TrustError),
    /// The database cannot be opened.
    #[error("the database cannot be opened")]
    Storage(#[from] StorageError),
    /// The audit log cannot be opened.
    #[error("the audit log cannot be opened")]
    Audit(#[from] AuditError),
}
