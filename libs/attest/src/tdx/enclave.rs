//! The report of the quoting enclave (Intel SDM volume 3D, "REPORT"): 384 bytes.

use crate::reader::Reader;

/// Length in bytes.
pub(super) const LEN: usize = 384;

/// What the CPU says about the quoting enclave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EnclaveReport {
    pub(super) misc_select: [u8; 4],
    pub(super) attributes: [u8; 16],
    pub(super) mr_signer: [u8; 32],
    pub(super) isv_prod_id: u16,
    pub(super) isv_svn: u16,
    pub(super) report_data: [u8; 64],
}

impl EnclaveReport {
    pub(super) fn parse(bytes: &[u8; LEN]) -> Option<Self> {
        let mut at = Reader(bytes);
        let _cpu_svn: [u8; 16] = at.array()?;
        let misc_select = at.array()?;
        let _reserved: [u8; 28] = at.array()?;
        let attributes = at.array()?;
        let _mr_enclave: [u8; 32] = at.array()?;
        let _reserved: [u8; 32] = at.array()?;
        let mr_signer = at.array()?;
        let _reserved: [u8; 96] = at.array()?;
        let isv_prod_id = at.u16()?;
        let isv_svn = at.u16()?;
        let _reserved: [u8; 60] = at.array()?;
        let report_data = at.array()?;
        at.is_empty().then_some(Self {
            misc_select,
            attributes,
            mr_signer,
            isv_prod_id,
            isv_svn,
            report_data,
        })
    }
}
