//! What a token says of an SEV-SNP guest: the names of Trustee's claims, and some more.

use cella_attest::Verified;
use cella_attest::snp::{Mitigations, POLICY_DEBUG, Product, SigningKey, TcbVersion};
use serde::{Deserialize, Serialize};

use super::{JwsError, TokenError, bytes};

#[derive(Serialize, Deserialize)]
pub(super) struct SnpClaims {
    measurement: String,
    product: String,
    chip_id: String,
    policy: u64,
    policy_debug_allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    reported_tcb_fmc: Option<u8>,
    reported_tcb_bootloader: u8,
    reported_tcb_tee: u8,
    reported_tcb_snp: u8,
    reported_tcb_microcode: u8,
    launch_tcb: TcbVersion,
    report_version: u32,
    signing_key: String,
    platform_info: u64,
    /// At launch, and now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    mitigations: Option<(u64, u64)>,
    simulated: bool,
}

impl SnpClaims {
    pub(super) fn new(snp: &Verified) -> Self {
        Self {
            measurement: hex::encode(snp.measurement),
            product: snp.product.to_string(),
            chip_id: hex::encode(snp.chip_id),
            policy: snp.policy,
            policy_debug_allowed: snp.policy & POLICY_DEBUG != 0,
            reported_tcb_fmc: snp.tcb.fmc,
            reported_tcb_bootloader: snp.tcb.bootloader,
            reported_tcb_tee: snp.tcb.tee,
            reported_tcb_snp: snp.tcb.snp,
            reported_tcb_microcode: snp.tcb.microcode,
            launch_tcb: snp.launch_tcb,
            report_version: snp.version,
            signing_key: key_name(snp.signing_key).to_owned(),
            platform_info: snp.platform_info,
            mitigations: snp.mitigations.map(|vectors| (vectors.launch, vectors.current)),
            simulated: snp.simulated,
        }
    }

    /// The verifier's form of the same.
    pub(super) fn verified(self, simulated: bool, host_data: [u8; 32]) -> Result<Verified, TokenError> {
        Ok(Verified {
            simulated,
            product: product(&self.product)?,
            measurement: bytes(&self.measurement)?,
            host_data,
            report_data: [0; 64],
            tcb: TcbVersion {
                fmc: self.reported_tcb_fmc,
                bootloader: self.reported_tcb_bootloader,
                tee: self.reported_tcb_tee,
                snp: self.reported_tcb_snp,
                microcode: self.reported_tcb_microcode,
            },
            chip_id: bytes(&self.chip_id)?,
            policy: self.policy,
            version: self.report_version,
            signing_key: signing_key(&self.signing_key)?,
            launch_tcb: self.launch_tcb,
            platform_info: self.platform_info,
            mitigations: self
                .mitigations
                .map(|(launch, current)| Mitigations { launch, current }),
        })
    }
}

fn product(text: &str) -> Result<Product, TokenError> {
    [Product::Milan, Product::Genoa, Product::Turin]
        .into_iter()
        .find(|product| product.to_string() == text)
        .ok_or(TokenError::Token(JwsError::Malformed))
}

fn key_name(key: SigningKey) -> &'static str {
    match key {
        SigningKey::Vcek => "VCEK",
        SigningKey::Vlek => "VLEK",
    }
}

fn signing_key(text: &str) -> Result<SigningKey, TokenError> {
    [SigningKey::Vcek, SigningKey::Vlek]
        .into_iter()
        .find(|key| key_name(*key) == text)
        .ok_or(TokenError::Token(JwsError::Malformed))
}
