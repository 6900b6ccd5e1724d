//! The database inside of the broker: `redb`, one file.
//!
//! The alternative was SQLite (`rusqlite` with its bundled C source). Both are transactional and sync on commit; what
//! decided: redb is Rust without `unsafe` at our boundary and without a C compiler or 9 MB of C to audit in a program whose
//! whole job is to guard keys; it holds an exclusive lock, so that two brokers cannot share a file by mistake; and all that
//! is needed is a few maps and one transaction over them. What it costs: no `sqlite3` shell to look inside, which would
//! see only sealed values anyway.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition};

use super::StorageError;
use super::backend::{Backend, Batch, Cell, Table, View};

/// The open file.
pub(crate) struct Embedded {
    database: Database,
    path: PathBuf,
}

impl Embedded {
    /// Opens a database or makes one with mode 0600. A database that was not closed is repaired to its last commit.
    pub(crate) fn open(path: &Path) -> Result<Self, StorageError> {
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
        let database = Database::create(path).map_err(|e| fail(path, e))?;
        let embedded = Self {
            database,
            path: path.to_owned(),
        };
        let write = embedded.database.begin_write().map_err(|e| fail(path, e))?;
        for table in Table::ALL {
            write.open_table(definition(table)).map_err(|e| fail(path, e))?;
        }
        write.commit().map_err(|e| fail(path, e))?;
        Ok(embedded)
    }

    fn fail(&self, source: impl Into<redb::Error>) -> StorageError {
        fail(&self.path, source)
    }
}

impl Backend for Embedded {
    fn view(&self) -> Result<Box<dyn View + '_>, StorageError> {
        let read = self.database.begin_read().map_err(|e| self.fail(e))?;
        Ok(Box::new(Reading { embedded: self, read }))
    }

    fn snapshot(&self, tables: &[Table]) -> Result<Vec<Cell>, StorageError> {
        let read = self.database.begin_read().map_err(|e| self.fail(e))?;
        let mut cells = Vec::new();
        for &table in tables {
            let entries = read.open_table(definition(table)).map_err(|e| self.fail(e))?;
            for entry in entries.iter().map_err(|e| self.fail(e))? {
                let (key, value) = entry.map_err(|e| self.fail(e))?;
                cells.push(Cell {
                    table,
                    key: key.value().to_owned(),
                    value: Some(value.value().to_vec()),
                });
            }
        }
        Ok(cells)
    }

    /// A writer has the database alone: what is expected cannot change between the look and the commit.
    fn commit(&self, batch: &Batch) -> Result<bool, StorageError> {
        let write = self.database.begin_write().map_err(|e| self.fail(e))?;
        for cell in &batch.expect {
            let table = write.open_table(definition(cell.table)).map_err(|e| self.fail(e))?;
            let found = table.get(cell.key.as_str()).map_err(|e| self.fail(e))?;
            if found.as_ref().map(|value| value.value()) != cell.value.as_deref() {
                drop(found);
                drop(table);
                write.abort().map_err(|e| self.fail(e))?;
                return Ok(false);
            }
        }
        for cell in &batch.write {
            let mut table = write.open_table(definition(cell.table)).map_err(|e| self.fail(e))?;
            match &cell.value {
                Some(value) => table.insert(cell.key.as_str(), value.as_slice()).map(drop),
                None => table.remove(cell.key.as_str()).map(drop),
            }
            .map_err(|e| self.fail(e))?;
        }
        write.commit().map_err(|e| self.fail(e))?;
        Ok(true)
    }

    fn remove_before(&self, table: Table, bound: &str) -> Result<u64, StorageError> {
        let write = self.database.begin_write().map_err(|e| self.fail(e))?;
        let mut removed = 0;
        {
            let mut table = write.open_table(definition(table)).map_err(|e| self.fail(e))?;
            for entry in table.extract_from_if(..bound, |_, _| true).map_err(|e| self.fail(e))? {
                entry.map_err(|e| self.fail(e))?;
                removed += 1;
            }
        }
        write.commit().map_err(|e| self.fail(e))?;
        Ok(removed)
    }
}

/// A reader has the database as it was when it began; writers are not kept waiting.
struct Reading<'a> {
    embedded: &'a Embedded,
    read: ReadTransaction,
}

impl View for Reading<'_> {
    fn read(&self, table: Table, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        let table = self
            .read
            .open_table(definition(table))
            .map_err(|e| self.embedded.fail(e))?;
        let value = table.get(key).map_err(|e| self.embedded.fail(e))?;
        Ok(value.map(|value| value.value().to_vec()))
    }
}

fn definition(table: Table) -> TableDefinition<'static, &'static str, &'static [u8]> {
    TableDefinition::new(table.name())
}

fn fail(path: &Path, source: impl Into<redb::Error>) -> StorageError {
    StorageError::Database {
        path: path.to_owned(),
        source: Box::new(source.into()),
    }
}
