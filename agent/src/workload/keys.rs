//! One attestation, all keys of the policy, and how long they live.
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

use cella_attest::{
    Evidence,
    snp::{Product, Report, TcbVersion},
    trustee,
};
use cella_http::{Client, ClientConfig, Origin, TlsRoots};
use cella_kbs_client::{KbsClient, KbsError, Session, Step};
use cella_policy::KeyId;
use cella_seal::Kek;

use super::error::{Cause, WorkloadError, printable};
use crate::{
    boot::BootInfo,
    evidence::EvidenceSource,
    stage::{StageLog, StageName},
};

/// The TEE that evidence is of, in the key broker's protocol.
const TEE: &str = "snp";

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

/// Public facts of the evidence that the key broker accepted.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    /// The kind of TEE.
    pub(crate) tee: &'static str,
    /// The evidence is from the simulated platform.
    pub(crate) simulated: bool,
    /// The launch digest.
    pub(crate) measurement: Vec<u8>,
    /// HOST_DATA.
    pub(crate) host_data: Vec<u8>,
    /// Firmware versions.
    pub(crate) tcb: String,
    /// The broker's address.
    pub(crate) kbs: String,
    /// Keys released so far.
    pub(crate) keys: Vec<String>,
}

impl Attested {
    /// The summary, once the broker has accepted the evidence.
    pub(crate) fn summary(&self) -> Option<Summary> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn accepted(&self, summary: Summary) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(summary);
    }

    fn released(&self, key: &KeyId) {
        if let Some(summary) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            summary.keys.push(key.to_string());
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
    match client(&kbs.url.to_string(), kbs.ca.as_str()) {
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

/// An HTTPS client that trusts the policy's authority for the broker and nobody else.
fn client(url: &str, ca: &str) -> Result<Client, Box<dyn Error + Send + Sync>> {
    let origin: Origin = url.parse()?;
    Ok(Client::new(
        origin,
        Some(TlsRoots::from_pem(ca)?),
        ClientConfig::default(),
    )?)
}

/// [`fetch`] over a client that is there already.
async fn fetch_over(
    http: Client,
    init: &BootInfo,
    stages: &StageLog,
    attested: &Attested,
) -> Result<Keyring, WorkloadError> {
    let broker = http.origin().to_string();
    let stage = stages.begin(StageName::Attest, "");
    let mut session = stage.finish(attest(http, init, &broker, attested).await)?;
    let stage = stages.begin(StageName::Keys, "");
    stage.finish(keys(&mut session, init, &broker, attested).await)
}

async fn attest(http: Client, init: &BootInfo, broker: &str, attested: &Attested) -> Result<Session, WorkloadError> {
    // What the last quote said; the broker's yes makes it the summary.
    let last = Mutex::new(None);
    let quote = async |report_data: [u8; 64]| -> Result<serde_json::Value, Box<dyn Error + Send + Sync>> {
        let source = Arc::clone(&init.evidence);
        let evidence = tokio::task::spawn_blocking(move || source.quote(&report_data)).await??;
        // The protocol's form, which Trustee and cella-kbs both read.
        let json = trustee::to_json(&evidence)?;
        *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(evidence);
        Ok(json)
    };
    let session = KbsClient::new(http, TEE).attest(&init.initdata_text, quote).await;
    let session = session.map_err(|error| refused(broker, None, error))?;
    if let Some(evidence) = last.into_inner().unwrap_or_else(PoisonError::into_inner) {
        attested.accepted(summarise(&evidence, init.evidence.as_ref(), broker));
    }
    Ok(session)
}

async fn keys(
    session: &mut Session,
    init: &BootInfo,
    broker: &str,
    attested: &Attested,
) -> Result<Keyring, WorkloadError> {
    let mut keys = BTreeMap::new();
    for kid in init.policy.key_ids() {
        keys.insert(kid.clone(), key(session, broker, kid).await?);
        attested.released(kid);
    }
    Ok(Keyring(keys))
}

async fn key(session: &mut Session, broker: &str, kid: &KeyId) -> Result<Kek, WorkloadError> {
    let bytes = session
        .resource(kid.path())
        .await
        .map_err(|error| refused(broker, Some(kid), error))?;
    Kek::from_slice(&bytes).map_err(|_| WorkloadError::KeyLength {
        broker: broker.to_owned(),
        key: kid.clone(),
        found: bytes.len(),
    })
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

fn summarise(evidence: &Evidence, source: &dyn EvidenceSource, broker: &str) -> Summary {
    // The broker has just verified this report; one that cannot be read here only leaves the figures empty.
    let report = Report::parse(&evidence.report).ok();
    let product = report
        .as_ref()
        .and_then(|report| report.cpuid)
        .and_then(|id| Product::from_cpuid(id.family, id.model));
    let tcb = report
        .as_ref()
        .zip(product)
        .map(|(report, product)| shown(report.reported_tcb(product)));
    Summary {
        tee: TEE,
        simulated: source.name() == "simulated",
        measurement: report
            .as_ref()
            .map(|report| report.measurement.to_vec())
            .unwrap_or_default(),
        host_data: report
            .as_ref()
            .map(|report| report.host_data.to_vec())
            .unwrap_or_default(),
        tcb: tcb.unwrap_or_default(),
        kbs: broker.to_owned(),
        keys: Vec::new(),
    }
}

/// `bootloader=3 tee=0 snp=20 microcode=209`, and before it `fmc=` where the processor has one.
fn shown(tcb: TcbVersion) -> String {
    let TcbVersion {
        fmc,
        bootloader,
        tee,
        snp,
        microcode,
    } = tcb;
    let fmc = fmc.map(|fmc| format!("fmc={fmc} ")).unwrap_or_default();
    format!("{fmc}bootloader={bootloader} tee={tee} snp={snp} microcode={microcode}")
}

/// Longest reason of a broker that is passed on, in characters.
const MAX_REASON: usize = 300;

#[cfg(test)]
mod tests;
