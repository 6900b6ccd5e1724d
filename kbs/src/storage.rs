//! Resources and their rules, on disk, sealed.
//!
//! The database is `redb`. The alternative was SQLite (`rusqlite` with its bundled C source). Both are transactional
//! and sync on commit; what decided: redb is Rust without `unsafe` at our boundary and without a C compiler or 9 MB of
//! C to audit in a program whose whole job is to guard keys; it holds an exclusive lock, so that two brokers cannot
//! share a file by mistake; and all that is needed is two maps and one transaction over both. What it costs: no `sqlite3`
//! shell to look inside, which would see only sealed values anyway.
//!
//! Every value, resource or rule, is sealed with AES-256-GCM under the storage key, with a random nonce and with its
//! table and path as associated data: what somebody who can write the file moves or changes does not open. Putting back
//! an *older copy of the whole file* is not noticed; keep the file where only the broker writes.
//! A random nonce allows 2³² seals under one key; each takes a synced write, so the bound is out of reach.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cella_kbs_client::wire::ResourcePath;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use zeroize::Zeroizing;

use crate::rule::{Rule, RuleError};

mod seal;

pub use seal::{KeyFormatError, StorageKey};

/// Largest resource, in bytes.
pub const MAX_RESOURCE: usize = 64 * 1024;

type Table = TableDefinition<'static, &'static str, &'static [u8]>;

const RESOURCES: Table = TableDefinition::new("resources");
const RULES: Table = TableDefinition::new("rules");
const META: Table = TableDefinition::new("meta");
/// A sealed constant, to tell a wrong storage key from a damaged value.
const KEY_CHECK: &str = "key-check";

/// The open database.
pub struct Storage {
    database: Database,
    key: StorageKey,
    path: PathBuf,
}

/// One line of [`Storage::list`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// The resource's name.
    pub path: String,
    /// Its length, if it is there.
    pub bytes: Option<usize>,
    /// Its rule, if it has one.
    pub rule: Option<Rule>,
}

impl Storage {
    /// Opens a database or makes one with mode 0600. A database that was not closed is repaired to its last commit.
    pub fn open(path: &Path, key: StorageKey) -> Result<Self, StorageError> {
        OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| StorageError::File {
                path: path.to_owned(),
                source,
            })?;
        let fail = |source: redb::Error| StorageError::Database {
            path: path.to_owned(),
            source: Box::new(source),
        };
        let database = Database::create(path).map_err(|e| fail(e.into()))?;
        let storage = Self {
            database,
            key,
            path: path.to_owned(),
        };
        storage.write(|write| {
            write.open_table(RESOURCES)?;
            write.open_table(RULES)?;
            let mut meta = write.open_table(META)?;
            let known = meta.get(KEY_CHECK)?.map(|sealed| sealed.value().to_vec());
            match known {
                Some(sealed) => storage
                    .key
                    .open("meta", KEY_CHECK, &sealed)
                    .map(drop)
                    .ok_or(StorageError::WrongKey)?,
                None => {
                    let sealed = storage
                        .key
                        .seal("meta", KEY_CHECK, b"cella-kbs")
                        .ok_or(StorageError::Seal)?;
                    meta.insert(KEY_CHECK, sealed.as_slice())?;
                }
            }
            Ok(true)
        })?;
        Ok(storage)
    }

    /// A resource's bytes.
    pub fn resource(&self, path: &ResourcePath) -> Result<Option<Zeroizing<Vec<u8>>>, StorageError> {
        self.read(RESOURCES, path.as_str())
    }

    /// A resource's rule.
    pub fn rule(&self, path: &ResourcePath) -> Result<Option<Rule>, StorageError> {
        self.read(RULES, path.as_str())?
            .map(|json| rule(path.as_str(), &json))
            .transpose()
    }

    /// Creates or replaces a resource.
    pub fn put_resource(&self, path: &ResourcePath, bytes: &[u8]) -> Result<(), StorageError> {
        self.put(RESOURCES, path, bytes)
    }

    /// Creates or replaces a rule.
    pub fn put_rule(&self, path: &ResourcePath, rule: &Rule) -> Result<(), StorageError> {
        let json = serde_json::to_vec(rule).map_err(|_| StorageError::Seal)?;
        self.put(RULES, path, &json)
    }

    /// Removes a resource together with its rule. False when neither was there.
    pub fn delete_resource(&self, path: &ResourcePath) -> Result<bool, StorageError> {
        self.write(|write| {
            let resource = write.open_table(RESOURCES)?.remove(path.as_str())?.is_some();
            let rule = write.open_table(RULES)?.remove(path.as_str())?.is_some();
            Ok(resource || rule)
        })
    }

    /// Removes a rule, so that its resource is released to nobody. False when there was none.
    pub fn delete_rule(&self, path: &ResourcePath) -> Result<bool, StorageError> {
        self.write(|write| Ok(write.open_table(RULES)?.remove(path.as_str())?.is_some()))
    }

    /// Whether a resource or a rule has this name.
    pub fn contains(&self, path: &ResourcePath) -> Result<bool, StorageError> {
        Ok(self.sealed(RESOURCES, path.as_str())?.is_some() || self.sealed(RULES, path.as_str())?.is_some())
    }

    /// Every name with its rule, in order of names. Reads all rules.
    pub fn list(&self) -> Result<Vec<Listed>, StorageError> {
        let mut listed = std::collections::BTreeMap::new();
        let read = self.database.begin_read().map_err(|e| self.fail(e))?;
        for definition in [RESOURCES, RULES] {
            let table = read.open_table(definition).map_err(|e| self.fail(e))?;
            for entry in table.iter().map_err(|e| self.fail(e))? {
                let (path, sealed) = entry.map_err(|e| self.fail(e))?;
                let (path, sealed) = (path.value(), sealed.value());
                let empty = || Listed {
                    path: path.to_owned(),
                    bytes: None,
                    rule: None,
                };
                let line = listed.entry(path.to_owned()).or_insert_with(empty);
                if is(definition, RESOURCES) {
                    line.bytes = Some(sealed.len().saturating_sub(seal::OVERHEAD));
                } else {
                    line.rule = Some(rule(path, &self.unseal(RULES, path, sealed)?)?);
                }
            }
        }
        Ok(listed.into_values().collect())
    }

    fn read(&self, table: Table, path: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StorageError> {
        self.sealed(table, path)?
            .map(|sealed| self.unseal(table, path, &sealed))
            .transpose()
    }

    fn unseal(&self, table: Table, path: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, StorageError> {
        let opened = self.key.open(name(table), path, sealed);
        opened.ok_or_else(|| StorageError::NotAuthentic { path: path.to_owned() })
    }

    fn sealed(&self, table: Table, path: &str) -> Result<Option<Vec<u8>>, StorageError> {
        let read = self.database.begin_read().map_err(|e| self.fail(e))?;
        let table = read.open_table(table).map_err(|e| self.fail(e))?;
        let sealed = table.get(path).map_err(|e| self.fail(e))?;
        Ok(sealed.map(|sealed| sealed.value().to_vec()))
    }

    fn put(&self, table: Table, path: &ResourcePath, bytes: &[u8]) -> Result<(), StorageError> {
        let sealed = self
            .key
            .seal(name(table), path.as_str(), bytes)
            .ok_or(StorageError::Seal)?;
        self.write(|write| {
            write.open_table(table)?.insert(path.as_str(), sealed.as_slice())?;
            Ok(true)
        })?;
        Ok(())
    }

    /// One transaction, synced. Rolled back on an error and when `change` changed nothing.
    fn write(&self, change: impl FnOnce(&redb::WriteTransaction) -> Result<bool, Fault>) -> Result<bool, StorageError> {
        let write = self.database.begin_write().map_err(|e| self.fail(e))?;
        let changed = change(&write).map_err(|fault| match fault {
            Fault::Database(source) => self.fail(source),
            Fault::Storage(error) => error,
        })?;
        if changed {
            write.commit().map_err(|e| self.fail(e))?;
        } else {
            write.abort().map_err(|e| self.fail(e))?;
        }
        Ok(changed)
    }

    fn fail(&self, source: impl Into<redb::Error>) -> StorageError {
        StorageError::Database {
            path: self.path.clone(),
            source: Box::new(source.into()),
        }
    }
}

/// Why a change was not made: the database's own errors still lack the file's name.
enum Fault {
    Database(redb::Error),
    Storage(StorageError),
}

impl From<redb::TableError> for Fault {
    fn from(source: redb::TableError) -> Self {
        Self::Database(source.into())
    }
}

impl From<redb::StorageError> for Fault {
    fn from(source: redb::StorageError) -> Self {
        Self::Database(source.into())
    }
}

impl From<StorageError> for Fault {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

fn name(table: Table) -> &'static str {
    if is(table, RESOURCES) { "resource" } else { "rule" }
}

fn is(table: Table, other: Table) -> bool {
    redb::TableHandle::name(&table) == redb::TableHandle::name(&other)
}

fn rule(path: &str, json: &[u8]) -> Result<Rule, StorageError> {
    Rule::from_json(json).map_err(|source| StorageError::Rule {
        path: path.to_owned(),
        source,
    })
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
    /// The database was made with another storage key.
    #[error("the storage key is not the one that the database was made with")]
    WrongKey,
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
mod tests;
