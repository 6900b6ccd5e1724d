//! From a quote that somebody sent to facts about a guest.
//!
//! Order: lengths and form; the platform's chain up to a root, its dates, revocation; the quoting enclave's report, its key, the quote; Intel's
//! documents; only then is anything that the quote says compared with what is wanted.

use std::time::Duration;

use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

use super::{
    collateral::Collateral,
    enclave::EnclaveReport,
    error::TdxError,
    event_log::EventLog,
    head::QuoteError,
    options::TdxOptions,
    pck::Platform,
    qe_identity::QeIdentity,
    quote::{PCK_CHAIN, Quote},
    report::TdReport,
    roots::Roots,
    signed::{Document, open},
    status::TcbStatus,
    tcb_info::{Judgement, TcbInfo},
};
use crate::{
    digest::sha256,
    evidence::TdEvidence,
    hex_bytes::Hex,
    x509::{Cert, CertRole, ChainError, Crl, CrlRole, Scheme, pem_chain},
};

const SCHEME: Scheme = Scheme::EcdsaP256Sha256;

/// Evidence of a TDX guest. Nothing in it is believed until [`verify`] has been through.
#[derive(Debug, Clone, Copy)]
pub struct TdxEvidence<'a> {
    /// The quote.
    pub quote: &'a [u8],
    /// The event log that leads to its RTMRs, where it came along.
    pub event_log: Option<&'a [u8]>,
}

impl<'a> From<&'a TdEvidence> for TdxEvidence<'a> {
    fn from(evidence: &'a TdEvidence) -> Self {
        Self {
            quote: &evidence.quote,
            event_log: evidence.event_log.as_deref(),
        }
    }
}

/// What a quote must say.
#[derive(Debug, Clone, Copy)]
pub struct TdxExpected<'a> {
    /// The challenge, all 64 bytes: it makes the evidence fresh and binds keys to it.
    pub report_data: &'a [u8; 64],
    /// Digest of initdata, where it is known beforehand. With `None` the caller compares [`VerifiedTd::mr_config_id`].
    pub mr_config_id: Option<&'a [u8; 48]>,
}

/// What is known about a guest whose evidence was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedTd {
    /// True under the root of a simulated platform: then the rest is what that platform's host says.
    pub simulated: bool,
    /// Version of the quote.
    pub version: u16,
    /// Measurement of the firmware.
    pub mrtd: [u8; 48],
    /// Registers: 0 has what the firmware was configured with, 1 the kernel, 2 command line and initrd, 3 what the guest itself extended.
    pub rtmr: [[u8; 48]; 4],
    /// What the host bound to the guest at launch: the digest of initdata.
    pub mr_config_id: [u8; 48],
    /// The challenge.
    pub report_data: [u8; 64],
    /// The guest's attributes, the bits `ATTRIBUTE_*` of [`super`].
    pub attributes: u64,
    /// Extended features that the guest may use.
    pub xfam: u64,
    /// Measurement of the TDX module.
    pub mr_seam: [u8; 48],
    /// Security versions of the TDX module at launch.
    pub tee_tcb_svn: [u8; 16],
    /// The same now: TDX 1.5.
    pub tee_tcb_svn2: Option<[u8; 16]>,
    /// The platform, certified by Intel.
    pub platform: Platform,
    /// Intel's judgement of platform, TDX module and quoting enclave together.
    pub status: TcbStatus,
    /// The advisories that any of them is subject to.
    pub advisories: Vec<String>,
    /// Date of the oldest of their levels, since the Unix epoch.
    pub tcb_date: Duration,
    /// Number of Intel's evaluation that the collateral is of, the lower of its two documents.
    pub evaluation: u32,
    /// When the older of the two documents was issued, since the Unix epoch.
    pub collateral_issued: Duration,
    /// Whether an event log came and replays to the registers.
    pub replayed: bool,
}

impl VerifiedTd {
    /// One value for what was launched, where one is asked for: see [`crate::td_launch_digest`].
    pub fn launch_digest(&self) -> [u8; 48] {
        let [_, rtmr1, rtmr2, rtmr3] = &self.rtmr;
        crate::td_launch_digest(&self.mrtd, [rtmr1, rtmr2, rtmr3])
    }
}

/// Verifies evidence at a time since the Unix epoch. Cost: about ten ECDSA verifications, below two milliseconds.
///
/// # Errors
/// [`TdxError`]; never a panic.
pub fn verify(
    evidence: &TdxEvidence<'_>,
    collateral: &Collateral,
    roots: &Roots,
    expected: &TdxExpected<'_>,
    options: &TdxOptions,
    now: Duration,
) -> Result<VerifiedTd, TdxError> {
    let quote = Quote::parse(evidence.quote)?;
    let mut verified = authenticate(&quote, collateral, roots, now)?;
    if let Some(log) = evidence.event_log {
        replay(log, &quote.report)?;
        verified.replayed = true;
    }
    compare(&quote.report, expected)?;
    options.judge(&quote.report, &verified, now)?;
    Ok(verified)
}

/// Everything that makes the quote Intel's, or the simulated platform's, word; and Intel's judgement of the platform.
fn authenticate(
    quote: &Quote<'_>,
    collateral: &Collateral,
    roots: &Roots,
    now: Duration,
) -> Result<VerifiedTd, TdxError> {
    let chain = quote
        .pck_chain
        .or(collateral.pck_chain.as_deref())
        .ok_or(TdxError::NoPckChain)?;
    let needed = "PCK, PCK CA and SGX root";
    let ders = ders(CertRole::Pck, chain, PCK_CHAIN)?;
    let [pck, ca, root_der] = ders.as_slice() else {
        let found = ders.len();
        return Err(ChainError::Length { found, needed }.into());
    };
    let root = Cert::parse(CertRole::SgxRoot, root_der)?;
    let spki_sha256 = root.spki_sha256()?;
    let simulated = roots.find(&spki_sha256).ok_or(ChainError::NotAnAnchor {
        role: CertRole::SgxRoot,
        spki_sha256: Hex(spki_sha256),
    })?;
    root.issued_by(&root, SCHEME)?;
    root.valid_at(now)?;
    let ca = Cert::parse(CertRole::PckCa, ca)?;
    ca.issued_by(&root, SCHEME)?;
    ca.valid_at(now)?;
    let pck = Cert::parse(CertRole::Pck, pck)?;
    pck.issued_by(&ca, SCHEME)?;
    pck.leaf()?;
    pck.valid_at(now)?;

    let root_crl = Crl::parse(CrlRole::SgxRoot, &collateral.root_crl)?;
    root_crl.verify(&root, SCHEME, Some(now))?;
    root_crl.check(&ca)?;
    let pck_crl = Crl::parse(CrlRole::Pck, &collateral.pck_crl)?;
    pck_crl.verify(&ca, SCHEME, Some(now))?;
    pck_crl.check(&pck)?;

    let enclave = verify_quote(quote, &pck)?;
    let platform = Platform::of(&pck.certificate)?;
    let signer = |chain: &str| Signer::parse(chain, root_der, spki_sha256);
    let tcb_signer = signer(&collateral.tcb_info_chain)?;
    let tcb_signer = tcb_signer.verify(&root, &root_crl, now)?;
    let qe_signer = signer(&collateral.qe_identity_chain)?;
    let qe_signer = qe_signer.verify(&root, &root_crl, now)?;
    let tcb_info: TcbInfo = open(&collateral.tcb_info, &collateral.tcb_info_signature, &tcb_signer, now)?;
    let identity: QeIdentity = open(
        &collateral.qe_identity,
        &collateral.qe_identity_signature,
        &qe_signer,
        now,
    )?;
    let by_platform = tcb_info.judge(&platform, &quote.report)?;
    let by_enclave = identity.judge(&enclave)?;
    let status = by_platform.status.and(by_enclave.status);
    let Judgement {
        status,
        date,
        advisories,
    } = by_platform.and(by_enclave, status);
    let report = &quote.report;
    Ok(VerifiedTd {
        simulated,
        version: quote.version,
        mrtd: report.mrtd,
        rtmr: report.rtmr,
        mr_config_id: report.mr_config_id,
        report_data: report.report_data,
        attributes: report.attributes,
        xfam: report.xfam,
        mr_seam: report.mr_seam,
        tee_tcb_svn: report.tee_tcb_svn,
        tee_tcb_svn2: report.tee_tcb_svn2,
        platform,
        status,
        advisories,
        tcb_date: date.0,
        evaluation: tcb_info
            .tcb_evaluation_data_number
            .min(identity.tcb_evaluation_data_number),
        collateral_issued: tcb_info.dates().0.min(identity.dates().0).0,
        replayed: false,
    })
}

/// PCK → report of the quoting enclave → attestation key → quote.
fn verify_quote(quote: &Quote<'_>, pck: &Cert<'_>) -> Result<EnclaveReport, TdxError> {
    let key = pck.public_key().ok_or(TdxError::EnclaveSignature)?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key)
        .verify(quote.qe_report, &quote.qe_signature)
        .map_err(|_| TdxError::EnclaveSignature)?;
    let enclave = EnclaveReport::parse(quote.qe_report).ok_or(QuoteError::Truncated)?;
    let digest = sha256(&[&quote.attestation_key, quote.qe_authentication].concat());
    let (bound, rest) = enclave.report_data.split_at(digest.len());
    if bound != digest || rest.iter().any(|byte| *byte != 0) {
        return Err(TdxError::AttestationKey);
    }
    // SEC1: 4, then x and y.
    let key = [&[4][..], &quote.attestation_key].concat();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key)
        .verify(quote.signed, &quote.signature)
        .map_err(|_| TdxError::Signature)?;
    Ok(enclave)
}

/// The certificate that signs Intel's documents, before it is verified.
struct Signer(Vec<u8>);

impl Signer {
    /// Takes the chain apart. Its root must be the one that the quote's chain ends in.
    fn parse(chain: &str, quotes_root: &[u8], spki_sha256: [u8; 32]) -> Result<Self, TdxError> {
        let needed = "TCB signing and SGX root";
        let [signer, root] = <[Vec<u8>; 2]>::try_from(ders(CertRole::TcbSigning, chain, 2)?).map_err(|chain| {
            let found = chain.len();
            ChainError::Length { found, needed }
        })?;
        if root != quotes_root {
            // Another certificate of the same key will do.
            let root = Cert::parse(CertRole::SgxRoot, &root)?;
            if root.spki_sha256()? != spki_sha256 {
                return Err(TdxError::OtherRoot);
            }
            root.issued_by(&root, SCHEME)?;
        }
        Ok(Self(signer))
    }

    fn verify(&self, root: &Cert<'_>, root_crl: &Crl<'_>, now: Duration) -> Result<Cert<'_>, TdxError> {
        let certificate = Cert::parse(CertRole::TcbSigning, &self.0)?;
        certificate.issued_by(root, SCHEME)?;
        certificate.leaf()?;
        certificate.valid_at(now)?;
        root_crl.check(&certificate)?;
        Ok(certificate)
    }
}

fn ders(role: CertRole, pem: &str, max: usize) -> Result<Vec<Vec<u8>>, ChainError> {
    pem_chain(pem, max).ok_or(ChainError::Pem { role })
}

fn replay(log: &[u8], report: &TdReport) -> Result<(), TdxError> {
    let replayed = EventLog::parse(log)?.replay();
    let mut pairs = replayed.iter().zip(&report.rtmr);
    match pairs.position(|(replayed, register)| replayed != register) {
        Some(index) => Err(TdxError::Replay { index }),
        None => Ok(()),
    }
}

/// What the quote must say, whatever the verifier tolerates.
fn compare(report: &TdReport, expected: &TdxExpected<'_>) -> Result<(), TdxError> {
    if report.report_data != *expected.report_data {
        return Err(TdxError::ReportData);
    }
    if expected.mr_config_id.is_some_and(|id| report.mr_config_id != *id) {
        return Err(TdxError::MrConfigId);
    }
    if report.mr_owner != [0; 48] || report.mr_owner_config != [0; 48] {
        return Err(TdxError::Owner);
    }
    Ok(())
}
