//! Resources, their rules and the floors of their versions: on disk, sealed.
//!
//! A [`Backend`] keeps named values and changes several of them at once; what they mean is decided here. Every value is
//! sealed with AES-256-GCM under the storage key, with a random nonce and with its place as associated data: what somebody
//! who can write the database moves or changes does not open. Putting back an *older copy of the whole database* is not
//! noticed; keep it where only the broker writes.
//! A random nonce allows 2³² seals under one key; each takes a synced write, so the bound is out of reach.

use std::path::{Path, PathBuf};

use cella_kbs_client::wire::ResourcePath;
use ring::hmac;
use zeroize::Zeroizing;

use crate::rule::{Rule, RuleError};

pub mod backend;
mod backup;
mod embedded;
mod floor;
mod moment;
mod owners;
mod postgres;
mod references;
mod seal;
mod transaction;

pub use backup::{BackupError, MAX_BACKUP};
pub use floor::{FloorKind, FloorName, FloorNameError, Rollback, StoreError};
pub use moment::Moment;
pub use owners::OwnersChangeError;
pub use postgres::ConnectionError;
pub use seal::{KeyFormatError, KeyRing, StorageKey};

use backend::{Backend, Batch, Cell, Table};
use embedded::Embedded;
use floor::next;
use postgres::Postgres;

/// Largest resource, in bytes.
pub const MAX_RESOURCE: usize = 64 * 1024;

/// A sealed constant, to tell a wrong storage key from a damaged value. Its contents name the form of everything else.
const KEY_CHECK: &str = "key-check";
const FORM: &[u8] = b"cella-kbs 2";

/// The open database.
pub struct Storage {
    backend: Box<dyn Backend>,
    keys: KeyRing,
}

/// What is released. Has no `Debug`.
pub struct Resource {
    /// Its version.
    pub version: u64,
    /// Itself.
    pub bytes: Zeroizing<Vec<u8>>,
}

/// One line of [`Storage::list`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// The resource's name.
    pub path: String,
    /// Its version and length, if it is there.
    pub resource: Option<(u64, usize)>,
    /// Its rule and the rule's version, if it has one.
    pub rule: Option<(u64, Rule)>,
}

impl Storage {
    /// Opens the database in a file, or makes one with mode 0600. Values that an earlier key sealed are sealed anew.
    pub fn open(path: &Path, keys: KeyRing) -> Result<Self, StorageError> {
        Self::over(Box::new(Embedded::open(path)?), keys)
    }

    /// Opens a PostgreSQL database that other brokers may share, or makes its table. `connection` is a private file with a
    /// connection string, `ca` the PEM roots of a server that is not on a Unix socket. Blocks, and must not be called from a task,
    /// nor may any other method of what it gives.
    pub fn connect(connection: &Path, ca: Option<&Path>, keys: KeyRing) -> Result<Self, StorageError> {
        Self::over(Box::new(Postgres::open(connection, ca)?), keys)
    }

    /// Opens what a backend holds.
    pub(crate) fn over(backend: Box<dyn Backend>, keys: KeyRing) -> Result<Self, StorageError> {
        let storage = Self { backend, keys };
        storage.check_key()?;
        storage.renew_seals()?;
        Ok(storage)
    }

    fn check_key(&self) -> Result<(), StorageError> {
        match self.backend.view()?.read(Table::Meta, KEY_CHECK)? {
            Some(sealed) if !seal::is_of_this_form(&sealed) => Err(StorageError::Form),
            Some(sealed) if !self.keys.knows(&sealed) => Err(StorageError::WrongKey),
            Some(sealed) if self.keys.unseal(Table::Meta, KEY_CHECK, &sealed)?.as_slice() != FORM => {
                Err(StorageError::Form)
            }
            Some(_) => Ok(()),
            None => self.transact(|transaction| {
                // Another broker may be starting on the same database.
                if transaction.get(Table::Meta, KEY_CHECK)?.is_none() {
                    transaction.put(Table::Meta, KEY_CHECK, FORM)?;
                }
                Ok(())
            }),
        }
    }

    /// Seals under the current key what an earlier one sealed, in one change. Gives how many values that were.
    fn renew_seals(&self) -> Result<usize, StorageError> {
        loop {
            let mut batch = Batch::default();
            for cell in self.backend.snapshot(&Table::ALL)? {
                let Cell { table, key, value } = &cell;
                let Some(sealed) = value.as_deref().filter(|sealed| !self.keys.is_current(sealed)) else {
                    continue;
                };
                let plain = self.keys.unseal(*table, key, sealed)?;
                let value = Some(self.keys.seal(*table, key, &plain).ok_or(StorageError::Seal)?);
                batch.write.push(Cell { value, ..cell.clone() });
                batch.expect.push(cell);
            }
            let renewed = batch.write.len();
            if renewed == 0 || self.backend.commit(&batch)? {
                return Ok(renewed);
            }
        }
    }

    /// A resource's version and bytes.
    pub fn resource(&self, path: &ResourcePath) -> Result<Option<Resource>, StorageError> {
        self.now()?.resource(path)
    }

    /// A resource's rule.
    pub fn rule(&self, path: &ResourcePath) -> Result<Option<Rule>, StorageError> {
        self.now()?.rule(path)
    }

    /// Creates or replaces a resource, under a version above every one that it had; gives that version.
    pub fn put_resource(&self, path: &ResourcePath, offered: Option<u64>, bytes: &[u8]) -> Result<u64, StoreError> {
        self.put(Table::Resources, path, offered, bytes)
    }

    /// Creates or replaces a rule, under a version above every one that it had; gives that version.
    pub fn put_rule(&self, path: &ResourcePath, offered: Option<u64>, rule: &Rule) -> Result<u64, StoreError> {
        let json = serde_json::to_vec(rule).map_err(|_| StorageError::Seal)?;
        self.put(Table::Rules, path, offered, &json)
    }

    /// One more than the last version of a resource, there or not.
    pub fn next_resource_version(&self, path: &ResourcePath) -> Result<u64, StorageError> {
        self.next_version(Table::Resources, path)
    }

    /// One more than the last version of a rule, there or not.
    pub fn next_rule_version(&self, path: &ResourcePath) -> Result<u64, StorageError> {
        self.next_version(Table::Rules, path)
    }

    /// Removes a resource together with its rule. Their versions stay known. False when neither was there.
    pub fn delete_resource(&self, path: &ResourcePath) -> Result<bool, StorageError> {
        self.transact(|transaction| {
            let mut there = false;
            for table in [Table::Resources, Table::Rules] {
                if transaction.get(table, path.as_str())?.is_some() {
                    transaction.remove(table, path.as_str());
                    there = true;
                }
            }
            Ok(there)
        })
    }

    /// Removes a rule, so that its resource is released to nobody. False when there was none.
    pub fn delete_rule(&self, path: &ResourcePath) -> Result<bool, StorageError> {
        self.transact(|transaction| {
            let there = transaction.get(Table::Rules, path.as_str())?.is_some();
            if there {
                transaction.remove(Table::Rules, path.as_str());
            }
            Ok(there)
        })
    }

    /// Whether a resource or a rule has this name.
    pub fn contains(&self, path: &ResourcePath) -> Result<bool, StorageError> {
        self.now()?.contains(path)
    }

    /// Every name with its rule, in order of names. Opens all values, one after the other.
    pub fn list(&self) -> Result<Vec<Listed>, StorageError> {
        let mut listed = std::collections::BTreeMap::new();
        for cell in self.backend.snapshot(&[Table::Resources, Table::Rules])? {
            let value = self
                .keys
                .unseal(cell.table, &cell.key, &cell.value.unwrap_or_default())?;
            let line = listed.entry(cell.key.clone()).or_insert_with(|| Listed {
                path: cell.key.clone(),
                resource: None,
                rule: None,
            });
            if cell.table == Table::Resources {
                let (version, bytes) = versioned(&cell.key, &value)?;
                line.resource = Some((version, bytes.len()));
            } else {
                line.rule = Some(rule(&cell.key, &value)?);
            }
        }
        Ok(listed.into_values().collect())
    }

    /// The keys of a table's entries, in their order.
    pub(crate) fn names(&self, table: Table) -> Result<Vec<String>, StorageError> {
        Ok(self
            .backend
            .snapshot(&[table])?
            .into_iter()
            .map(|cell| cell.key)
            .collect())
    }

    /// The values of a table's entries, opened, in order of their keys.
    pub(crate) fn values(&self, table: Table) -> Result<Vec<Zeroizing<Vec<u8>>>, StorageError> {
        let opened = |cell: Cell| self.keys.unseal(table, &cell.key, &cell.value.unwrap_or_default());
        self.backend.snapshot(&[table])?.into_iter().map(opened).collect()
    }

    /// Removes a table's entries whose keys come before `bound`.
    pub(crate) fn remove_before(&self, table: Table, bound: &str) -> Result<u64, StorageError> {
        self.backend.remove_before(table, bound)
    }

    /// Keys for the tickets of sessions, one for each storage key at hand, that of the current one first. All brokers that
    /// share the database have the same.
    pub(crate) fn ticket_keys(&self) -> Result<Vec<hmac::Key>, StorageError> {
        let key = |key: &StorageKey| {
            Some(hmac::Key::new(
                hmac::HMAC_SHA256,
                key.derive(&[b"session tickets"])?.as_ref(),
            ))
        };
        self.keys
            .all()
            .map(key)
            .collect::<Option<_>>()
            .ok_or(StorageError::Seal)
    }

    pub(crate) fn read(&self, table: Table, key: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StorageError> {
        self.now()?.read(table, key)
    }

    fn put(&self, table: Table, path: &ResourcePath, offered: Option<u64>, bytes: &[u8]) -> Result<u64, StoreError> {
        let last = last_key(table, path);
        self.transact(|transaction| {
            let there = transaction.get(table, path.as_str())?;
            let same = match &there {
                Some(value) => versioned(path.as_str(), value)?.1 == bytes,
                None => false,
            };
            let (version, new) = next(transaction, &last, offered, same)?;
            if new {
                let mut value = Zeroizing::new(Vec::with_capacity(8 + bytes.len()));
                value.extend_from_slice(&version.to_be_bytes());
                value.extend_from_slice(bytes);
                transaction.put(table, path.as_str(), &value)?;
            }
            Ok(version)
        })
    }
}

/// Where the last version of a resource or rule stands among the floors. No floor's name has a blank.
fn last_key(table: Table, path: &ResourcePath) -> String {
    format!("last-{} {path}", table.name())
}

/// A stored value: its version, 8 bytes big endian, and the rest.
fn versioned<'a>(path: &str, value: &'a [u8]) -> Result<(u64, &'a [u8]), StorageError> {
    let (version, bytes) = value
        .split_first_chunk()
        .ok_or_else(|| StorageError::NotAuthentic { path: path.to_owned() })?;
    Ok((u64::from_be_bytes(*version), bytes))
}

fn rule(path: &str, value: &[u8]) -> Result<(u64, Rule), StorageError> {
    let (version, json) = versioned(path, value)?;
    let rule = Rule::from_json(json).map_err(|source| StorageError::Rule {
        path: path.to_owned(),
        source,
    })?;
    Ok((version, rule))
}

/// The database cannot be used, or holds what it should not.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The file cannot be made or opened.
    #[error("opening the database {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The database failed, is damaged, or is in use by another process.
    #[error("using the database {}", path.display())]
    Database {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// The configuration does not say how to reach PostgreSQL.
    #[error("how to reach PostgreSQL is not clear")]
    Connection(#[from] ConnectionError),
    /// PostgreSQL was not there for some seconds. Nothing was changed.
    #[error("PostgreSQL cannot be used now, nothing was changed")]
    Unavailable {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// PostgreSQL went away while it answered a commit.
    #[error("PostgreSQL went away in a commit: what was asked for is done, or it is not")]
    Uncertain {
        /// How.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// PostgreSQL refuses, and will again.
    #[error("PostgreSQL refuses")]
    Postgres {
        /// Why.
        #[source]
        source: Box<tokio_postgres::Error>,
    },
    /// A server that may lose what it has acknowledged is no place for floors.
    #[error("PostgreSQL runs with fsync = off: what it acknowledges can be lost")]
    NotDurable,
    /// The database was made with another storage key.
    #[error("the storage key is not the one that the database was made with")]
    WrongKey,
    /// The database was made by another version of the broker.
    #[error("the database was made by another version of cella-kbs: start with a new one, or restore a backup")]
    Form,
    /// Others changed the same values all the time.
    #[error("the same values were changed by others again and again")]
    Contended,
    /// A value was changed, or moved from another place.
    #[error("what is stored as {path} is not authentic")]
    NotAuthentic {
        /// Its name.
        path: String,
    },
    /// A value could not be sealed.
    #[error("sealing failed")]
    Seal,
    /// A rule of another version.
    #[error("the rule of {path} cannot be read")]
    Rule {
        /// Its name.
        path: String,
        /// Why.
        #[source]
        source: RuleError,
    },
}

#[cfg(test)]
mod contract;
#[cfg(test)]
#[path = "../tests/broker/postgres.rs"]
mod postgres_server;
#[cfg(test)]
mod tests;
