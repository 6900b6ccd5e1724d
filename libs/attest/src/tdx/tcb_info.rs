//! TCB info: which security versions of a family of platforms Intel judges how (PCS API v4, "TCB info", version 3).

use serde::Deserialize;

use super::{
    error::TdxError,
    pck::Platform,
    report::TdReport,
    signed::{Date, Document, HexText},
    status::TcbStatus,
};

/// What Intel says about the platforms of one FMSPC.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TcbInfo {
    id: String,
    version: u32,
    issue_date: Date,
    next_update: Date,
    fmspc: HexText<6>,
    pce_id: HexText<2>,
    tcb_type: u32,
    pub(super) tcb_evaluation_data_number: u32,
    tdx_module: Module,
    #[serde(default)]
    tdx_module_identities: Vec<ModuleIdentity>,
    tcb_levels: Vec<Level>,
}

impl Document for TcbInfo {
    const WHAT: &'static str = "TCB info";

    fn is_known(&self) -> bool {
        self.id == "TDX" && self.version == 3 && self.tcb_type == 0
    }

    fn dates(&self) -> (Date, Date) {
        (self.issue_date, self.next_update)
    }
}

/// Who signed the TDX module, and with which attributes it must run.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Module {
    mrsigner: HexText<48>,
    attributes: HexText<8>,
    attributes_mask: HexText<8>,
}

/// The same for one major version of the module, with its own levels.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModuleIdentity {
    id: String,
    #[serde(flatten)]
    module: Module,
    tcb_levels: Vec<ModuleLevel>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModuleLevel {
    tcb: IsvSvn,
    #[serde(flatten)]
    judgement: Judgement,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct IsvSvn {
    pub(super) isvsvn: u16,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Level {
    tcb: Tcb,
    #[serde(flatten)]
    judgement: Judgement,
}

#[derive(Debug, Deserialize)]
struct Tcb {
    sgxtcbcomponents: [Component; 16],
    pcesvn: u16,
    tdxtcbcomponents: [Component; 16],
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct Component {
    svn: u8,
}

/// What Intel thinks of a level.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Judgement {
    #[serde(rename = "tcbStatus")]
    pub(super) status: TcbStatus,
    #[serde(rename = "tcbDate")]
    pub(super) date: Date,
    #[serde(rename = "advisoryIDs", default)]
    pub(super) advisories: Vec<String>,
}

impl Judgement {
    /// The judgement of a platform of two parts: as old as the older, with the advisories of both.
    pub(super) fn and(mut self, other: &Self, status: TcbStatus) -> Self {
        self.status = status;
        self.date = self.date.min(other.date);
        for advisory in &other.advisories {
            if !self.advisories.contains(advisory) {
                self.advisories.push(advisory.clone());
            }
        }
        self
    }
}

impl TcbInfo {
    /// Judges a platform and the TDX module that made `report`.
    pub(super) fn judge(&self, platform: &Platform, report: &TdReport) -> Result<Judgement, TdxError> {
        if self.fmspc.0 != platform.fmspc || self.pce_id.0 != platform.pce_id {
            return Err(TdxError::OtherPlatform {
                fmspc: platform.fmspc.into(),
            });
        }
        self.check_module(report)?;
        let launch = self.judge_svn(platform, &report.tee_tcb_svn)?;
        let Some(svn) = &report.tee_tcb_svn2 else {
            return Ok(launch);
        };
        let current = self.judge_svn(platform, svn)?;
        let status = launch.status.now(current.status);
        Ok(launch.and(&current, status))
    }

    /// Checks signer and attributes of the TDX module.
    fn check_module(&self, report: &TdReport) -> Result<(), TdxError> {
        let module = self
            .identity(&report.tee_tcb_svn)?
            .map_or(&self.tdx_module, |identity| &identity.module);
        if report.mr_signer_seam != module.mrsigner.0 {
            return Err(TdxError::ModuleSigner);
        }
        let (wanted, mask) = (module.attributes.0, module.attributes_mask.0);
        let masks = report.seam_attributes.iter().zip(mask).zip(wanted);
        // Outside of the mask nothing is expected, so nothing may be set.
        for ((own, mask), wanted) in masks {
            if own & mask != wanted & mask || own & !mask != 0 {
                return Err(TdxError::ModuleAttributes);
            }
        }
        Ok(())
    }

    /// The identity of the module's major version, which its SVN has in second place; none for version 0, which the levels judge alone.
    fn identity(&self, tee_tcb_svn: &[u8; 16]) -> Result<Option<&ModuleIdentity>, TdxError> {
        let [_, version, ..] = *tee_tcb_svn;
        if version == 0 {
            return Ok(None);
        }
        let id = format!("TDX_{version:02X}");
        let mut identities = self.tdx_module_identities.iter();
        let found = identities.find(|identity| identity.id.eq_ignore_ascii_case(&id));
        found.map(Some).ok_or(TdxError::UnknownModule { version })
    }

    fn judge_svn(&self, platform: &Platform, tee_tcb_svn: &[u8; 16]) -> Result<Judgement, TdxError> {
        let identity = self.identity(tee_tcb_svn)?;
        // Where the module has an identity of its own, that judges its SVN and version, which are the first two components.
        let skip = if identity.is_some() { 2 } else { 0 };
        let meets = |level: &&Level| {
            let sgx = platform.cpu_svn.iter().zip(level.tcb.sgxtcbcomponents);
            let tdx = tee_tcb_svn.iter().zip(level.tcb.tdxtcbcomponents).skip(skip);
            sgx.chain(tdx).all(|(own, level)| *own >= level.svn) && platform.pce_svn >= level.tcb.pcesvn
        };
        // Intel sorts the levels, highest first: the first that is met is the platform's.
        let level = self
            .tcb_levels
            .iter()
            .find(meets)
            .ok_or(TdxError::NoTcbLevel { what: "platform" })?;
        let platform = level.judgement.clone();
        let Some(identity) = identity else { return Ok(platform) };
        let [svn, ..] = *tee_tcb_svn;
        let level = identity
            .tcb_levels
            .iter()
            .find(|level| u16::from(svn) >= level.tcb.isvsvn);
        let module = &level.ok_or(TdxError::NoTcbLevel { what: "TDX module" })?.judgement;
        let status = platform.status.and(module.status);
        Ok(platform.and(module, status))
    }
}
