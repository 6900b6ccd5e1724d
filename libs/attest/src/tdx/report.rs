//! The TD report inside a quote (Intel TDX DCAP quoting library API, "TD Quote Body"): 584 bytes of TDX 1.0, 648 of 1.5, 885 of 1.5 with the
//! extended service TD fields.

use crate::{hex_bytes::Hex, reader::Reader};

/// Bit 0 of the TD's attributes: the host may debug the guest, which is to read and write its memory.
pub const ATTRIBUTE_DEBUG: u64 = 1;
/// Bit 28: the guest gets no exceptions for its private pages that the host took away. A guest kernel that would handle them is attackable.
pub const ATTRIBUTE_SEPT_VE_DISABLE: u64 = 1 << 28;
/// Bit 29: a migration TD may take the guest elsewhere.
pub const ATTRIBUTE_MIGRATABLE: u64 = 1 << 29;
/// Bit 30: supervisor protection keys.
pub const ATTRIBUTE_PKS: u64 = 1 << 30;
/// Bit 63: performance counters, which share state with the host.
pub const ATTRIBUTE_PERFMON: u64 = 1 << 63;

/// What the TDX module says about a guest. Its bytes are signed as part of the [`super::Quote`].
#[derive(Clone, PartialEq, Eq)]
pub struct TdReport {
    /// Security versions of the TDX module and its loader at launch; `[0]` is the module's SVN, `[1]` its major version.
    pub tee_tcb_svn: [u8; 16],
    /// The same now, after an update that preserved the guest: TDX 1.5.
    pub tee_tcb_svn2: Option<[u8; 16]>,
    /// Measurement of the TDX module.
    pub mr_seam: [u8; 48],
    /// Signer of the TDX module; zero for Intel.
    pub mr_signer_seam: [u8; 48],
    /// Attributes of the TDX module.
    pub seam_attributes: [u8; 8],
    /// The guest's attributes, the bits `ATTRIBUTE_*` of [`super`].
    pub attributes: u64,
    /// Extended features that the guest may use.
    pub xfam: u64,
    /// Measurement of what the guest was built with: its firmware.
    pub mrtd: [u8; 48],
    /// What the host bound to the guest at launch: for Cella the digest of initdata.
    pub mr_config_id: [u8; 48],
    /// Identity of the guest's owner: zero for Cella.
    pub mr_owner: [u8; 48],
    /// Configuration by the guest's owner: zero for Cella.
    pub mr_owner_config: [u8; 48],
    /// Registers that firmware, loader and kernel extend while booting.
    pub rtmr: [[u8; 48]; 4],
    /// What the guest asked to have signed.
    pub report_data: [u8; 64],
    /// Service TDs that were bound to the guest at its creation, such as a migration TD: zero for Cella. TDX 1.5.
    pub mr_service_td: [u8; 48],
    /// Service TDs that are bound to it now: zero for Cella. TDX 1.5, extended.
    pub current_service_td: [u8; 48],
}

/// Lengths of the three forms.
pub(super) const LEN_10: usize = 584;
pub(super) const LEN_15: usize = 648;
pub(super) const LEN_15_EX: usize = 885;

impl TdReport {
    /// Reads one of the three forms, known by its length.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        if ![LEN_10, LEN_15, LEN_15_EX].contains(&bytes.len()) {
            return None;
        }
        let mut at = Reader(bytes);
        let mut report = Self {
            tee_tcb_svn: at.array()?,
            mr_seam: at.array()?,
            mr_signer_seam: at.array()?,
            seam_attributes: at.array()?,
            attributes: at.u64()?,
            xfam: at.u64()?,
            mrtd: at.array()?,
            mr_config_id: at.array()?,
            mr_owner: at.array()?,
            mr_owner_config: at.array()?,
            rtmr: [at.array()?, at.array()?, at.array()?, at.array()?],
            report_data: at.array()?,
            tee_tcb_svn2: None,
            mr_service_td: [0; 48],
            current_service_td: [0; 48],
        };
        if bytes.len() >= LEN_15 {
            report.tee_tcb_svn2 = Some(at.array()?);
            report.mr_service_td = at.array()?;
        }
        if bytes.len() == LEN_15_EX {
            let _vm_index: [u8; 1] = at.array()?;
            let _td_id_and_device_info: [u8; 80] = at.array()?;
            let _initial_service_td_and_attributes: [u8; 56] = at.array()?;
            let _initial_tcb: [u8; 44] = at.array()?;
            report.current_service_td = at.array()?;
            let _current_service_td_attributes: [u8; 8] = at.array()?;
        }
        at.is_empty().then_some(report)
    }
}

impl std::fmt::Debug for TdReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TdReport")
            .field("tee_tcb_svn", &Hex(self.tee_tcb_svn))
            .field("attributes", &format_args!("{:#x}", self.attributes))
            .field("mrtd", &Hex(self.mrtd))
            .field("rtmr", &self.rtmr.map(Hex))
            .field("mr_config_id", &Hex(self.mr_config_id))
            .finish_non_exhaustive()
    }
}
