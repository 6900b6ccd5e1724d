//! Reference values, kept as the documents that came. They are verified again whenever they are used, so whoever can write the database without
//! having a signer's key gains nothing, and a signer who is not trusted any more counts at once for nothing.

use cella_attest::reference::{Document, ReferenceName, References};

use super::backend::Table;
use super::floor::{Rollback, StoreError};
use super::moment::Moment;
use super::{Storage, StorageError};

impl Storage {
    /// Keeps a document under its name, in place of one that the same signer signed before it, or a signer who is not among `signers` any more.
    /// The same one again changes nothing.
    ///
    /// `document` is the one that `references` was read from.
    pub fn put_reference(
        &self,
        references: &References,
        document: &Document,
        signers: &[[u8; 32]],
    ) -> Result<(), StoreError> {
        let (name, json) = (references.name.as_str(), document.to_json());
        self.transact(|transaction| {
            if let Some(stored) = transaction.get(Table::References, name)? {
                if *stored == json {
                    return Ok(());
                }
                let stored = parse(name, &stored)?;
                // A name is one publisher's: what rules mean by it is not another's to change.
                if stored.signer(signers).is_ok_and(|signer| signer != references.signer) {
                    return Err(Rollback::OtherSigner { name: name.to_owned() }.into());
                }
                let have = stored.issued().unwrap_or(0);
                if have >= references.issued {
                    return Err(Rollback::Reference {
                        name: name.to_owned(),
                        have,
                        offered: references.issued,
                    }
                    .into());
                }
            }
            transaction.put(Table::References, name, &json)?;
            Ok(())
        })
    }

    /// Every document, in order of names.
    pub fn references(&self) -> Result<Vec<(String, Document)>, StorageError> {
        let read = |cell: super::Cell| {
            let value = self
                .keys
                .unseal(Table::References, &cell.key, &cell.value.unwrap_or_default())?;
            let document = parse(&cell.key, &value)?;
            Ok((cell.key, document))
        };
        self.backend
            .snapshot(&[Table::References])?
            .into_iter()
            .map(read)
            .collect()
    }
}

impl Moment<'_> {
    /// The document of a name.
    pub fn reference(&self, name: &ReferenceName) -> Result<Option<Document>, StorageError> {
        self.read(Table::References, name.as_str())?
            .map(|value| parse(name.as_str(), &value))
            .transpose()
    }
}

fn parse(name: &str, value: &[u8]) -> Result<Document, StorageError> {
    Document::parse(value).map_err(|_| StorageError::NotAuthentic { path: name.to_owned() })
}
