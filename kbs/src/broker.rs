//! The broker itself: what each endpoint does, without HTTP.
//!
//! Bytes and a correlation id go in, an answer or a [`Refusal`] comes out. Everything here may block on the disk and on
//! RSA, so the server calls it on a blocking thread. State is in [`SessionStore`], [`Storage`] and [`AuditLog`] (disk). Sessions in
//! memory are lost with a restart, and guests attest again; those in a database that brokers share are not.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use cella_attest::Tee;
use cella_kbs_client::jwe::{self, Jwe};
use cella_kbs_client::wire::{self, Challenge, ResourcePath, TokenAnswer};
use serde_json::Value;

use crate::admin::Admins;
use crate::appraisal::{appraise, parse_attestation};
use crate::audit::{AuditLog, Entry, Event, Outcome};
use crate::clock::Clock;
use crate::facts::Facts;
use crate::references::Known;
use crate::refusal::{Refusal, RequestError};
use crate::session::{Proof, SessionError, SessionFailure, SessionId, SessionStore};
use crate::storage::{Resource, Storage, StoreError};
use crate::token::TokenKeys;
use crate::trust::Trust;
use crate::workload::Workload;

mod administer;
mod approve;
mod open;

pub use open::OpenError;

/// A key broker.
pub struct Broker {
    clock: Arc<dyn Clock>,
    trust: RwLock<Arc<Trust>>,
    sessions: SessionStore,
    tokens: TokenKeys,
    storage: Arc<Storage>,
    audit: AuditLog,
    admins: Admins,
}

/// What a request shows to be let in, as it stands in its headers.
#[derive(Clone, Default)]
pub struct Credentials {
    /// Value of the session cookie.
    pub cookie: Option<String>,
    /// What follows `Bearer` in `Authorization`.
    pub bearer: Option<String>,
}

/// An answer that sets the session cookie.
#[derive(Debug)]
#[non_exhaustive]
pub struct InSession<T> {
    /// The answer.
    pub answer: T,
    /// Its session.
    pub session: SessionId,
    /// When the session ends, since the Unix epoch.
    pub expires: Duration,
}

impl Broker {
    /// `POST /auth`: a challenge, in a new session.
    pub fn challenge(&self, body: &[u8]) -> Result<InSession<Challenge>, Refusal> {
        let request: wire::Request = serde_json::from_slice(body).map_err(|e| RequestError::Json {
            line: e.line(),
            column: e.column(),
        })?;
        if request.version != wire::VERSION {
            return Err(RequestError::Version.into());
        }
        let tee = Tee::named(&request.tee).ok_or(RequestError::Tee)?;
        if tee == Tee::Tdx && self.trust().collateral.is_empty() {
            return Err(RequestError::NoCollateral.into());
        }
        let (session, nonce) = self.sessions.open(tee, self.clock.as_ref()).map_err(handshake)?;
        let answer = Challenge {
            nonce: nonce.as_str().to_owned(),
            extra_params: Value::String(String::new()),
        };
        Ok(InSession {
            answer,
            session,
            expires: self.clock.unix() + self.sessions.timeout(),
        })
    }

    /// `POST /attest`: evidence for the session's nonce, which is spent by it.
    pub fn attest(
        &self,
        credentials: &Credentials,
        body: &[u8],
        reference: &str,
    ) -> Result<InSession<TokenAnswer>, Refusal> {
        let cookie = credentials
            .cookie
            .as_deref()
            .ok_or(Refusal::Handshake(SessionError::Unknown))?;
        let session: SessionId = cookie.parse().map_err(Refusal::Handshake)?;
        let result = self.attest_in(session, body, reference);
        if let Err(refusal) = &result {
            let mut entry = Entry::new(Event::Attest, Outcome::Denied, reference);
            entry.session = Some(session.tag());
            entry.reason = Some(refusal.to_string());
            self.audit.append_rationed(&entry, self.clock.unix())?;
        }
        result
    }

    fn attest_in(&self, session: SessionId, body: &[u8], reference: &str) -> Result<InSession<TokenAnswer>, Refusal> {
        // Before anything else: where sessions are in memory there is no second try, whatever the body is.
        let (nonce, tee, left) = self.sessions.spend(&session, self.clock.as_ref()).map_err(handshake)?;
        let submission = parse_attestation(body, tee)?;
        let now = self.clock.unix();
        let mut facts = appraise(&submission, nonce.as_str(), &self.trust(), now)?;
        // Only now: the evidence vouches for the document.
        facts.workload = Workload::read(&submission.initdata)?;
        let token = self
            .tokens
            .issue(&facts, nonce.as_str(), &session.tag(), left.as_secs())?;
        let mut entry = Entry::new(Event::Attest, Outcome::Allowed, reference);
        entry.session = Some(session.tag());
        entry.facts = Some(&facts);
        self.audit.append(&entry, now)?;
        self.sessions
            .prove(&session, Arc::new(facts), &token, self.clock.as_ref())
            .map_err(handshake)?;
        Ok(InSession {
            answer: TokenAnswer { token },
            session,
            expires: now + left,
        })
    }

    /// `GET /resource/…`: a resource, encrypted to the guest's key, if its rule says so.
    pub fn release(&self, credentials: &Credentials, path: &ResourcePath, reference: &str) -> Result<Jwe, Refusal> {
        let (facts, session) = self.proof(credentials)?;
        let decided = self.decide(&facts, path);
        let version = decided.as_ref().ok().map(|(version, _)| *version);
        let outcome = if decided.is_ok() {
            Outcome::Allowed
        } else {
            Outcome::Denied
        };
        let mut entry = Entry::new(Event::Release, outcome, reference);
        entry.session = Some(session);
        entry.kid = Some(path.to_string());
        entry.version = version;
        entry.facts = Some(&facts);
        match decided {
            Ok((_, answer)) => {
                // Synced before the answer exists for anybody else: no key leaves without its line.
                self.audit.append(&entry, self.clock.unix())?;
                Ok(answer)
            }
            Err(refusal) => {
                entry.reason = Some(refusal.to_string());
                self.audit.append_rationed(&entry, self.clock.unix())?;
                Err(refusal)
            }
        }
    }

    /// Sessions that wait for evidence, and those that gave it.
    pub fn sessions(&self) -> (usize, usize) {
        self.sessions.counts(self.clock.as_ref())
    }

    /// How many lines the audit log has.
    pub fn audit_lines(&self) -> u64 {
        self.audit.head().lines
    }

    /// Who asks: the session's proof first, then the token's, as in the protocol.
    fn proof(&self, credentials: &Credentials) -> Result<(Arc<Facts>, String), Refusal> {
        let mut refusal = Refusal::NoCredentials;
        if let Some(cookie) = &credentials.cookie {
            match self.session_proof(cookie) {
                Ok(proof) => return Ok(proof),
                Err(Refusal::Unattested(error)) => refusal = Refusal::Unattested(error),
                Err(failed) => return Err(failed),
            }
        }
        let Some(token) = &credentials.bearer else {
            return Err(refusal);
        };
        let proven = self.tokens.verify(token)?;
        Ok((Arc::new(proven.facts), proven.session))
    }

    fn session_proof(&self, cookie: &str) -> Result<(Arc<Facts>, String), Refusal> {
        let id: SessionId = cookie.parse().map_err(Refusal::Unattested)?;
        let proof = self.sessions.proof(&id, self.clock.as_ref());
        let facts = match proof.map_err(|error| Refusal::of_session(error, Refusal::Unattested))? {
            Proof::Facts(facts) => facts,
            Proof::Token(token) => Arc::new(self.tokens.verify(&token)?.facts),
        };
        Ok((facts, id.tag()))
    }

    /// The resource for a guest, encrypted, and its version. All that is read is as of one moment.
    fn decide(&self, facts: &Facts, path: &ResourcePath) -> Result<(u64, Jwe), Refusal> {
        let moment = self.storage.now()?;
        let Some(rule) = moment.rule(path)? else {
            return Err(if moment.contains(path)? {
                Refusal::NoRule
            } else {
                Refusal::NoResource
            });
        };
        let (trust, now) = (self.trust(), self.clock.unix());
        let references = Known::new(&moment, &trust.signers, now.as_secs());
        let checked = rule.check(facts, now, &references);
        references.failed()?;
        checked?;
        // After the rule: whoever it does not name learns no version.
        moment
            .check_floors(path, &facts.workload)
            .map_err(|error| match error {
                StoreError::Rollback(rollback) => Refusal::TooOld(rollback),
                StoreError::Storage(error) => Refusal::Storage(error),
            })?;
        let Resource { version, bytes } = moment.resource(path)?.ok_or(Refusal::NoResource)?;
        if let Some(missing) = moment.missing_owners(path, version, facts, now.as_secs())? {
            return Err(Refusal::NotApproved { missing });
        }
        Ok((version, jwe::encrypt(&facts.tee_key, &bytes)?))
    }
}

fn handshake(error: SessionFailure) -> Refusal {
    Refusal::of_session(error, Refusal::Handshake)
}

#[cfg(test)]
mod tests;
