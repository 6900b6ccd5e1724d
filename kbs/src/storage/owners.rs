//! Owners and their approvals, kept.

use cella_kbs_client::wire::ResourcePath;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::backend::Table;
use super::moment::Moment;
use super::{Storage, StorageError};
use crate::facts::Facts;
use crate::owners::{Missing, Owner, Owners, OwnersError, SignedApproval};

/// Most words of owners about one resource that are kept.
const MAX_APPROVALS: usize = 1024;

impl Storage {
    /// Whose yes a resource needs.
    pub fn owners(&self, path: &ResourcePath) -> Result<Owners, StorageError> {
        self.now()?.owners(path)
    }

    /// Takes a request for other owners; gives them. Owners stay when their resource is removed.
    pub fn replace_owners(&self, path: &ResourcePath, json: &[u8]) -> Result<Owners, OwnersChangeError> {
        self.transact(|transaction| {
            let owners = transaction
                .get(Table::Owners, path.as_str())?
                .map_or_else(|| Ok(Owners::default()), |value| parse(path, &value))?;
            let next = owners.replaced(path, json)?;
            transaction.put(Table::Owners, path.as_str(), &encode(&next)?)?;
            Ok(next)
        })
    }

    /// Keeps an owner's word, which must be later than the last one about the same guest.
    pub fn put_approval(&self, path: &ResourcePath, approval: &SignedApproval) -> Result<(), OwnersChangeError> {
        let key = key(path, &approval.owner, &approval.launch_digest, &approval.policy_digest);
        self.make_room(path)?;
        self.transact(|transaction| {
            if let Some(value) = transaction.get(Table::Approvals, &key)? {
                let last: SignedApproval = parse(path, &value)?;
                if last == *approval {
                    return Ok(());
                }
                if last.issued >= approval.issued {
                    return Err(OwnersError::Older.into());
                }
            }
            transaction.put(Table::Approvals, &key, &encode(approval)?)?;
            Ok(())
        })
    }

    /// Every word of owners about a resource.
    pub fn approvals(&self, path: &ResourcePath) -> Result<Vec<SignedApproval>, StorageError> {
        let prefix = format!("{path} ");
        let mut approvals = Vec::new();
        for cell in self.backend.snapshot(&[Table::Approvals])? {
            if cell.key.starts_with(&prefix) {
                let value = cell.value.unwrap_or_default();
                let value = self.keys.unseal(Table::Approvals, &cell.key, &value)?;
                approvals.push(parse(path, &value)?);
            }
        }
        Ok(approvals)
    }

    /// Forgets words about versions that are gone, when there are many. Only owners can make them many.
    fn make_room(&self, path: &ResourcePath) -> Result<(), OwnersChangeError> {
        let approvals = self.approvals(path)?;
        if approvals.len() < MAX_APPROVALS {
            return Ok(());
        }
        let current = self.next_resource_version(path)?.saturating_sub(1);
        let gone: Vec<_> = approvals.iter().filter(|approval| approval.version < current).collect();
        if gone.is_empty() {
            return Err(OwnersError::TooManyApprovals.into());
        }
        self.transact(|transaction| {
            for approval in &gone {
                let key = key(path, &approval.owner, &approval.launch_digest, &approval.policy_digest);
                transaction.remove(Table::Approvals, &key);
            }
            Ok(())
        })
    }
}

impl Moment<'_> {
    /// Whose yes a resource needs.
    pub fn owners(&self, path: &ResourcePath) -> Result<Owners, StorageError> {
        self.read(Table::Owners, path.as_str())?
            .map_or_else(|| Ok(Owners::default()), |value| parse(path, &value))
    }

    /// Who of a resource's owners has not approved its version for a guest.
    pub fn missing_owners(
        &self,
        path: &ResourcePath,
        version: u64,
        facts: &Facts,
        now: u64,
    ) -> Result<Option<Missing>, StorageError> {
        self.owners(path)?.check(path, version, facts, now, |owner: &Owner| {
            let key = key(path, &owner.name, &facts.launch_digest(), &facts.initdata);
            self.read(Table::Approvals, &key)?
                .map(|value| parse(path, &value))
                .transpose()
        })
    }
}

/// No part of it has a blank.
fn key(path: &ResourcePath, owner: &str, launch_digest: &[u8; 48], policy_digest: &[u8; 32]) -> String {
    let (launch, policy) = (hex::encode(launch_digest), hex::encode(policy_digest));
    format!("{path} {owner} {launch} {policy}")
}

fn parse<T: DeserializeOwned>(path: &ResourcePath, value: &[u8]) -> Result<T, StorageError> {
    serde_json::from_slice(value).map_err(|_| StorageError::NotAuthentic { path: path.to_string() })
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, StorageError> {
    serde_json::to_vec(value).map_err(|_| StorageError::Seal)
}

/// Owners or an approval are not stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnersChangeError {
    /// Refused.
    #[error("{0}")]
    Refused(#[from] OwnersError),
    /// The database.
    #[error("storage failed")]
    Storage(#[from] StorageError),
}
