//! One attestation, all keys of the policy, and how long they live. The guest gives evidence once; a second time only when the broker has ended
//! the session before the last key came.
//!
//! ```text
//!  Pending ──attested, every key fetched──▶ Ready ──all pulls have ended──▶ Spent (zeroed)
//!     └──────────any failure──────────────▶ Failed
//! ```
//! Keys are held in one [`Keyring`], whose keys zero themselves. It is shared by the pulls and gone with the last of them.

use std::{
    collections::BTreeMap,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
};

use cella_attest::{GuestEvidence, Launched, Tee};
use cella_http::{Client, ClientConfig, Dates, Origin, TlsRoots, TrustedTime};
use cella_kbs_client::{
    Binding, KbsClient, KbsError, Options, Session, Step,
    token::{KeyThumbprint, Token},
};
use cella_policy::KeyId;
use cella_record::KeyRecord;
use cella_seal::Kek;

use super::error::{Cause, WorkloadError, printable};
use crate::{
    boot::BootInfo,
    evidence::EvidenceError,
    stage::{StageLog, StageName},
};

/// The keys of one pod.
pub(crate) struct Keyring(BTreeMap<KeyId, Kek>);

impl Keyring {
    /// A keyring without keys, for a policy that names none.
    pub(crate) fn empty() -> Self {
        Self(BTreeMap::new())
    }

    /// The key called `kid`, provided that it is one of `allowed`. The host part of `kid` has no meaning.
    pub(crate) fn find(&self, allowed: &[KeyId], kid: &str) -> Option<&Kek> {
        let (_host, path) = kid.strip_prefix("kbs://")?.split_once('/')?;
        let key = allowed.iter().find(|key| key.path() == path)?;
        self.0.get(key)
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyring({} keys)", self.0.len())
    }
}

#[cfg(test)]
impl FromIterator<(KeyId, Kek)> for Keyring {
    fn from_iter<I: IntoIterator<Item = (KeyId, Kek)>>(keys: I) -> Self {
        Self(keys.into_iter().collect())
    }
}

/// What the guest knows about its own attestation, for `Status`. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attested(Arc<Mutex<Option<Summary>>>);

/// What the boot record rests on: the evidence that the broker accepted, and what came of it. Nothing in it is secret.
#[derive(Clone, Debug)]
pub(crate) struct Proof {
    /// The evidence.
    pub(crate) evidence: GuestEvidence,
    /// How it vouches for the record's key.
    pub(crate) binding: Binding,
    /// What the broker's token says, if it is one that can be read.
    pub(crate) token: Option<Token>,
}

/// Public facts of the evidence that the key broker accepted.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    /// The kind of TEE.
    pub(crate) tee: Tee,
    /// The evidence is from the simulated platform.
    pub(crate) simulated: bool,
    /// The launch digest.
    pub(crate) measurement: Vec<u8>,
    /// HOST_DATA, or MRCONFIGID.
    pub(crate) host_data: Vec<u8>,
    /// Firmware versions.
    pub(crate) tcb: String,
    /// The broker's address.
    pub(crate) kbs: String,
    /// Keys released so far.
    pub(crate) keys: Vec<KeyRecord>,
    /// For the boot record.
    pub(crate) proof: Option<Proof>,
}

impl Attested {
    /// The summary, once the broker has accepted the evidence.
    pub(crate) fn summary(&self) -> Option<Summary> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keys released so far.
    fn keys(&self) -> Vec<KeyRecord> {
        self.summary().map(|summary| summary.keys).unwrap_or_default()
    }

    fn accepted(&self, summary: Summary) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(summary);
    }

    fn released(&self, key: &KeyId) {
        if let Some(summary) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            let token = summary.proof.as_ref().and_then(|proof| proof.token.as_ref());
            let session = token.map(|token| token.id.clone()).unwrap_or_default();
            let key = key.to_string();
            summary.keys.push(KeyRecord { key, session });
        }
    }
}

/// Attests once and fetches every key that the policy names, each once, in one session. A policy without keys needs no
/// attestation, and no broker: nothing is released to it, its images are plain, and `Status` has no evidence to show.
///
/// Takes at most what [`KbsClient`]'s own deadlines add up to.
pub(crate) async fn fetch(init: &BootInfo, stages: &StageLog, attested: &Attested) -> Result<Keyring, WorkloadError> {
    // The policy does not validate with a key and without a broker.
    let Some(kbs) = init.policy.kbs().filter(|_| !init.policy.key_ids().is_empty()) else {
        return Ok(Keyring::empty());
    };
    match client(&kbs.url.to_string(), kbs.ca.as_str(), &init.time) {
        Ok(http) => fetch_over(http, init, stages, attested).await,
        Err(error) => {
            let error = WorkloadError::Broker {
                cause: Cause::new(error),
            };
            stages.begin(StageName::Attest, "").failed(&error);
            Err(error)
        }
    }
}

/// An HTTPS client that trusts the policy's authority for the broker and nobody else, and no clock but the broker's.
fn client(url: &str, ca: &str, time: &TrustedTime) -> Result<Client, Box<dyn Error + Send + Sync>> {
    let origin: Origin = url.parse()?;
    let config = ClientConfig {
        dates: Dates::Trusted(time.clone()),
        ..ClientConfig::default()
    };
    Ok(Client::new(origin, Some(TlsRoots::from_pem(ca)?), config)?)
}

/// [`fetch`] over a client that is there already.
async fn fetch_over(
    http: Client,
    init: &BootInfo,
    stages: &StageLog,
    attested: &Attested,
) -> Result<Keyring, WorkloadError> {
    let exchange = Exchange {
        broker: http.origin().to_string(),
        http,
        init,
        stages,
        attested,
    };
    let mut session = exchange.attest().await?;
    let stage = stages.begin(StageName::Keys, "");
    stage.finish(exchange.keys(&mut session).await)
}

/// What the steps of one exchange share.
struct Exchange<'a> {
    http: Client,
    broker: String,
    init: &'a BootInfo,
    stages: &'a StageLog,
    attested: &'a Attested,
}

impl Exchange<'_> {
    async fn attest(&self) -> Result<Session, WorkloadError> {
        let stage = self.stages.begin(StageName::Attest, "");
        stage.finish(self.handshake().await)
    }

    async fn handshake(&self) -> Result<Session, WorkloadError> {
        // What the last quote said; the broker's yes makes it the summary.
        let last = Mutex::new(None);
        let tee = self.init.tee;
        let quote = async |report_data: [u8; 64]| -> Result<serde_json::Value, Box<dyn Error + Send + Sync>> {
            let source = Arc::clone(&self.init.evidence);
            let evidence = tokio::task::spawn_blocking(move || source.quote(&report_data)).await??;
            if evidence.tee() != tee {
                let now = evidence.tee();
                return Err(EvidenceError::OtherTee { first: tee, now }.into());
            }
            // The protocol's form, which Trustee and cella-kbs both read.
            let json = evidence.to_trustee()?;
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(evidence);
            Ok(json)
        };
        let options = Options {
            token_keys: self.token_keys(),
            commit_to: Some(self.init.record_key.public().0),
            ..Options::default()
        };
        let mut client = KbsClient::with_options(self.http.clone(), tee.as_str(), options);
        let session = client.attest(&self.init.initdata_text, quote).await;
        let session = session.map_err(|error| refused(&self.broker, None, error))?;
        self.learn_time(&session)?;
        if let Some(evidence) = last.into_inner().unwrap_or_else(PoisonError::into_inner) {
            self.attested.accepted(self.summarise(evidence, &session));
        }
        Ok(session)
    }

    /// Takes the time from the broker's token, and judges the broker's own certificate by it.
    fn learn_time(&self, session: &Session) -> Result<(), WorkloadError> {
        if let Some(token) = session.token() {
            self.init.time.learn(token.issued);
        }
        self.http.check_dates().map_err(|error| WorkloadError::Broker {
            cause: Cause::new(error),
        })
    }

    /// The keys that the policy pins for the broker's tokens.
    fn token_keys(&self) -> Vec<KeyThumbprint> {
        let keys = self.init.policy.kbs().map(|kbs| &kbs.token_keys);
        let keys = keys.into_iter().flatten();
        keys.map(|key| KeyThumbprint::from(*key.as_bytes())).collect()
    }

    /// All keys in one session. One that ends before the last key came, as at a broker that was restarted, is replaced by a second, with evidence
    /// of its own; a third is not asked for.
    async fn keys(&self, session: &mut Session) -> Result<Keyring, WorkloadError> {
        let mut keys = BTreeMap::new();
        let mut renewed = false;
        for kid in self.init.policy.key_ids() {
            let mut answer = session.resource(kid.path()).await;
            if answer.as_ref().is_err_and(|error| !renewed && error.is_session_over()) {
                renewed = true;
                *session = self.attest().await?;
                answer = session.resource(kid.path()).await;
            }
            let bytes = answer.map_err(|error| refused(&self.broker, Some(kid), error))?;
            let key = Kek::from_slice(&bytes).map_err(|_| WorkloadError::KeyLength {
                broker: self.broker.clone(),
                key: kid.clone(),
                found: bytes.len(),
            })?;
            keys.insert(kid.clone(), key);
            self.attested.released(kid);
        }
        Ok(Keyring(keys))
    }

    fn summarise(&self, evidence: GuestEvidence, session: &Session) -> Summary {
        // The broker has just verified this evidence; what cannot be read here only leaves the figures empty.
        let launched = Launched::of_evidence(&evidence).ok();
        let launched = launched.as_ref();
        Summary {
            tee: evidence.tee(),
            simulated: self.init.evidence.is_simulated(),
            measurement: launched
                .map(|launched| launched.measurement.to_vec())
                .unwrap_or_default(),
            host_data: launched
                .map(|launched| launched.bound.as_bytes().to_vec())
                .unwrap_or_default(),
            tcb: launched.map(|launched| launched.tcb.clone()).unwrap_or_default(),
            kbs: self.broker.clone(),
            keys: self.attested.keys(),
            proof: session.binding().map(|binding| Proof {
                evidence,
                binding: binding.clone(),
                token: session.token().cloned(),
            }),
        }
    }
}

/// Sorts what the key broker's client says by blame.
fn refused(broker: &str, kid: Option<&KeyId>, error: KbsError) -> WorkloadError {
    let broker = broker.to_owned();
    match (error, kid) {
        (
            KbsError::Refused {
                step: Step::Resource(_),
                detail,
                ..
            },
            Some(key),
        ) => WorkloadError::KeyRefused {
            broker,
            key: key.clone(),
            reason: printable(&detail, MAX_REASON),
        },
        (KbsError::Refused { detail, .. }, _) => WorkloadError::EvidenceRefused {
            broker,
            reason: printable(&detail, MAX_REASON),
        },
        (KbsError::NotFound { .. }, Some(key)) => WorkloadError::KeyMissing {
            broker,
            key: key.clone(),
        },
        (KbsError::Evidence(error), _) => WorkloadError::Evidence {
            cause: Cause::new(error),
        },
        (error, _) => WorkloadError::Broker {
            cause: Cause::new(error),
        },
    }
}

/// Longest reason of a broker that is passed on, in characters.
const MAX_REASON: usize = 300;

#[cfg(test)]
mod tests;
