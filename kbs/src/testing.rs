//! What unit tests of several modules need.

use cella_attest::Verified;
use cella_attest::snp::{Mitigations, Product, SigningKey, TcbVersion};
use cella_attest::tdx::{Platform, TcbStatus, VerifiedTd};
use cella_kbs_client::TeeKey;
use cella_kbs_client::wire::TeePubKey;
use ring::signature::Ed25519KeyPair;
use serde_json::Value;
use std::sync::OnceLock;
use std::time::Duration;

use crate::facts::{Facts, Guest};
use crate::jws;

fn tee_key() -> TeePubKey {
    static KEY: OnceLock<TeeKey> = OnceLock::new();
    KEY.get_or_init(|| TeeKey::generate().unwrap()).public()
}

/// Facts about the same SEV-SNP guest each time.
pub(crate) fn facts() -> Facts {
    snp_facts(|_| {})
}

/// The same, with something else verified.
pub(crate) fn snp_facts(change: impl FnOnce(&mut Verified)) -> Facts {
    let tcb = TcbVersion {
        fmc: None,
        bootloader: 3,
        tee: 0,
        snp: 20,
        microcode: 209,
    };
    let mut snp = Verified {
        simulated: true,
        product: Product::Genoa,
        measurement: [0xaa; 48],
        host_data: [0xbb; 32],
        report_data: [0; 64],
        tcb,
        chip_id: [0xcc; 64],
        policy: 0x30000,
        version: 5,
        signing_key: SigningKey::Vcek,
        launch_tcb: tcb,
        platform_info: 1,
        mitigations: Some(Mitigations { launch: 1, current: 3 }),
    };
    change(&mut snp);
    Facts::new(Guest::Snp(snp), [0xbb; 32], tee_key())
}

/// Facts about a TDX guest, with something else verified.
pub(crate) fn td_facts(change: impl FnOnce(&mut VerifiedTd)) -> Facts {
    let mut td = VerifiedTd {
        simulated: true,
        version: 4,
        mrtd: [1; 48],
        rtmr: [[2; 48], [3; 48], [4; 48], [0; 48]],
        mr_config_id: [0xbb; 48],
        report_data: [0; 64],
        attributes: 1 << 28,
        xfam: 0xe7,
        mr_seam: [7; 48],
        tee_tcb_svn: [8; 16],
        tee_tcb_svn2: None,
        platform: Platform {
            ppid: [9; 16],
            cpu_svn: [1; 16],
            pce_svn: 11,
            pce_id: [0; 2],
            fmspc: *b"FAMILY",
            instance_id: None,
            dynamic: None,
            cached_keys: Some(true),
            smt: Some(false),
        },
        status: TcbStatus::UpToDate,
        advisories: Vec::new(),
        tcb_date: Duration::from_secs(1_710_288_000),
        evaluation: 17,
        collateral_issued: Duration::from_secs(1_790_000_000),
        replayed: false,
    };
    change(&mut td);
    Facts::new(Guest::Tdx(td), [0xbb; 32], tee_key())
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
