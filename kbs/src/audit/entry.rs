//! What a line of the log says.

use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Head;
use crate::facts::{Facts, Guest};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// The log was opened by a starting broker.
    Start,
    /// A guest gave evidence.
    Attest,
    /// A guest asked for a resource.
    Release,
    /// An admin stored a resource.
    StoreResource,
    /// An admin removed a resource and its rule.
    DeleteResource,
    /// An admin stored a rule.
    StoreRule,
    /// An admin removed a rule.
    DeleteRule,
    /// An admin raised a floor.
    RaiseFloor,
    /// An admin named owners, with the consent of those before.
    StoreOwners,
    /// An owner approved, or took it back.
    Approve,
    /// An admin asked for another key for tokens.
    RotateTokenKey,
    /// An admin brought reference values in.
    ImportReference,
    /// An admin took a copy of everything.
    Backup,
    /// An admin brought one back.
    Restore,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// As asked.
    Allowed,
    /// Refused.
    Denied,
    /// Allowed, recorded so, and then not carried out.
    Failed,
}

/// One line, without what the log itself adds.
#[derive(Debug)]
#[non_exhaustive]
pub struct Entry<'a> {
    /// What happened.
    pub event: Event,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it was refused: a cause class.
    pub reason: Option<String>,
    /// The request's correlation id.
    pub reference: &'a str,
    /// The session's tag.
    pub session: Option<String>,
    /// The admin's name.
    pub admin: Option<&'a str>,
    /// The resource, or what else it is about.
    pub kid: Option<String>,
    /// Its version.
    pub version: Option<u64>,
    /// The owners it is about.
    pub owners: Option<Vec<String>>,
    /// What the guest proved.
    pub facts: Option<&'a Facts>,
    /// SHA-256 of a stored rule, as canonical JSON.
    pub rule: Option<String>,
    /// SHA-256 of imported reference values, as they are kept.
    pub document: Option<String>,
}

impl<'a> Entry<'a> {
    /// An entry with nothing but what every entry has.
    pub fn new(event: Event, outcome: Outcome, reference: &'a str) -> Self {
        Self {
            event,
            outcome,
            reference,
            reason: None,
            session: None,
            admin: None,
            kid: None,
            version: None,
            owners: None,
            facts: None,
            rule: None,
            document: None,
        }
    }
}

/// A line as it is written.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    seq: u64,
    time: String,
    /// Which of several brokers wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replica: Option<&'a str>,
    event: Event,
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(rename = "ref", skip_serializing_if = "str::is_empty")]
    reference: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    admin: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owners: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tee: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    product: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    measurement: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registers: Option<Registers>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initdata: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcb: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    simulated: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<&'a str>,
    #[serde(skip_serializing_if = "is_zero")]
    suppressed: u64,
    prev: &'a str,
}

impl<'a> Line<'a> {
    /// The line that follows `head`.
    pub(super) fn new(entry: &'a Entry<'_>, head: &'a Head, suppressed: u64, now: Duration) -> Self {
        Self {
            seq: head.lines,
            time: rfc3339(now),
            replica: None,
            event: entry.event,
            outcome: entry.outcome,
            reason: entry.reason.as_deref(),
            reference: entry.reference,
            session: entry.session.as_deref(),
            admin: entry.admin,
            kid: entry.kid.as_deref(),
            version: entry.version,
            owners: entry.owners.as_deref(),
            tee: entry.facts.map(|f| f.tee().as_str()),
            product: entry.facts.map(Facts::product),
            measurement: entry.facts.map(|f| hex::encode(f.launch_digest())),
            registers: entry.facts.and_then(Registers::of),
            initdata: entry.facts.map(|f| hex::encode(f.initdata)),
            tcb: entry.facts.map(Facts::tcb),
            simulated: entry.facts.map(Facts::simulated),
            rule: entry.rule.as_deref(),
            document: entry.document.as_deref(),
            suppressed,
            prev: &head.sha256,
        }
    }
}

/// What a TDX guest's launch digest is made of, and RTMR0: to write rules by.
#[derive(Serialize)]
struct Registers {
    mrtd: String,
    rtmr: [String; 4],
}

impl Registers {
    fn of(facts: &Facts) -> Option<Self> {
        match &facts.guest {
            Guest::Snp(_) => None,
            Guest::Tdx(td) => Some(Self {
                mrtd: hex::encode(td.mrtd),
                rtmr: td.rtmr.map(hex::encode),
            }),
        }
    }
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn rfc3339(now: Duration) -> String {
    let nanos = i128::try_from(now.as_millis()).unwrap_or(0).saturating_mul(1_000_000);
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(&Rfc3339).unwrap_or_default()
}
