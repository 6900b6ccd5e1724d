//! A guest on the simulated platform: what it was launched with, and the evidence that it gives.

use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cella_attest::sim::{Authority, Chip, ChipSpec, Claims};
use cella_attest::{Evidence, trustee};
use cella_kbs_client::TeeKey;
use cella_kbs_client::wire;
use cella_policy::initdata;
use serde_json::{Value, json};

/// The platform whose root the broker knows. Making its keys takes a while: once for all tests.
pub(crate) fn platform() -> &'static Chip {
    static CHIP: OnceLock<Chip> = OnceLock::new();
    CHIP.get_or_init(|| authority().chip(&ChipSpec::random()).unwrap())
}

/// What is above that platform.
pub(crate) fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| Authority::generate().unwrap())
}

/// A platform that nobody knows.
pub(crate) fn stranger() -> &'static Chip {
    static CHIP: OnceLock<Chip> = OnceLock::new();
    CHIP.get_or_init(|| Authority::generate().unwrap().chip(&ChipSpec::random()).unwrap())
}

pub(crate) fn ark_pem() -> String {
    platform().ark_pem().unwrap()
}

pub(crate) struct Guest {
    pub(crate) initdata: String,
    pub(crate) measurement: [u8; 48],
    pub(crate) key: TeeKey,
    pub(crate) chip: &'static Chip,
    /// What to change in the report before it is signed.
    pub(crate) change: fn(&mut Claims),
}

impl Guest {
    pub(crate) fn new() -> Self {
        Self {
            initdata: "algorithm = \"sha256\"\nversion = \"0.1.0\"\n[data]\n".to_owned(),
            measurement: [0x5a; 48],
            key: TeeKey::generate().unwrap(),
            chip: platform(),
            change: |_| {},
        }
    }

    pub(crate) fn changed(change: fn(&mut Claims)) -> Self {
        Self { change, ..Self::new() }
    }

    pub(crate) fn policy_digest(&self) -> [u8; 32] {
        initdata::digests(self.initdata.as_bytes()).sha256
    }

    pub(crate) fn evidence(&self, report_data: [u8; 64]) -> Evidence {
        let mut claims = Claims::new(report_data, self.measurement, self.policy_digest());
        (self.change)(&mut claims);
        self.chip.issue(&claims).unwrap()
    }

    /// The body of `/attest` for a nonce.
    pub(crate) fn attestation(&self, nonce: &str) -> Value {
        let key = self.key.public();
        let evidence = self.evidence(wire::report_data(nonce, &key, ""));
        json!({
            "init-data": {"format": "toml", "body": self.initdata},
            "runtime-data": {"nonce": nonce, "tee-pubkey": key},
            "tee-evidence": {"primary_evidence": evidence, "additional_evidence": ""},
        })
    }

    /// The same in the form of Trustee and its clients.
    pub(crate) fn attestation_as_trustee(&self, nonce: &str) -> Value {
        let mut body = self.attestation(nonce);
        let evidence = self.evidence(wire::report_data(nonce, &self.key.public(), ""));
        body["tee-evidence"]["primary_evidence"] = trustee::to_json(&evidence).unwrap();
        body
    }

    /// A rule that names this guest.
    pub(crate) fn rule(&self) -> Value {
        json!({
            "launch-digests": [hex::encode(self.measurement)],
            "policy-digests": [hex::encode(self.policy_digest())],
            "allow-simulated": true,
        })
    }
}

/// Changes one byte of the report inside a body of `/attest`.
pub(crate) fn flip_report_byte(body: &mut Value, index: usize) {
    let report = &mut body["tee-evidence"]["primary_evidence"]["report"];
    let mut bytes = STANDARD.decode(report.as_str().unwrap()).unwrap();
    bytes[index] ^= 1;
    *report = STANDARD.encode(bytes).into();
}
