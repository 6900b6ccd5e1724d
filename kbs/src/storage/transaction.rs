//! Reading and changing sealed values so that nobody else's change is lost.
//!
//! What a transaction reads is remembered as it stood in the database and must still stand there when it commits;
//! otherwise it runs again from the start. Nothing is locked in between.

use zeroize::Zeroizing;

use super::backend::{Backend, Batch, Cell, Table};
use super::seal::KeyRing;
use super::{Storage, StorageError};

/// How often a change is tried while others change the same values. Each failure is somebody else's success.
const TRIES: usize = 16;

/// A change that is being put together.
pub(crate) struct Transaction<'a> {
    backend: &'a dyn Backend,
    keys: &'a KeyRing,
    batch: Batch,
}

impl Transaction<'_> {
    /// A value, opened. Not what this transaction has put there: read before writing.
    pub(crate) fn get(&mut self, table: Table, key: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StorageError> {
        let value = self.backend.view()?.read(table, key)?;
        let opened = value
            .as_deref()
            .map(|sealed| self.keys.unseal(table, key, sealed))
            .transpose()?;
        self.batch.expect.push(Cell {
            table,
            key: key.to_owned(),
            value,
        });
        Ok(opened)
    }

    /// Puts a value in its place.
    pub(crate) fn put(&mut self, table: Table, key: &str, plain: &[u8]) -> Result<(), StorageError> {
        let value = self.keys.seal(table, key, plain).ok_or(StorageError::Seal)?;
        self.batch.write.push(Cell {
            table,
            key: key.to_owned(),
            value: Some(value),
        });
        Ok(())
    }

    /// Takes a value away.
    pub(crate) fn remove(&mut self, table: Table, key: &str) {
        self.batch.write.push(Cell {
            table,
            key: key.to_owned(),
            value: None,
        });
    }
}

impl Storage {
    /// Runs `change` and commits what it wrote; runs it again when something that it read was changed meanwhile. Nothing
    /// is written when it fails.
    pub(crate) fn transact<T, E: From<StorageError>>(
        &self,
        change: impl Fn(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        for _ in 0..TRIES {
            let mut transaction = Transaction {
                backend: self.backend.as_ref(),
                keys: &self.keys,
                batch: Batch::default(),
            };
            let done = change(&mut transaction)?;
            let batch = transaction.batch;
            if batch.write.is_empty() || self.backend.commit(&batch)? {
                return Ok(done);
            }
        }
        Err(StorageError::Contended.into())
    }
}
