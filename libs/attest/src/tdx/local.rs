//! The report that the TDX module gives the guest itself (Intel TDX module ABI, TDREPORT_STRUCT), by Linux's `/dev/tdx_guest`.
//!
//! Only the same machine can check its MAC, so it is no evidence for anybody else. For the guest it is better than a quote: it comes from the module
//! by TDCALL, whereas a quote comes through the host, which could hand over another.

use crate::{hex_bytes::Hex, reader::Reader};

/// Length of the structure.
pub const LOCAL_REPORT_LEN: usize = 1024;
/// Type of the report: a TD's.
const TYPE_TDX: u8 = 0x81;
/// REPORTMACSTRUCT, up to the caller's data.
const BEFORE_REPORT_DATA: usize = 4 + 12 + 16 + 48 + 48;
/// The rest of REPORTMACSTRUCT: reserved, MAC.
const AFTER_REPORT_DATA: usize = 32 + 32;
/// Where TDINFO_STRUCT begins.
const TD_INFO_AT: usize = 512;

/// What the TDX module says to its guest.
#[derive(Clone, PartialEq, Eq)]
pub struct LocalReport {
    /// What the guest asked to have in the report.
    pub report_data: [u8; 64],
    /// Security versions: the TDX module's SVN, its major version, its microcode's.
    pub tee_tcb_svn: [u8; 16],
    /// The guest's attributes.
    pub attributes: u64,
    /// Measurement of what the guest was built with: its firmware.
    pub mrtd: [u8; 48],
    /// What the host bound to the guest at launch.
    pub mr_config_id: [u8; 48],
    /// Identity of the guest's owner.
    pub mr_owner: [u8; 48],
    /// Configuration by the guest's owner.
    pub mr_owner_config: [u8; 48],
    /// Registers that firmware, loader and kernel extend while booting.
    pub rtmr: [[u8; 48]; 4],
}

impl LocalReport {
    /// Reads the structure. Pure.
    ///
    /// # Errors
    /// [`LocalReportError`]; never a panic.
    pub fn parse(bytes: &[u8; LOCAL_REPORT_LEN]) -> Result<Self, LocalReportError> {
        let [kind, subtype, version, reserved, ..] = *bytes;
        if kind != TYPE_TDX || subtype != 0 || version > MAX_VERSION || reserved != 0 {
            return Err(LocalReportError::Type { kind, subtype, version });
        }
        read(bytes).ok_or(LocalReportError::Layout)
    }
}

/// Versions that are known: 0 is TDX 1.0, 1 has service TDs.
const MAX_VERSION: u8 = 1;

/// The fields at their places. `None` would mean that the constants above do not fit into the structure.
fn read(bytes: &[u8]) -> Option<LocalReport> {
    let mut at = Reader(bytes);
    let _type_svn_and_hashes = at.bytes(BEFORE_REPORT_DATA)?;
    let report_data = at.array()?;
    let _mac = at.bytes(AFTER_REPORT_DATA)?;
    // TEE_TCB_INFO: which of its fields are valid, then the versions.
    let _valid: [u8; 8] = at.array()?;
    let tee_tcb_svn = at.array()?;
    let mut at = Reader(bytes.get(TD_INFO_AT..)?);
    let attributes = at.u64()?;
    let _xfam = at.u64()?;
    Some(LocalReport {
        report_data,
        tee_tcb_svn,
        attributes,
        mrtd: at.array()?,
        mr_config_id: at.array()?,
        mr_owner: at.array()?,
        mr_owner_config: at.array()?,
        rtmr: [at.array()?, at.array()?, at.array()?, at.array()?],
    })
}

impl std::fmt::Debug for LocalReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalReport")
            .field("attributes", &format_args!("{:#x}", self.attributes))
            .field("mrtd", &Hex(self.mrtd))
            .field("mr_config_id", &Hex(self.mr_config_id))
            .finish_non_exhaustive()
    }
}

/// Why bytes are not a TD's report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocalReportError {
    /// Of something else than a TD, or of a version that is not known here.
    #[error(
        "a local report of type {kind:#x}, subtype {subtype}, version {version}; type 0x81, subtype 0, versions 0 and 1 are known"
    )]
    Type {
        /// Type in the report.
        kind: u8,
        /// Subtype in the report.
        subtype: u8,
        /// Version in the report.
        version: u8,
    },
    /// The structure has no room for its fields.
    #[error("the local report is shorter than its fields")]
    Layout,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offsets as in the ABI specification, and in the kernel's own test of the interface.
    fn sample() -> [u8; LOCAL_REPORT_LEN] {
        let mut report = [0; LOCAL_REPORT_LEN];
        report[0] = 0x81;
        report[128..192].fill(1); // REPORTDATA
        report[264..280].fill(2); // TEE_TCB_INFO.TEE_TCB_SVN
        report[512..520].copy_from_slice(&(1_u64 << 28).to_le_bytes());
        for (index, field) in report[528..912].chunks_exact_mut(48).enumerate() {
            field.fill(0x10 + u8::try_from(index).unwrap());
        }
        report
    }

    #[test]
    fn fields_are_where_the_specification_has_them() {
        let report = LocalReport::parse(&sample()).unwrap();
        assert_eq!((report.report_data, report.tee_tcb_svn), ([1; 64], [2; 16]));
        assert_eq!(report.attributes, 1 << 28);
        assert_eq!((report.mrtd, report.mr_config_id), ([0x10; 48], [0x11; 48]));
        assert_eq!((report.mr_owner, report.mr_owner_config), ([0x12; 48], [0x13; 48]));
        assert_eq!(report.rtmr, [[0x14; 48], [0x15; 48], [0x16; 48], [0x17; 48]]);
    }

    #[test]
    fn reports_of_other_kinds_are_refused() {
        for (at, value) in [(0, 0), (0, 0x82), (1, 1), (2, 2), (3, 1)] {
            let mut other = sample();
            other[at] = value;
            assert!(
                matches!(LocalReport::parse(&other), Err(LocalReportError::Type { .. })),
                "{at}"
            );
        }
        let mut with_service_tds = sample();
        with_service_tds[2] = 1;
        assert!(LocalReport::parse(&with_service_tds).is_ok());
    }
}
