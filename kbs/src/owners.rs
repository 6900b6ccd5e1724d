//! Resources that more than one owner must say yes to.
//!
//! ```text
//!  no owners ──an admin names owners──▶ generation 1 ──all of them sign for others──▶ generation 2 …
//! ```
//! A resource with owners is released when its rule names the guest *and* each owner has approved this version of the
//! resource for this launch digest and this policy digest. An approval is a statement signed with the owner's Ed25519 key
//! ([`cella_kbs_client::statement`]); it is verified again at every release, so whoever can write the database without
//! having an owner's key gains nothing. An admin who is no owner can neither approve nor take an owner away.
//!
//! Pure: bytes in, a decision out.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cella_kbs_client::statement::{Approval, Ownership, is_owner_name};
use cella_kbs_client::wire::ResourcePath;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::facts::Facts;

/// Most owners of a resource.
const MAX_OWNERS: usize = 8;
/// How far an owner's clock may be ahead, in seconds.
const MAX_SKEW: u64 = 300;

/// Whose yes a resource needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owners {
    /// How often they were named; 0 if never.
    pub generation: u64,
    /// They; in no order.
    pub owners: Vec<Owner>,
}

/// One owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// A name, for people.
    pub name: String,
    /// The Ed25519 public key, 64 hex digits.
    #[serde(with = "hex::serde")]
    pub key: [u8; 32],
}

/// Body of `POST /cella-owners/…`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnersRequest {
    owners: Vec<Owner>,
    #[serde(default)]
    consents: Vec<Consent>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Consent {
    owner: String,
    signature: String,
}

/// An approval as it is sent and stored, with who gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SignedApproval {
    /// Name of the owner.
    pub owner: String,
    /// See [`Approval`].
    pub version: u64,
    /// See [`Approval`].
    #[serde(with = "hex::serde")]
    pub launch_digest: [u8; 48],
    /// See [`Approval`].
    #[serde(with = "hex::serde")]
    pub policy_digest: [u8; 32],
    /// See [`Approval`].
    pub issued: u64,
    /// See [`Approval`].
    pub expires: u64,
    /// Over the statement, base64url without padding.
    pub signature: String,
}

impl Owners {
    /// The owners that a request names in place of these. Each of these must have signed for them.
    pub fn replaced(&self, path: &ResourcePath, json: &[u8]) -> Result<Self, OwnersError> {
        let request: OwnersRequest = serde_json::from_slice(json).map_err(|source| OwnersError::Syntax { source })?;
        let OwnersRequest { owners, consents } = request;
        if owners.len() > MAX_OWNERS {
            return Err(OwnersError::TooMany);
        }
        for (index, owner) in owners.iter().enumerate() {
            if !is_owner_name(&owner.name) {
                return Err(OwnersError::Name { index });
            }
            // One key under two names would be one person who says yes twice.
            let twice = |other: &Owner| other.name == owner.name || other.key == owner.key;
            if owners.iter().take(index).any(twice) {
                return Err(OwnersError::Twice { index });
            }
        }
        let next = Self {
            generation: self.generation.saturating_add(1),
            owners,
        };
        let statement = Ownership {
            resource: path.clone(),
            generation: next.generation,
            owners: next
                .owners
                .iter()
                .map(|owner| (owner.name.clone(), owner.key))
                .collect(),
        }
        .statement();
        let consented = |owner: &&Owner| {
            let theirs = |consent: &&Consent| consent.owner == owner.name;
            consents
                .iter()
                .filter(theirs)
                .any(|consent| owner.signed(&statement, &consent.signature))
        };
        match missing(self.owners.iter().filter(|owner| !consented(owner))) {
            Some(missing) => Err(OwnersError::Consent { missing }),
            None => Ok(next),
        }
    }

    /// Reads an approval that one of these owners signed for a resource, at `now` in Unix seconds.
    pub fn approval(&self, path: &ResourcePath, json: &[u8], now: u64) -> Result<SignedApproval, OwnersError> {
        let approval: SignedApproval = serde_json::from_slice(json).map_err(|source| OwnersError::Syntax { source })?;
        let owner = self.owners.iter().find(|owner| owner.name == approval.owner);
        if !owner.is_some_and(|owner| owner.signed(&approval.statement(path), &approval.signature)) {
            return Err(OwnersError::Signature);
        }
        // Its place in time is what makes a later word count: one from the future could not be taken back.
        if approval.issued > now.saturating_add(MAX_SKEW) {
            return Err(OwnersError::Future);
        }
        Ok(approval)
    }

    /// Whether each owner has approved this version for a guest; else who has not. `given` finds an owner's latest word
    /// about this launch digest and policy.
    pub fn check<E>(
        &self,
        path: &ResourcePath,
        version: u64,
        facts: &Facts,
        now: u64,
        given: impl Fn(&Owner) -> Result<Option<SignedApproval>, E>,
    ) -> Result<Option<Missing>, E> {
        let launch_digest = facts.launch_digest();
        let mut without = Vec::new();
        for owner in &self.owners {
            let counts = given(owner)?.is_some_and(|approval| {
                approval.owner == owner.name
                    && approval.version == version
                    && approval.launch_digest == launch_digest
                    && approval.policy_digest == facts.initdata
                    && approval.expires > now
                    && approval.expires > approval.issued
                    && owner.signed(&approval.statement(path), &approval.signature)
            });
            if !counts {
                without.push(owner);
            }
        }
        Ok(missing(without.into_iter()))
    }
}

impl Owner {
    fn signed(&self, statement: &str, signature: &str) -> bool {
        URL_SAFE_NO_PAD.decode(signature).is_ok_and(|signature| {
            UnparsedPublicKey::new(&ED25519, &self.key)
                .verify(statement.as_bytes(), &signature)
                .is_ok()
        })
    }
}

impl SignedApproval {
    fn statement(&self, path: &ResourcePath) -> String {
        Approval {
            resource: path.clone(),
            version: self.version,
            launch_digest: self.launch_digest,
            policy_digest: self.policy_digest,
            issued: self.issued,
            expires: self.expires,
        }
        .statement()
    }
}

/// Owners who have not said yes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing(String);

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn missing<'a>(owners: impl Iterator<Item = &'a Owner>) -> Option<Missing> {
    let names: Vec<_> = owners.map(|owner| owner.name.as_str()).collect();
    (!names.is_empty()).then(|| Missing(names.join(", ")))
}

/// Owners or an approval are not taken. The texts go to whoever sent them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnersError {
    /// Not JSON, or a member unknown, missing or of the wrong type.
    #[error("not owners or an approval: {source}")]
    Syntax {
        /// Where and why.
        source: serde_json::Error,
    },
    /// More than can be.
    #[error("a resource has at most {MAX_OWNERS} owners")]
    TooMany,
    /// A name that no statement can hold.
    #[error("the name of owner {index} is not 1 to 64 characters out of A-Z a-z 0-9 _ . -")]
    Name {
        /// Which, from 0.
        index: usize,
    },
    /// A name or a key is there already.
    #[error("owner {index} has the name or the key of another")]
    Twice {
        /// Which, from 0.
        index: usize,
    },
    /// Owners of today have not signed for those to come.
    #[error("the owners of the resource must sign for others; missing: {missing}")]
    Consent {
        /// Who.
        missing: Missing,
    },
    /// No owner of this name, or not signed with the owner's key for this resource.
    #[error("not signed by an owner of the resource")]
    Signature,
    /// Signed later than now.
    #[error("the approval is from the future: compare the clocks")]
    Future,
    /// More words of owners about one resource than are kept.
    #[error("too many approvals of this resource: store a new version of it")]
    TooManyApprovals,
    /// A later word of the same owner is there.
    #[error("a later word of the same owner is there")]
    Older,
}

#[cfg(test)]
mod tests;
