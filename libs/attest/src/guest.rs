//! A guest's evidence, and what its launch was, whichever TEE it runs in.

use serde_json::Value;

use crate::{
    Evidence, EvidenceError, TdEvidence,
    snp::{Product, Report, ReportError, TcbVersion},
    td_launch_digest,
    tdx::{LocalReport, QuoteError, TdReport},
    trustee::{self, TrusteeError},
};

/// A technology that protects guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tee {
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
}

impl Tee {
    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Snp, Self::Tdx].into_iter().find(|tee| tee.as_str() == name)
    }

    /// Its name in the key broker's protocol.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Snp => "snp",
            Self::Tdx => "tdx",
        }
    }
}

/// Evidence of a guest of one TEE. Nothing in it is believed until the TEE's verifier has been through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestEvidence {
    /// A report with its certificates.
    Snp(Evidence),
    /// A quote with the event log of the boot.
    Tdx(TdEvidence),
}

impl GuestEvidence {
    /// Which TEE it is of.
    pub fn tee(&self) -> Tee {
        match self {
            Self::Snp(_) => Tee::Snp,
            Self::Tdx(_) => Tee::Tdx,
        }
    }

    /// The form of the key broker's protocol.
    ///
    /// # Errors
    /// [`TrusteeError`].
    pub fn to_trustee(&self) -> Result<Value, TrusteeError> {
        match self {
            Self::Snp(evidence) => trustee::to_json(evidence),
            Self::Tdx(evidence) => trustee::td_to_json(evidence),
        }
    }

    /// Reads what [`GuestEvidence::to_json`] writes: at most [`Evidence::MAX_JSON`] bytes. The simulated platform's answers have this form.
    ///
    /// # Errors
    /// [`GuestEvidenceError`]; never a panic.
    pub fn from_json(json: &[u8]) -> Result<Self, GuestEvidenceError> {
        let len = json.len();
        if len > Evidence::MAX_JSON {
            let limit = Evidence::MAX_JSON;
            return Err(EvidenceError::TooLarge { len, limit }.into());
        }
        match serde_json::from_slice::<Value>(json) {
            Ok(value) if value.get("quote").is_some() => Ok(Self::Tdx(trustee::td_from_json(value)?)),
            _ => Ok(Self::Snp(Evidence::from_json(json)?)),
        }
    }

    /// Writes the JSON form: SNP as [`Evidence::to_json`], TDX as [`trustee::td_to_json`].
    ///
    /// # Errors
    /// [`TrusteeError`] when a quote or an event log is empty or too long.
    pub fn to_json(&self) -> Result<Vec<u8>, TrusteeError> {
        match self {
            Self::Snp(evidence) => Ok(evidence.to_json()),
            Self::Tdx(evidence) => Ok(trustee::td_to_json(evidence)?.to_string().into_bytes()),
        }
    }
}

/// Why bytes are not a guest's evidence, or evidence has nothing to say about its guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuestEvidenceError {
    /// Not the form of SNP evidence, nor that of TDX evidence.
    #[error(transparent)]
    Snp(#[from] EvidenceError),
    /// A quote is there, but not the form of TDX evidence.
    #[error(transparent)]
    Tdx(#[from] TrusteeError),
    /// The report cannot be read.
    #[error("the SNP report in the evidence cannot be read")]
    Report(#[from] ReportError),
    /// The quote cannot be read.
    #[error("the TDX quote in the evidence cannot be read")]
    Quote(#[from] QuoteError),
}

/// What the host bound to a guest when it launched it: for Cella the digest of initdata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// HOST_DATA of an SNP report.
    HostData([u8; 32]),
    /// MRCONFIGID of a TDX report.
    MrConfigId([u8; 48]),
}

impl Bound {
    /// The field's name.
    pub fn field(&self) -> &'static str {
        match self {
            Self::HostData(_) => "HOST_DATA",
            Self::MrConfigId(_) => "MRCONFIGID",
        }
    }

    /// The field's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::HostData(bytes) => bytes,
            Self::MrConfigId(bytes) => bytes,
        }
    }
}

/// What a guest's report says about its launch. Whether to believe it is the reader's matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launched {
    /// What was bound to the guest.
    pub bound: Bound,
    /// Launch digest of an SNP guest; of a TDX guest [`td_launch_digest`].
    pub measurement: [u8; 48],
    /// Versions of the platform's firmware, for people: `bootloader=3 tee=0 snp=20 microcode=209`, `module=1 svn=5 microcode=2`. Empty where the report
    /// names a processor that is not known.
    pub tcb: String,
}

impl Launched {
    /// The TEE.
    pub fn tee(&self) -> Tee {
        match self.bound {
            Bound::HostData(_) => Tee::Snp,
            Bound::MrConfigId(_) => Tee::Tdx,
        }
    }

    /// From evidence, of which no signature is looked at.
    ///
    /// # Errors
    /// [`GuestEvidenceError::Report`] or [`GuestEvidenceError::Quote`].
    pub fn of_evidence(evidence: &GuestEvidence) -> Result<Self, GuestEvidenceError> {
        match evidence {
            GuestEvidence::Snp(evidence) => Ok(Self::of_snp(&Report::parse(&evidence.report)?)),
            GuestEvidence::Tdx(evidence) => {
                let report = TdReport::of_quote(&evidence.quote)?;
                Ok(Self::of_td(
                    report.mr_config_id,
                    &report.mrtd,
                    &report.rtmr,
                    report.tee_tcb_svn,
                ))
            }
        }
    }

    /// From the report that the TDX module gave the guest itself.
    pub fn of_local(report: &LocalReport) -> Self {
        Self::of_td(report.mr_config_id, &report.mrtd, &report.rtmr, report.tee_tcb_svn)
    }

    fn of_snp(report: &Report) -> Self {
        let product = report.cpuid.and_then(|id| Product::from_cpuid(id.family, id.model));
        Self {
            bound: Bound::HostData(report.host_data),
            measurement: report.measurement,
            tcb: product
                .map(|product| shown(report.reported_tcb(product)))
                .unwrap_or_default(),
        }
    }

    fn of_td(
        mr_config_id: [u8; 48],
        mrtd: &[u8; 48],
        [_, one, two, three]: &[[u8; 48]; 4],
        [svn, module, microcode, ..]: [u8; 16],
    ) -> Self {
        Self {
            bound: Bound::MrConfigId(mr_config_id),
            measurement: td_launch_digest(mrtd, [one, two, three]),
            tcb: format!("module={module} svn={svn} microcode={microcode}"),
        }
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

#[cfg(test)]
mod tests;
