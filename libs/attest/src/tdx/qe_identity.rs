//! Identity of the quoting enclave (PCS API v4, "enclave identity", version 2): which enclave's word a quote is.

use serde::Deserialize;

use super::{
    enclave::EnclaveReport,
    error::TdxError,
    signed::{Date, Document, HexText},
    tcb_info::{IsvSvn, Judgement},
};

/// What Intel says about its quoting enclave for TDX.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct QeIdentity {
    id: String,
    version: u32,
    issue_date: Date,
    next_update: Date,
    pub(super) tcb_evaluation_data_number: u32,
    miscselect: HexText<4>,
    miscselect_mask: HexText<4>,
    attributes: HexText<16>,
    attributes_mask: HexText<16>,
    mrsigner: HexText<32>,
    isvprodid: u16,
    tcb_levels: Vec<Level>,
}

#[derive(Debug, Deserialize)]
struct Level {
    tcb: IsvSvn,
    #[serde(flatten)]
    judgement: Judgement,
}

impl Document for QeIdentity {
    const WHAT: &'static str = "quoting enclave's identity";

    fn is_known(&self) -> bool {
        self.id == "TD_QE" && self.version == 2
    }

    fn dates(&self) -> (Date, Date) {
        (self.issue_date, self.next_update)
    }
}

impl QeIdentity {
    /// Checks that a report is of this enclave, and judges its security version.
    pub(super) fn judge(&self, report: &EnclaveReport) -> Result<&Judgement, TdxError> {
        let same = masked(report.misc_select, self.miscselect_mask.0)
            == masked(self.miscselect.0, self.miscselect_mask.0)
            && masked(report.attributes, self.attributes_mask.0) == masked(self.attributes.0, self.attributes_mask.0)
            && report.mr_signer == self.mrsigner.0
            && report.isv_prod_id == self.isvprodid;
        if !same {
            return Err(TdxError::QuotingEnclave);
        }
        let mut levels = self.tcb_levels.iter();
        let level = levels.find(|level| report.isv_svn >= level.tcb.isvsvn);
        let what = "quoting enclave";
        Ok(&level.ok_or(TdxError::NoTcbLevel { what })?.judgement)
    }
}

fn masked<const N: usize>(mut value: [u8; N], mask: [u8; N]) -> [u8; N] {
    value.iter_mut().zip(mask).for_each(|(byte, mask)| *byte &= mask);
    value
}
