//! What a simulated report says.

use super::ChipSpec;
use crate::snp::{Cpuid, POLICY_RESERVED_ONE, POLICY_SMT, SIGNED_LEN, TcbVersion};

/// Contents of a report. [`Claims::new`] makes those of a good one; tests change what they want refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claims {
    /// Report version.
    pub version: u32,
    /// Guest policy.
    pub policy: u64,
    /// Privilege level.
    pub vmpl: u32,
    /// The guest's challenge.
    pub report_data: [u8; 64],
    /// Launch digest.
    pub measurement: [u8; 48],
    /// Bound to the guest at launch.
    pub host_data: [u8; 32],
    /// Processor. Left out of version 2.
    pub cpuid: Cpuid,
    /// TCB, in the layout of Genoa; `None`: what the VCEK is certified for.
    pub tcb: Option<TcbVersion>,
    /// Chip; `None`: the one that the VCEK is certified for.
    pub chip_id: Option<[u8; 64]>,
}

impl Claims {
    /// A version 3 report of a Genoa at VMPL 0, with policy 0x30000: SMT allowed, no debugging, no migration.
    pub fn new(report_data: [u8; 64], measurement: [u8; 48], host_data: [u8; 32]) -> Self {
        Self {
            version: 3,
            policy: POLICY_RESERVED_ONE | POLICY_SMT,
            vmpl: 0,
            report_data,
            measurement,
            host_data,
            cpuid: Cpuid {
                family: 0x19,
                model: 0x11,
                stepping: 1,
            },
            tcb: None,
            chip_id: None,
        }
    }

    /// The signed part of the report.
    pub(super) fn encode(&self, chip: &ChipSpec) -> Vec<u8> {
        let TcbVersion {
            fmc: _,
            bootloader,
            tee,
            snp,
            microcode,
        } = self.tcb.unwrap_or(chip.tcb);
        let tcb = [bootloader, tee, 0, 0, 0, 0, snp, microcode];
        let firmware = [55, 1, 0, 0];
        let cpuid = if self.version >= 3 {
            [self.cpuid.family, self.cpuid.model, self.cpuid.stepping]
        } else {
            [0; 3]
        };
        let mut out = Writer(Vec::with_capacity(crate::snp::REPORT_LEN));
        out.put(&self.version.to_le_bytes())
            .zeros(4)
            .put(&self.policy.to_le_bytes());
        out.zeros(32); // family id, image id
        out.put(&self.vmpl.to_le_bytes()).put(&1u32.to_le_bytes()).put(&tcb);
        out.put(&1u64.to_le_bytes()); // platform info: SMT is on
        out.zeros(8); // signed by the VCEK
        out.put(&self.report_data).put(&self.measurement).put(&self.host_data);
        out.zeros(96).zeros(32).put(&[0xff; 32]); // no id block; no report id; no migration agent
        out.put(&tcb).put(&cpuid).zeros(21);
        out.put(&self.chip_id.unwrap_or(chip.chip_id));
        out.put(&tcb).put(&firmware).put(&firmware).put(&tcb);
        out.0.resize(SIGNED_LEN, 0);
        out.0
    }
}

/// Appends fields.
struct Writer(Vec<u8>);

impl Writer {
    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn zeros(&mut self, count: usize) -> &mut Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }
}
