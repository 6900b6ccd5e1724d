//! Owners: who they are, and what they approve.

use cella_kbs_client::wire::ResourcePath;
use serde::Serialize;

use super::Broker;
use super::administer::change;
use crate::admin::Admin;
use crate::audit::{Entry, Event, Outcome};
use crate::owners::{Owners, SignedApproval};
use crate::refusal::Refusal;

/// Owners of a resource and every word of theirs that is kept.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Ownership {
    /// They.
    #[serde(flatten)]
    pub owners: Owners,
    /// Their words, valid or not any more.
    pub approvals: Vec<SignedApproval>,
}

impl Broker {
    /// `GET /cella-owners/…`: owners and approvals.
    pub fn ownership(&self, path: &ResourcePath) -> Result<Ownership, Refusal> {
        Ok(Ownership {
            owners: self.storage.owners(path)?,
            approvals: self.storage.approvals(path)?,
        })
    }

    /// `POST /cella-owners/…`: names owners. Where there are some, all of them must have signed. Gives the generation.
    pub fn store_owners(
        &self,
        admin: &Admin,
        path: &ResourcePath,
        json: &[u8],
        reference: &str,
    ) -> Result<u64, Refusal> {
        // First without changing anything: a request that is refused is no change.
        let next = self.storage.owners(path)?.replaced(path, json)?;
        let mut entry = change(Event::StoreOwners, admin, path.as_str(), reference);
        entry.version = Some(next.generation);
        entry.owners = Some(next.owners.iter().map(|owner| owner.name.clone()).collect());
        self.record_then(entry, || Ok(self.storage.replace_owners(path, json)?.generation))
    }

    /// `POST /cella-approval/…`: keeps an owner's word. The signature is all that the request needs.
    pub fn approve(&self, path: &ResourcePath, json: &[u8], reference: &str) -> Result<(), Refusal> {
        let now = self.clock.unix().as_secs();
        let approval = self.storage.owners(path)?.approval(path, json, now)?;
        let mut entry = Entry::new(Event::Approve, Outcome::Allowed, reference);
        entry.kid = Some(path.to_string());
        entry.version = Some(approval.version);
        entry.owners = Some(vec![approval.owner.clone()]);
        if approval.expires <= approval.issued {
            entry.reason = Some("withdrawn".to_owned());
        }
        self.record_then(entry, || Ok(self.storage.put_approval(path, &approval)?))
    }
}
