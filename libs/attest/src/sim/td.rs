//! Quotes and collateral in Intel's formats under a root that anybody can make.
//!
//! One authority stands for Intel's root, its provisioning certification service and one platform with its quoting enclave.

mod event_log;
mod key;
mod pck;
mod state;

use std::time::Duration;

use serde_json::json;
use x509_cert::der::{EncodePem, asn1::BitString, pem::LineEnding};

use super::{SimError, certificate};
use crate::{
    digest::sha256,
    tdx::{ATTRIBUTE_SEPT_VE_DISABLE, Collateral, TcbStatus, TdReport},
};
use key::Key;
pub use state::TdPaths;

/// Security versions of the simulated platform: CPU, provisioning enclave, TDX module, quoting enclave.
const CPU_SVN: u8 = 3;
const PCE_SVN: u16 = 11;
const MODULE_SVN: u8 = 5;
const QE_SVN: u16 = 4;
/// Who signed the simulated quoting enclave.
const QE_SIGNER: [u8; 32] = [0xdc; 32];
const TCB_DATE: &str = "2024-03-13T00:00:00Z";

/// What the collateral says about the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TdJudgement {
    /// Since the Unix epoch: when the collateral was issued.
    pub issued: Duration,
    /// For how long it holds.
    pub holds: Duration,
    /// Status of CPU and provisioning enclave.
    pub platform: TcbStatus,
    /// Advisories that go with it.
    pub advisories: Vec<String>,
    /// Status of the TDX module.
    pub module: TcbStatus,
    /// Status of the quoting enclave.
    pub enclave: TcbStatus,
    /// Number of the evaluation.
    pub evaluation: u32,
    /// Family of platforms that the collateral is for.
    pub fmspc: [u8; 6],
    /// What the revocation lists name.
    pub revoked: Option<TdRevoked>,
}

/// A certificate that the simulated lists revoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TdRevoked {
    /// The platform's.
    Pck,
    /// The authority for platforms.
    PckCa,
    /// The one that signs documents.
    TcbSigning,
}

impl TdJudgement {
    /// Everything up to date, from a time on for an hour.
    pub fn up_to_date(issued: Duration) -> Self {
        Self {
            issued,
            holds: Duration::from_secs(3600),
            platform: TcbStatus::UpToDate,
            advisories: Vec::new(),
            module: TcbStatus::UpToDate,
            enclave: TcbStatus::UpToDate,
            evaluation: 20,
            fmspc: TdAuthority::FMSPC,
            revoked: None,
        }
    }
}

/// Keys and certificates of a simulated TDX platform and of everything above it. Unlike SNP's authority it is kept: its collateral is issued again
/// when it has become old.
pub struct TdAuthority {
    root: Key,
    pck_ca: Key,
    pck: Key,
    tcb_signing: Key,
    attestation: Key,
}

impl TdAuthority {
    /// Family of the simulated platform.
    pub const FMSPC: [u8; 6] = *b"SIM\0\0\0";

    /// Makes all keys and certificates. Takes milliseconds.
    ///
    /// # Errors
    /// [`SimError`].
    pub fn generate() -> Result<Self, SimError> {
        let root = Key::root("Intel SGX Root CA")?;
        let ca = certificate::ca(Some(0))?;
        let pck_ca = root.issue("Intel SGX PCK Platform CA", ca)?;
        let pck = pck_ca.issue(
            "Intel SGX PCK Certificate",
            pck::extensions(CPU_SVN, PCE_SVN, Self::FMSPC)?,
        )?;
        let tcb_signing = root.issue("Intel SGX TCB Signing", Vec::new())?;
        let attestation = Key::root("attestation key")?;
        Ok(Self {
            root,
            pck_ca,
            pck,
            tcb_signing,
            attestation,
        })
    }

    /// What a verifier lists to believe this root.
    pub fn root_spki_sha256(&self) -> [u8; 32] {
        self.root.spki_sha256
    }

    /// What the TDX module says of a good guest: SEPT_VE_DISABLE, no owner, TDX 1.0.
    pub fn report(report_data: [u8; 64], mrtd: [u8; 48], rtmr: [[u8; 48]; 4], mr_config_id: [u8; 48]) -> TdReport {
        let mut tee_tcb_svn = [0; 16];
        let [svn, version, component, ..] = &mut tee_tcb_svn;
        (*svn, *version, *component) = (MODULE_SVN, 1, 2);
        TdReport {
            tee_tcb_svn,
            tee_tcb_svn2: None,
            mr_seam: [0x5e; 48],
            mr_signer_seam: [0; 48],
            seam_attributes: [0; 8],
            attributes: ATTRIBUTE_SEPT_VE_DISABLE,
            xfam: 0x0006_02e7,
            mrtd,
            mr_config_id,
            mr_owner: [0; 48],
            mr_owner_config: [0; 48],
            rtmr,
            report_data,
            mr_service_td: [0; 48],
            current_service_td: [0; 48],
        }
    }

    /// Signs a quote: version 4 for TDX 1.0, version 5 for 1.5, by whether the report has the fields of 1.5.
    ///
    /// # Errors
    /// [`SimError::Sign`] or [`SimError::Encode`].
    pub fn quote(&self, report: &TdReport) -> Result<Vec<u8>, SimError> {
        let version: u16 = if report.tee_tcb_svn2.is_some() { 5 } else { 4 };
        let mut quote = version.to_le_bytes().to_vec();
        quote.extend([2, 0, 0x81, 0, 0, 0, 0, 0, 0, 0]);
        quote.extend(0x939a_7233_f79c_4ca9_940a_0db3_957f_0607_u128.to_be_bytes());
        quote.extend([0; 20]);
        let body = encode_report(report);
        if version == 5 {
            quote.extend([3, 0]);
            quote.extend(len32(&body));
        }
        quote.extend(body);
        let signature = self.attestation.sign(&quote)?;
        let key = self.attestation.point();
        let authentication = [0x20; 32];
        let enclave = encode_enclave(sha256(&[key, &authentication].concat()));
        let chain = self.pck_chain()?;
        let certification = [
            &enclave[..],
            &self.pck.sign(&enclave)?,
            &[32, 0],
            &authentication,
            &[5, 0],
            &len32(chain.as_bytes()),
            chain.as_bytes(),
        ]
        .concat();
        let rest = [&signature[..], key, &[6, 0], &len32(&certification), &certification].concat();
        quote.extend(len32(&rest));
        quote.extend(rest);
        Ok(quote)
    }

    /// Makes the collateral with which a quote of this platform verifies.
    ///
    /// # Errors
    /// [`SimError`].
    pub fn collateral(&self, judgement: &TdJudgement) -> Result<Collateral, SimError> {
        let (tcb_info, qe_identity) = (tcb_info(judgement)?, qe_identity(judgement)?);
        let by_root: &[&Key] = match judgement.revoked {
            Some(TdRevoked::PckCa) => &[&self.pck_ca],
            Some(TdRevoked::TcbSigning) => &[&self.tcb_signing],
            Some(TdRevoked::Pck) | None => &[],
        };
        let by_ca: &[&Key] = if judgement.revoked == Some(TdRevoked::Pck) {
            &[&self.pck]
        } else {
            &[]
        };
        let chain = [self.tcb_signing.pem()?, self.root.pem()?].concat();
        let term = (judgement.issued, judgement.holds);
        Ok(Collateral {
            root_crl: self.root.crl(by_root, term)?,
            pck_crl: self.pck_ca.crl(by_ca, term)?,
            tcb_info_signature: self.tcb_signing.sign(tcb_info.as_bytes())?,
            tcb_info,
            tcb_info_chain: chain.clone(),
            qe_identity_signature: self.tcb_signing.sign(qe_identity.as_bytes())?,
            qe_identity,
            qe_identity_chain: chain,
            pck_chain: None,
        })
    }

    fn pck_chain(&self) -> Result<String, SimError> {
        Ok([self.pck.pem()?, self.pck_ca.pem()?, self.root.pem()?].concat())
    }
}

fn tcb_info(judgement: &TdJudgement) -> Result<String, SimError> {
    let components = |svns: [u8; 16]| svns.map(|svn| json!({ "svn": svn }));
    let mut tdx = [0; 16];
    let [_, _, component, ..] = &mut tdx;
    *component = 2;
    let module = json!({
        "mrsigner": "0".repeat(96), "attributes": "0".repeat(16), "attributesMask": "F".repeat(16),
    });
    let mut identity = module.clone();
    if let Some(identity) = identity.as_object_mut() {
        identity.insert("id".to_owned(), json!("TDX_01"));
        identity.insert("tcbLevels".to_owned(), json!([
            { "tcb": { "isvsvn": MODULE_SVN }, "tcbDate": TCB_DATE, "tcbStatus": judgement.module },
            { "tcb": { "isvsvn": MODULE_SVN - 1 }, "tcbDate": "2023-01-01T00:00:00Z", "tcbStatus": "OutOfDate", "advisoryIDs": ["SIM-SA-MODULE"] },
        ]));
    }
    let (issue_date, next_update) = dates(judgement)?;
    let info = json!({
        "id": "TDX", "version": 3, "issueDate": issue_date, "nextUpdate": next_update,
        "fmspc": hex::encode_upper(judgement.fmspc), "pceId": "0000", "tcbType": 0,
        "tcbEvaluationDataNumber": judgement.evaluation, "tdxModule": module, "tdxModuleIdentities": [identity],
        "tcbLevels": [{
            "tcb": {
                "sgxtcbcomponents": components([CPU_SVN; 16]), "pcesvn": PCE_SVN, "tdxtcbcomponents": components(tdx),
            },
            "tcbDate": TCB_DATE, "tcbStatus": judgement.platform, "advisoryIDs": judgement.advisories,
        }],
    });
    Ok(info.to_string())
}

fn qe_identity(judgement: &TdJudgement) -> Result<String, SimError> {
    let (issue_date, next_update) = dates(judgement)?;
    let identity = json!({
        "id": "TD_QE", "version": 2, "issueDate": issue_date, "nextUpdate": next_update,
        "tcbEvaluationDataNumber": judgement.evaluation, "miscselect": "00000000", "miscselectMask": "FFFFFFFF",
        "attributes": format!("11{}", "0".repeat(30)), "attributesMask": format!("FBFFFFFFFFFFFFFF{}", "0".repeat(16)),
        "mrsigner": hex::encode_upper(QE_SIGNER), "isvprodid": 2,
        "tcbLevels": [{ "tcb": { "isvsvn": QE_SVN }, "tcbDate": TCB_DATE, "tcbStatus": judgement.enclave }],
    });
    Ok(identity.to_string())
}

/// Issue and next update, as Intel writes them.
fn dates(judgement: &TdJudgement) -> Result<(String, String), SimError> {
    let date = |at| {
        let date = x509_cert::der::DateTime::from_unix_duration(at);
        date.map(|date| date.to_string())
            .map_err(|source| SimError::Encode { what: "date", source })
    };
    let TdJudgement { issued, holds, .. } = *judgement;
    Ok((date(issued)?, date(issued.saturating_add(holds))?))
}

fn encode_report(report: &TdReport) -> Vec<u8> {
    let [a, b, c, d] = &report.rtmr;
    let mut body = [
        &report.tee_tcb_svn[..],
        &report.mr_seam,
        &report.mr_signer_seam,
        &report.seam_attributes,
        &report.attributes.to_le_bytes(),
        &report.xfam.to_le_bytes(),
        &report.mrtd,
        &report.mr_config_id,
        &report.mr_owner,
        &report.mr_owner_config,
        a,
        b,
        c,
        d,
        &report.report_data,
    ]
    .concat();
    if let Some(svn) = &report.tee_tcb_svn2 {
        body.extend(svn);
        body.extend(report.mr_service_td);
    }
    body
}

/// The report of the simulated quoting enclave, which vouches for an attestation key.
fn encode_enclave(bound: [u8; 32]) -> Vec<u8> {
    let mut attributes = [0; 16];
    let [first, ..] = &mut attributes;
    *first = 0x11;
    [
        &[0; 16 + 4 + 28][..],
        &attributes,
        &[0; 32 + 32],
        &QE_SIGNER,
        &[0; 96],
        &2u16.to_le_bytes(),
        &QE_SVN.to_le_bytes(),
        &[0; 60],
        &bound,
        &[0; 32],
    ]
    .concat()
}

fn len32(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes()
}

/// A bit string of whole bytes.
fn bits(what: &'static str, bytes: &[u8]) -> Result<BitString, SimError> {
    BitString::from_bytes(bytes).map_err(|source| SimError::Encode { what, source })
}

/// PEM of one certificate.
fn pem(certificate: &x509_cert::Certificate) -> Result<String, SimError> {
    let what = "certificate";
    certificate
        .to_pem(LineEnding::LF)
        .map_err(|source| SimError::Encode { what, source })
}
