//! Release rules: which guests may have which resource.
//!
//! A rule is an allow-list. What it does not name is refused, an empty list matches nothing, and a resource without a
//! rule is released to nobody. Checking is pure and says which condition failed first.

use std::time::Duration;

use cella_attest::Verified;
use cella_attest::conditions::{ConditionError, List, Lookup, MeasurementList, SnpConditions, TdxConditions};
use cella_attest::reference::Measured;
use cella_attest::snp::{Product, TcbVersion};
use serde::{Deserialize, Serialize};

use crate::facts::{Facts, Guest};

/// Most digests in one list.
const MAX_DIGESTS: usize = 256;
/// The list of SEV-SNP's launch digests.
const LAUNCH_DIGESTS: &str = "launch-digests";

/// Who may have a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RuleFile", into = "RuleFile")]
pub struct Rule {
    launch_digests: MeasurementList,
    policy_digests: Vec<[u8; 32]>,
    allow_simulated: bool,
    platform: SnpConditions,
    tdx: Option<TdxConditions>,
}

impl Rule {
    /// Reads the JSON form.
    pub fn from_json(json: &[u8]) -> Result<Self, RuleError> {
        let file: RuleFile = serde_json::from_slice(json).map_err(|source| RuleError::Syntax { source })?;
        file.try_into()
    }

    /// Whether a guest with these facts may have the resource at `now`, since the Unix epoch; else the first condition that it fails. `references`
    /// has the values of the names in it.
    pub fn check(&self, facts: &Facts, now: Duration, references: &dyn Lookup) -> Result<(), Mismatch> {
        if facts.simulated() && !self.allow_simulated {
            return Err(Mismatch::Simulated);
        }
        match &facts.guest {
            Guest::Snp(snp) => self.check_snp(snp, facts, references),
            Guest::Tdx(td) => {
                let conditions = self.tdx.as_ref().ok_or(Mismatch::Tdx)?;
                self.check_policy(facts)?;
                conditions.check(td, now, references).map_err(Mismatch::Platform)
            }
        }
    }

    fn check_snp(&self, snp: &Verified, facts: &Facts, references: &dyn Lookup) -> Result<(), Mismatch> {
        if snp.product == Product::Milan && !self.platform.allow_milan {
            return Err(Mismatch::Milan);
        }
        let measured = Measured::SnpLaunchDigest;
        let listed = self
            .launch_digests
            .check(LAUNCH_DIGESTS, &snp.measurement, measured, references);
        listed.map_err(|error| match error {
            ConditionError::NotListed { .. } => Mismatch::Measurement,
            error => Mismatch::Platform(error),
        })?;
        self.check_policy(facts)?;
        let minimum = self.platform.minimum_tcb.as_ref();
        if let Some(part) = minimum.and_then(|minimum| snp.tcb.below(minimum)) {
            return Err(Mismatch::Tcb { part });
        }
        self.platform.check(snp).map_err(Mismatch::Platform)
    }

    fn check_policy(&self, facts: &Facts) -> Result<(), Mismatch> {
        if self.policy_digests.contains(&facts.initdata) {
            Ok(())
        } else {
            Err(Mismatch::Policy)
        }
    }
}

/// Why a rule does not release its resource to a guest. The text goes to the guest: it names the class of the cause
/// and nothing of the rule's contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Mismatch {
    /// Development evidence, real resource.
    #[error("simulated evidence is not allowed by the rule")]
    Simulated,
    /// A rule for SEV-SNP guests only.
    #[error("TDX guests are not in the rule")]
    Tdx,
    /// Milan's attestation keys can be extracted in software.
    #[error("product Milan is not allowed by the rule")]
    Milan,
    /// Another guest image, firmware, command line or CPU count.
    #[error("measurement not in the rule")]
    Measurement,
    /// Another workload policy.
    #[error("initdata digest not in the rule")]
    Policy,
    /// Old platform firmware.
    #[error("TCB below minimum: {part}")]
    Tcb {
        /// Which SPL.
        part: &'static str,
    },
    /// Another condition on the platform.
    #[error("{0}")]
    Platform(ConditionError),
}

/// A rule as JSON, with digests as hex.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RuleFile {
    launch_digests: Vec<String>,
    policy_digests: Vec<String>,
    #[serde(default)]
    minimum_tcb: Option<TcbVersion>,
    #[serde(default)]
    allow_simulated: bool,
    #[serde(default)]
    allow_milan: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    refuse_vlek: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    refuse_smt: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    single_socket: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    minimum_abi: (u8, u8),
    #[serde(default, skip_serializing_if = "is_default")]
    alias_check: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    ciphertext_hiding: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    mitigations: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    chip_ids: Option<List<64>>,
    #[serde(default, skip_serializing_if = "is_default")]
    tdx: Option<TdxConditions>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl TryFrom<RuleFile> for Rule {
    type Error = RuleError;

    fn try_from(file: RuleFile) -> Result<Self, RuleError> {
        Ok(Self {
            launch_digests: measurements(&file.launch_digests)?,
            policy_digests: digests("policy-digests", &file.policy_digests)?,
            allow_simulated: file.allow_simulated,
            platform: SnpConditions {
                minimum_tcb: file.minimum_tcb,
                allow_milan: file.allow_milan,
                refuse_vlek: file.refuse_vlek,
                refuse_smt: file.refuse_smt,
                single_socket: file.single_socket,
                minimum_abi: file.minimum_abi,
                alias_check: file.alias_check,
                ciphertext_hiding: file.ciphertext_hiding,
                mitigations: file.mitigations,
                chip_ids: file.chip_ids,
            },
            tdx: file.tdx,
        })
    }
}

impl From<Rule> for RuleFile {
    fn from(rule: Rule) -> Self {
        Self {
            launch_digests: rule.launch_digests.texts(),
            policy_digests: rule.policy_digests.iter().map(hex::encode).collect(),
            minimum_tcb: rule.platform.minimum_tcb,
            allow_simulated: rule.allow_simulated,
            allow_milan: rule.platform.allow_milan,
            refuse_vlek: rule.platform.refuse_vlek,
            refuse_smt: rule.platform.refuse_smt,
            single_socket: rule.platform.single_socket,
            minimum_abi: rule.platform.minimum_abi,
            alias_check: rule.platform.alias_check,
            ciphertext_hiding: rule.platform.ciphertext_hiding,
            mitigations: rule.platform.mitigations,
            chip_ids: rule.platform.chip_ids,
            tdx: rule.tdx,
        }
    }
}

fn measurements(texts: &[String]) -> Result<MeasurementList, RuleError> {
    let list = LAUNCH_DIGESTS;
    if texts.len() > MAX_DIGESTS {
        return Err(RuleError::TooMany { list });
    }
    let parsed = MeasurementList::parse(texts).map_err(|index| RuleError::NotAMeasurement { list, index })?;
    let zero = |text: &String| text.bytes().all(|digit| digit == b'0');
    match texts.iter().position(zero) {
        Some(index) => Err(RuleError::Zero { list, index }),
        None => Ok(parsed),
    }
}

fn digests<const N: usize>(list: &'static str, texts: &[String]) -> Result<Vec<[u8; N]>, RuleError> {
    if texts.len() > MAX_DIGESTS {
        return Err(RuleError::TooMany { list });
    }
    let decode = |(index, text): (usize, &String)| {
        let mut digest = [0; N];
        hex::decode_to_slice(text, &mut digest).map_err(|_| RuleError::NotADigest {
            list,
            index,
            digits: 2 * N,
        })?;
        // A launch digest or policy digest of zeros is a placeholder that somebody forgot.
        if digest == [0; N] {
            Err(RuleError::Zero { list, index })
        } else {
            Ok(digest)
        }
    };
    texts.iter().enumerate().map(decode).collect()
}

/// The JSON is not a rule. Shown to the admin who sent it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// Not JSON, or a member unknown, missing or of the wrong type.
    #[error("not a rule: {source}")]
    Syntax {
        /// Where and why; serde's text names members and positions.
        source: serde_json::Error,
    },
    /// A list is too long.
    #[error("{list} has more than {MAX_DIGESTS} entries")]
    TooMany {
        /// Which list.
        list: &'static str,
    },
    /// Neither hex of the right length nor a name of reference values.
    #[error("{list}[{index}] is neither 96 hex digits nor reference:<name>")]
    NotAMeasurement {
        /// Which list.
        list: &'static str,
        /// Which entry, from 0.
        index: usize,
    },
    /// Not hex, or not the right length.
    #[error("{list}[{index}] is not {digits} hex digits")]
    NotADigest {
        /// Which list.
        list: &'static str,
        /// Which entry, from 0.
        index: usize,
        /// How many digits it must have.
        digits: usize,
    },
    /// All zeros.
    #[error("{list}[{index}] is all zeros")]
    Zero {
        /// Which list.
        list: &'static str,
        /// Which entry, from 0.
        index: usize,
    },
}

#[cfg(test)]
mod tests;
