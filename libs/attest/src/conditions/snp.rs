//! Conditions on SEV-SNP platforms.

use serde::{Deserialize, Serialize};

use super::digests::{ConditionError, List};
use crate::{
    snp::{
        PLATFORM_ALIAS_CHECK, PLATFORM_CIPHERTEXT_HIDING, POLICY_SINGLE_SOCKET, POLICY_SMT, TcbVersion, VerifyOptions,
    },
    verify::Verified,
};

/// What an owner demands of an SEV-SNP platform. Whatever it says, debugging and migration are refused, and so is Milan unless it is allowed.
///
/// JSON in kebab-case, every member optional: `{"minimum-tcb":{"bootloader":10,"tee":0,"snp":23,"microcode":84},"chip-ids":["<128 hex>"]}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct SnpConditions {
    /// Lowest TCB, component by component, now and at launch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_tcb: Option<TcbVersion>,
    /// Accept Milan, whose keys can be extracted by software.
    pub allow_milan: bool,
    /// Refuse reports that a cloud provider's key signed, which names no chip.
    pub refuse_vlek: bool,
    /// Refuse guests that may run beside another guest's thread on one core.
    pub refuse_smt: bool,
    /// Demand that the guest runs on one socket.
    pub single_socket: bool,
    /// Lowest ABI, major and minor, that the guest policy may allow.
    pub minimum_abi: (u8, u8),
    /// Demand that the firmware found no aliases in memory.
    pub alias_check: bool,
    /// Demand that the host cannot read the ciphertext of guests' memory.
    pub ciphertext_hiding: bool,
    /// Mitigations of the firmware, as bits, that must be in effect. Reports before version 5 have none.
    pub mitigations: u64,
    /// Chips that are accepted; without a list any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chip_ids: Option<List<64>>,
}

impl SnpConditions {
    /// Whether a guest whose evidence was verified meets the conditions; else the class of the first that it does not.
    ///
    /// # Errors
    /// [`ConditionError::Refused`].
    pub fn check(&self, guest: &Verified) -> Result<(), ConditionError> {
        let mut platform = 0;
        if self.alias_check {
            platform |= PLATFORM_ALIAS_CHECK;
        }
        if self.ciphertext_hiding {
            platform |= PLATFORM_CIPHERTEXT_HIDING;
        }
        let options = VerifyOptions {
            allow_milan: self.allow_milan,
            allow_vlek: !self.refuse_vlek,
            // Whether version 2 is looked at is the verifier's to say.
            min_version: 0,
            minimum_tcb: self.minimum_tcb,
            forbidden_policy: if self.refuse_smt { POLICY_SMT } else { 0 },
            required_policy: if self.single_socket { POLICY_SINGLE_SOCKET } else { 0 },
            minimum_abi: self.minimum_abi,
            required_platform: platform,
            required_mitigations: self.mitigations,
            chip_ids: self.chip_ids.as_ref().map(|list| list.0.clone()),
            ..VerifyOptions::default()
        };
        options
            .judge(guest)
            .map_err(|error| ConditionError::Refused(error.class()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snp::{Mitigations, Product, SigningKey};

    fn guest() -> Verified {
        let tcb = TcbVersion {
            fmc: None,
            bootloader: 10,
            tee: 0,
            snp: 23,
            microcode: 84,
        };
        Verified {
            simulated: false,
            product: Product::Genoa,
            measurement: [1; 48],
            host_data: [2; 32],
            report_data: [3; 64],
            tcb,
            chip_id: [4; 64],
            policy: 0x3_0137,
            version: 5,
            signing_key: SigningKey::Vcek,
            launch_tcb: tcb,
            platform_info: 1,
            mitigations: Some(Mitigations { launch: 1, current: 3 }),
        }
    }

    fn check(json: &str) -> Result<(), ConditionError> {
        serde_json::from_str::<SnpConditions>(json).unwrap().check(&guest())
    }

    #[test]
    fn each_condition_alone() {
        assert_eq!(check("{}"), Ok(()));
        let chip = "04".repeat(64);
        for (json, refused) in [
            (
                r#"{"minimum-tcb":{"bootloader":10,"tee":0,"snp":23,"microcode":84}}"#.to_owned(),
                None,
            ),
            (
                r#"{"minimum-tcb":{"bootloader":10,"tee":0,"snp":24,"microcode":84}}"#.to_owned(),
                Some("platform TCB too old"),
            ),
            (r#"{"refuse-vlek":true}"#.to_owned(), None),
            (r#"{"refuse-smt":true}"#.to_owned(), Some("guest policy refused")),
            (r#"{"single-socket":true}"#.to_owned(), Some("guest policy refused")),
            (r#"{"minimum-abi":[1,55]}"#.to_owned(), None),
            (r#"{"minimum-abi":[1,56]}"#.to_owned(), Some("guest policy refused")),
            (
                r#"{"alias-check":true}"#.to_owned(),
                Some("platform configuration refused"),
            ),
            (
                r#"{"ciphertext-hiding":true}"#.to_owned(),
                Some("platform configuration refused"),
            ),
            (r#"{"mitigations":1}"#.to_owned(), None),
            (r#"{"mitigations":2}"#.to_owned(), Some("firmware mitigations missing")),
            (format!(r#"{{"chip-ids":["{chip}"]}}"#), None),
            (r#"{"chip-ids":[]}"#.to_owned(), Some("chip not allowed")),
        ] {
            assert_eq!(check(&json).err(), refused.map(ConditionError::Refused), "{json}");
        }
        let milan = Verified {
            product: Product::Milan,
            ..guest()
        };
        let refused = Err(ConditionError::Refused("processor not allowed"));
        assert_eq!(SnpConditions::default().check(&milan), refused);
    }

    #[test]
    fn the_form_is_strict_and_round_trips() {
        for json in [
            r#"{"allow-debug":true}"#,
            r#"{"chip-ids":["04"]}"#,
            r#"{"minimum-abi":[1]}"#,
            "[1]",
        ] {
            assert!(serde_json::from_str::<SnpConditions>(json).is_err(), "{json}");
        }
        let conditions = SnpConditions {
            chip_ids: Some(List(vec![[7; 64]])),
            single_socket: true,
            ..SnpConditions::default()
        };
        let json = serde_json::to_string(&conditions).unwrap();
        assert_eq!(serde_json::from_str::<SnpConditions>(&json).unwrap(), conditions);
    }
}
