//! What the broker knows about a guest whose evidence it has verified: the input of every rule.

use cella_attest::Verified;
use cella_attest::snp::{Mitigations, Product, SigningKey, TcbVersion};
use cella_kbs_client::wire::TeePubKey;

use crate::workload::Workload;

/// Proven facts about one guest.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Facts {
    /// Whether the evidence came from a development root, so proves nothing about hardware.
    pub simulated: bool,
    /// Product line of the CPU.
    pub product: Product,
    /// Launch digest.
    pub measurement: [u8; 48],
    /// HOST_DATA of the launch, which is bound to the initdata document.
    pub host_data: [u8; 32],
    /// SHA-256 of the initdata document.
    pub initdata: [u8; 32],
    /// Reported TCB.
    pub tcb: TcbVersion,
    /// Chip identity, zero when the platform masks it.
    pub chip_id: [u8; 64],
    /// Guest policy bits.
    pub guest_policy: u64,
    /// Version of the report.
    pub report_version: u32,
    /// Kind of key that signed it.
    pub signing_key: SigningKey,
    /// TCB when the guest was launched.
    pub launch_tcb: TcbVersion,
    /// Platform information bits.
    pub platform_info: u64,
    /// Firmware mitigations, where the report has them.
    pub mitigations: Option<Mitigations>,
    /// Versions in the guest's measured policy.
    pub workload: Workload,
    /// The guest's public key, to which resources are encrypted.
    pub tee_key: TeePubKey,
}

impl Facts {
    /// Puts together what the verifier found and what the guest bound to it.
    pub(crate) fn new(verified: &Verified, initdata: [u8; 32], tee_key: TeePubKey) -> Self {
        Self {
            simulated: verified.simulated,
            product: verified.product,
            measurement: verified.measurement,
            host_data: verified.host_data,
            initdata,
            tcb: verified.tcb,
            chip_id: verified.chip_id,
            guest_policy: verified.policy,
            report_version: verified.version,
            signing_key: verified.signing_key,
            launch_tcb: verified.launch_tcb,
            platform_info: verified.platform_info,
            mitigations: verified.mitigations,
            workload: Workload::default(),
            tee_key,
        }
    }

    /// The verifier's form of the same facts, for conditions on the platform. The challenge is not among them: it was compared.
    pub(crate) fn verified(&self) -> Verified {
        Verified {
            simulated: self.simulated,
            product: self.product,
            measurement: self.measurement,
            host_data: self.host_data,
            report_data: [0; 64],
            tcb: self.tcb,
            chip_id: self.chip_id,
            policy: self.guest_policy,
            version: self.report_version,
            signing_key: self.signing_key,
            launch_tcb: self.launch_tcb,
            platform_info: self.platform_info,
            mitigations: self.mitigations,
        }
    }
}
