//! What unit tests of several modules need.

use cella_attest::snp::{Mitigations, Product, SigningKey, TcbVersion};
use cella_kbs_client::TeeKey;
use ring::signature::Ed25519KeyPair;
use serde_json::Value;
use std::sync::OnceLock;

use crate::facts::Facts;
use crate::jws;
use crate::workload::Workload;

/// Facts about the same guest each time.
pub(crate) fn facts() -> Facts {
    static KEY: OnceLock<TeeKey> = OnceLock::new();
    let tcb = TcbVersion {
        fmc: None,
        bootloader: 3,
        tee: 0,
        snp: 20,
        microcode: 209,
    };
    Facts {
        simulated: true,
        product: Product::Genoa,
        measurement: [0xaa; 48],
        host_data: [0xbb; 32],
        initdata: [0xbb; 32],
        tcb,
        chip_id: [0xcc; 64],
        guest_policy: 0x30000,
        report_version: 5,
        signing_key: SigningKey::Vcek,
        launch_tcb: tcb,
        platform_info: 1,
        mitigations: Some(Mitigations { launch: 1, current: 3 }),
        workload: Workload::default(),
        tee_key: KEY.get_or_init(|| TeeKey::generate().unwrap()).public(),
    }
}

/// An admin's key pair.
pub(crate) struct AdminKey(rcgen::KeyPair);

impl AdminKey {
    pub(crate) fn new() -> Self {
        Self(rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap())
    }

    pub(crate) fn public_pem(&self) -> String {
        self.0.public_key_pem()
    }

    pub(crate) fn private_pem(&self) -> String {
        self.0.serialize_pem()
    }

    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(self.0.serialized_der()).unwrap();
        let input = jws::signing_input(header, claims).unwrap();
        jws::join(&input, pair.sign(input.as_bytes()).as_ref())
    }
}
