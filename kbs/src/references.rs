//! Reference values: what rules mean when they say `reference:<name>` in place of a digest.
//!
//! Documents come from a publisher ([`cella_attest::reference`]) through an admin and are kept as they came. Who may publish is the owner's to say, in
//! the configuration: an admin brings documents in and cannot make one. At each use a document is verified again, by the signers and the time of that
//! moment (threat T28): one that has expired, or whose signer is not trusted any more, has no values.

use std::cell::RefCell;

use cella_attest::conditions::Lookup;
use cella_attest::reference::{Document, Measured, ReferenceError, ReferenceName, References, Values};
use serde::Serialize;

use crate::storage::{Moment, StorageError};

/// The values of names as of one moment of the database.
pub(crate) struct Known<'a> {
    moment: &'a Moment<'a>,
    signers: &'a [[u8; 32]],
    now: u64,
    failed: RefCell<Option<StorageError>>,
}

impl<'a> Known<'a> {
    /// `now` is in Unix seconds.
    pub(crate) fn new(moment: &'a Moment<'a>, signers: &'a [[u8; 32]], now: u64) -> Self {
        Self {
            moment,
            signers,
            now,
            failed: RefCell::new(None),
        }
    }

    /// Whether the database failed at a look. What was decided then counts for nothing.
    pub(crate) fn failed(self) -> Result<(), StorageError> {
        self.failed.into_inner().map_or(Ok(()), Err)
    }
}

impl Lookup for Known<'_> {
    fn values(&self, name: &ReferenceName, of: Measured) -> Result<Vec<[u8; 48]>, &'static str> {
        let document = match self.moment.reference(name) {
            Ok(document) => document.ok_or("reference values unknown")?,
            Err(error) => {
                *self.failed.borrow_mut() = Some(error);
                return Err("reference values unknown");
            }
        };
        let references = document.verify(self.signers, self.now).map_err(|error| class(&error))?;
        // The database could give another name's document, signed as well.
        if references.name != *name {
            return Err("reference values unknown");
        }
        Ok(references.values.of(of).to_vec())
    }
}

/// The class of the cause: constant text, fit for a guest.
fn class(error: &ReferenceError) -> &'static str {
    match error {
        ReferenceError::Expired => "reference values expired",
        ReferenceError::Unsigned | ReferenceError::Signature => "reference values not signed by a trusted signer",
        ReferenceError::Future => "reference values from the future",
        _ => "reference values malformed",
    }
}

/// What an import changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Imported {
    /// The document's name.
    pub name: String,
    /// When it was signed, in Unix seconds.
    pub issued: u64,
    /// When it ends.
    pub expires: u64,
    /// Values that were not there before.
    pub added: Vec<Value>,
    /// Values that are not there any more.
    pub removed: Vec<Value>,
}

/// A value with what it is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Value {
    /// Its name in documents.
    pub of: &'static str,
    /// 96 hex digits.
    pub value: String,
}

impl Imported {
    /// What `references` change, where `before` is what was there under their name.
    pub(crate) fn new(references: &References, before: Option<&Document>) -> Self {
        // What was there may have expired: what it said is compared nevertheless.
        let before = before
            .and_then(|document| document.unverified().ok())
            .unwrap_or_default();
        Self {
            name: references.name.to_string(),
            issued: references.issued,
            expires: references.expires,
            added: without(&references.values, &before),
            removed: without(&before, &references.values),
        }
    }
}

fn without(these: &Values, those: &Values) -> Vec<Value> {
    these
        .iter()
        .filter(|(of, value)| !those.of(*of).contains(value))
        .map(|(of, value)| Value {
            of: of.name(),
            value: hex::encode(value),
        })
        .collect()
}

/// A document that is kept, and whether it counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Kept {
    /// Its name.
    pub name: String,
    /// When it was signed, in Unix seconds; nothing where that cannot be told.
    pub issued: Option<u64>,
    /// When it ends; nothing where it does not count.
    pub expires: Option<u64>,
    /// The Ed25519 key that signed, hex; nothing where it does not count.
    pub signer: Option<String>,
    /// Why it does not count now; nothing where it does.
    pub refused: Option<&'static str>,
    /// Its values.
    pub values: Vec<Value>,
}

impl Kept {
    /// What is to be told about a document at `now`, in Unix seconds.
    pub(crate) fn new(name: String, document: &Document, signers: &[[u8; 32]], now: u64) -> Self {
        let verified = document.verify(signers, now);
        let values = document.unverified().unwrap_or_default();
        Self {
            name,
            issued: document.issued(),
            expires: verified.as_ref().ok().map(|references| references.expires),
            signer: verified.as_ref().ok().map(|references| hex::encode(references.signer)),
            refused: verified.as_ref().err().map(class),
            values: without(&values, &Values::new()),
        }
    }
}
