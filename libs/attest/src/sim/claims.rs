//! What a simulated report says.

use super::ChipSpec;
use crate::snp::{
    Cpuid, Mitigations, PLATFORM_SMT, POLICY_RESERVED_ONE, POLICY_SMT, Product, SIGNED_LEN, SigningKey, TcbVersion,
};

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
    /// TCB; `None`: what the key is certified for.
    pub tcb: Option<TcbVersion>,
    /// TCB at launch; `None`: the same as now.
    pub launch_tcb: Option<TcbVersion>,
    /// Platform information.
    pub platform_info: u64,
    /// Mitigations: version 5.
    pub mitigations: Mitigations,
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
            launch_tcb: None,
            platform_info: PLATFORM_SMT,
            mitigations: Mitigations { launch: 0, current: 0 },
            chip_id: None,
        }
    }

    /// The signed part of the report.
    pub(super) fn encode(&self, chip: &ChipSpec) -> Vec<u8> {
        let now = self.tcb.unwrap_or(chip.tcb);
        let tcb = encode_tcb(now, chip.product);
        let launch_tcb = encode_tcb(self.launch_tcb.unwrap_or(now), chip.product);
        let (key_info, chip_id): (u32, _) = match chip.signing_key {
            SigningKey::Vcek => (0, chip.chip_id),
            SigningKey::Vlek => (1 << 2, [0; 64]),
        };
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
        out.put(&self.platform_info.to_le_bytes());
        out.put(&key_info.to_le_bytes()).zeros(4);
        out.put(&self.report_data).put(&self.measurement).put(&self.host_data);
        out.zeros(96).zeros(32).put(&[0xff; 32]); // no id block; no report id; no migration agent
        out.put(&tcb).put(&cpuid).zeros(21);
        out.put(&self.chip_id.unwrap_or(chip_id));
        out.put(&tcb).put(&firmware).put(&firmware).put(&launch_tcb);
        if self.version >= 5 {
            let Mitigations { launch, current } = self.mitigations;
            out.put(&launch.to_le_bytes()).put(&current.to_le_bytes());
        }
        out.0.resize(SIGNED_LEN, 0);
        out.0
    }
}

/// The eight bytes of a TCB in a product's layout.
fn encode_tcb(tcb: TcbVersion, product: Product) -> [u8; 8] {
    let TcbVersion {
        fmc,
        bootloader,
        tee,
        snp,
        microcode,
    } = tcb;
    match product {
        Product::Milan | Product::Genoa => [bootloader, tee, 0, 0, 0, 0, snp, microcode],
        Product::Turin => [fmc.unwrap_or(0), bootloader, tee, snp, 0, 0, 0, microcode],
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
