//! A guest on a simulated TDX platform, and what the broker is told of that platform.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cella_attest::sim::{TdAuthority, TdJudgement};
use cella_attest::tdx::{Collateral, Roots, TdReport};
use cella_attest::{TdEvidence, td_launch_digest, trustee};
use cella_kbs::Config;
use cella_kbs::trust::{Collaterals, Trust};
use cella_kbs_client::TeeKey;
use cella_kbs_client::wire;
use cella_policy::initdata::{self, Algorithm};
use serde_json::{Value, json};

/// The platform whose root the broker knows.
pub(crate) static PLATFORM: LazyLock<TdAuthority> = LazyLock::new(|| TdAuthority::generate().unwrap());
/// A platform that nobody knows.
pub(crate) static STRANGER: LazyLock<TdAuthority> = LazyLock::new(|| TdAuthority::generate().unwrap());

/// When the collateral is issued: a second ago, for an hour.
static ISSUED: LazyLock<Duration> = LazyLock::new(|| {
    LazyLock::force(&PLATFORM);
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
});

pub(crate) fn up_to_date() -> TdJudgement {
    TdJudgement::up_to_date(*ISSUED)
}

pub(crate) fn collateral(judgement: &TdJudgement) -> Collateral {
    PLATFORM.collateral(judgement).unwrap()
}

/// The root of the platform: the last of the certificates that stand in every collateral.
fn root_pem() -> String {
    let chain = collateral(&up_to_date()).tcb_info_chain;
    let root = chain.rfind("-----BEGIN CERTIFICATE-----").unwrap();
    chain[root..].to_owned()
}

/// Trust in the platform, without files.
pub(crate) fn trust() -> Trust {
    Trust {
        roots: Roots::intel().with_simulated_pem(&root_pem()).unwrap(),
        collateral: Collaterals::new(vec![collateral(&up_to_date())]).unwrap(),
        ..Trust::default()
    }
}

/// A configuration that names the platform's root and this collateral.
pub(crate) fn configure(config: &mut Config, judgement: &TdJudgement) {
    let folder = config.state_dir.join("tdx");
    std::fs::create_dir_all(&folder).unwrap();
    let root = folder.join("root.pem");
    std::fs::write(&root, root_pem()).unwrap();
    std::fs::write(folder.join("platform.json"), collateral(judgement).to_json()).unwrap();
    config.tdx.simulated_root = Some(root);
    config.tdx.collateral = Some(folder);
}

/// The same for a platform that is up to date.
pub(crate) fn known(config: &mut Config) {
    configure(config, &up_to_date());
}

pub(crate) struct TdGuest {
    pub(crate) initdata: String,
    pub(crate) mrtd: [u8; 48],
    pub(crate) rtmr: [[u8; 48]; 4],
    pub(crate) key: TeeKey,
    pub(crate) platform: &'static TdAuthority,
    pub(crate) event_log: Option<Vec<u8>>,
    /// What to change in the report before it is signed.
    pub(crate) change: fn(&mut TdReport),
}

impl TdGuest {
    pub(crate) fn new() -> Self {
        Self {
            initdata: "algorithm = \"sha384\"\nversion = \"0.1.0\"\n[data]\n".to_owned(),
            mrtd: [0x5a; 48],
            rtmr: [[1; 48], [2; 48], [3; 48], [0; 48]],
            key: TeeKey::generate().unwrap(),
            platform: &PLATFORM,
            event_log: None,
            change: |_| {},
        }
    }

    pub(crate) fn changed(change: fn(&mut TdReport)) -> Self {
        Self { change, ..Self::new() }
    }

    pub(crate) fn policy_digest(&self) -> [u8; 32] {
        initdata::digests(self.initdata.as_bytes()).sha256
    }

    pub(crate) fn launch_digest(&self) -> [u8; 48] {
        let [_, rtmr1, rtmr2, rtmr3] = &self.rtmr;
        td_launch_digest(&self.mrtd, [rtmr1, rtmr2, rtmr3])
    }

    pub(crate) fn evidence(&self, report_data: [u8; 64]) -> Value {
        let mr_config_id = initdata::digests(self.initdata.as_bytes()).field(Algorithm::Sha384);
        let mut report = TdAuthority::report(report_data, self.mrtd, self.rtmr, mr_config_id);
        (self.change)(&mut report);
        let evidence = TdEvidence {
            quote: self.platform.quote(&report).unwrap(),
            event_log: self.event_log.clone(),
        };
        trustee::td_to_json(&evidence).unwrap()
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

    /// A rule that names this guest.
    pub(crate) fn rule(&self) -> Value {
        let [_, rtmr1, rtmr2, _] = self.rtmr.map(hex::encode);
        json!({
            "launch-digests": [],
            "policy-digests": [hex::encode(self.policy_digest())],
            "allow-simulated": true,
            "tdx": {"mrtd": [hex::encode(self.mrtd)], "rtmr0": "any", "rtmr1": [rtmr1], "rtmr2": [rtmr2]},
        })
    }
}
