//! What admins do: each change is a line in the audit log before it is made.

use cella_attest::reference::Document;
use cella_kbs_client::wire::ResourcePath;
use ring::digest;
use serde_json::Value;

use super::{Broker, Credentials};
use crate::admin::{Admin, AdminError};
use crate::audit::{Entry, Event, Outcome};
use crate::references::{Imported, Kept};
use crate::refusal::Refusal;
use crate::rule::Rule;
use crate::storage::{FloorName, Listed};

impl Broker {
    /// Whether a request is an admin's.
    pub fn authenticate(&self, credentials: &Credentials) -> Result<Admin, Refusal> {
        let token = credentials.bearer.as_deref().ok_or(AdminError::Missing)?;
        Ok(self.admins.authenticate(token, self.clock.unix().as_secs())?)
    }

    /// `POST /resource/…`: creates or replaces a resource, under a version that only grows. Gives it.
    pub fn store_resource(
        &self,
        admin: &Admin,
        path: &ResourcePath,
        offered: Option<u64>,
        bytes: &[u8],
        reference: &str,
    ) -> Result<u64, Refusal> {
        if bytes.is_empty() {
            return Err(Refusal::EmptyResource);
        }
        let version = match offered {
            Some(version) => version,
            None => self.storage.next_resource_version(path)?,
        };
        let mut entry = change(Event::StoreResource, admin, &path.to_string(), reference);
        entry.version = Some(version);
        self.record_then(entry, || Ok(self.storage.put_resource(path, Some(version), bytes)?))
    }

    /// `DELETE /resource/…`: removes a resource and its rule. Their versions stay known.
    pub fn delete_resource(&self, admin: &Admin, path: &ResourcePath, reference: &str) -> Result<(), Refusal> {
        if !self.storage.contains(path)? {
            return Err(Refusal::NoResource);
        }
        let entry = change(Event::DeleteResource, admin, &path.to_string(), reference);
        self.record_then(entry, || Ok(self.storage.delete_resource(path).map(drop)?))
    }

    /// `POST /cella-rule/…`: creates or replaces a rule, under a version that only grows. Gives it.
    pub fn store_rule(
        &self,
        admin: &Admin,
        path: &ResourcePath,
        offered: Option<u64>,
        json: &[u8],
        reference: &str,
    ) -> Result<u64, Refusal> {
        let rule = Rule::from_json(json)?;
        let version = match offered {
            Some(version) => version,
            None => self.storage.next_rule_version(path)?,
        };
        let mut entry = change(Event::StoreRule, admin, &path.to_string(), reference);
        entry.version = Some(version);
        entry.rule = serde_json::to_vec(&rule)
            .ok()
            .map(|json| hex::encode(digest::digest(&digest::SHA256, &json)));
        self.record_then(entry, || Ok(self.storage.put_rule(path, Some(version), &rule)?))
    }

    /// `DELETE /cella-rule/…`: removes a rule.
    pub fn delete_rule(&self, admin: &Admin, path: &ResourcePath, reference: &str) -> Result<(), Refusal> {
        self.rule(path)?;
        let entry = change(Event::DeleteRule, admin, &path.to_string(), reference);
        self.record_then(entry, || Ok(self.storage.delete_rule(path).map(drop)?))
    }

    /// `GET /cella-rule/…`: a rule.
    pub fn rule(&self, path: &ResourcePath) -> Result<Rule, Refusal> {
        self.storage.rule(path)?.ok_or(Refusal::NoResource)
    }

    /// `GET /cella-resources`: names, lengths and rules, no contents.
    pub fn list(&self) -> Result<Vec<Listed>, Refusal> {
        Ok(self.storage.list()?)
    }

    /// `POST /cella-floor/…`: raises a floor.
    pub fn raise_floor(&self, admin: &Admin, name: &FloorName, to: u64, reference: &str) -> Result<(), Refusal> {
        let mut entry = change(Event::RaiseFloor, admin, &name.to_string(), reference);
        entry.version = Some(to);
        self.record_then(entry, || Ok(self.storage.raise_floor(name, to)?))
    }

    /// `GET /cella-floors`: every floor.
    pub fn floors(&self) -> Result<Vec<(FloorName, u64)>, Refusal> {
        Ok(self.storage.floors()?)
    }

    /// `POST /cella-reference`: keeps reference values that a trusted signer signed. Says what they change.
    pub fn import_reference(&self, admin: &Admin, json: &[u8], reference: &str) -> Result<Imported, Refusal> {
        let document = Document::parse(json)?;
        let trust = self.trust();
        let references = document.verify(&trust.signers, self.clock.unix().as_secs())?;
        let imported = Imported::new(&references, self.storage.now()?.reference(&references.name)?.as_ref());
        let mut entry = change(Event::ImportReference, admin, references.name.as_str(), reference);
        entry.version = Some(references.issued);
        entry.document = Some(hex::encode(digest::digest(&digest::SHA256, &document.to_json())));
        self.record_then(entry, || {
            Ok(self.storage.put_reference(&references, &document, &trust.signers)?)
        })?;
        Ok(imported)
    }

    /// `GET /cella-references`: every document, and whether it counts.
    pub fn references(&self) -> Result<Vec<Kept>, Refusal> {
        let (trust, now) = (self.trust(), self.clock.unix().as_secs());
        let kept = |(name, document)| Kept::new(name, &document, &trust.signers, now);
        Ok(self.storage.references()?.into_iter().map(kept).collect())
    }

    /// `GET /cella-backup`: everything that is stored, encrypted under the storage key.
    pub fn backup(&self, admin: &Admin, reference: &str) -> Result<Vec<u8>, Refusal> {
        let entry = change(Event::Backup, admin, "backup", reference);
        let now = self.clock.unix().as_secs();
        self.record_then(entry, || Ok(self.storage.backup(now)?))
    }

    /// `POST /cella-restore`: a backup, into a broker that holds nothing yet. Gives when it was made and how many values it has.
    pub fn restore(&self, admin: &Admin, backup: &[u8], reference: &str) -> Result<(u64, usize), Refusal> {
        let entry = change(Event::Restore, admin, "backup", reference);
        let restored = self.record_then(entry, || Ok(self.storage.restore(backup)?))?;
        self.tokens.forget();
        Ok(restored)
    }

    /// `GET /cella-audit?from=N`: lines of the audit log, as they stand in it.
    pub fn audit_page(&self, from: u64) -> Result<Vec<u8>, Refusal> {
        Ok(self.audit.page(from)?)
    }

    /// `POST /cella-token-key`: a new key for tokens, which signs after an overlap. Gives its id and when that is.
    pub fn rotate_token_key(&self, admin: &Admin, reference: &str) -> Result<(String, u64), Refusal> {
        let entry = change(Event::RotateTokenKey, admin, "token-key", reference);
        self.record_then(entry, || Ok(self.tokens.rotate()?))
    }

    /// `GET /cella-jwks`: the keys of tokens, for whoever verifies them.
    pub fn jwks(&self) -> Result<Value, Refusal> {
        Ok(self.tokens.jwks()?)
    }

    /// The line is on the disk before the change is made; a change that then fails gets a second line.
    pub(super) fn record_then<T>(
        &self,
        mut entry: Entry<'_>,
        change: impl FnOnce() -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        self.audit.append(&entry, self.clock.unix())?;
        let done = change();
        if let Err(refusal) = &done {
            entry.outcome = match refusal {
                Refusal::Rollback(_) | Refusal::Owners(_) => Outcome::Denied,
                _ => Outcome::Failed,
            };
            entry.reason = Some(refusal.to_string());
            self.audit.append(&entry, self.clock.unix())?;
        }
        done
    }
}

pub(super) fn change<'a>(event: Event, admin: &'a Admin, about: &str, reference: &'a str) -> Entry<'a> {
    let mut entry = Entry::new(event, Outcome::Allowed, reference);
    entry.admin = Some(admin.name());
    entry.kid = Some(about.to_owned());
    entry
}
