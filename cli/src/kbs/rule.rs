//! Release rules, from a file or from flags.

use std::path::PathBuf;

use cella_attest::reference::{ReferenceName, ReferenceNameError};
use serde_json::{Map, Value, json};

use crate::files::{self, FileError};

/// The conditions of a key.
#[derive(Debug, clap::Args)]
pub(crate) struct RuleArgs {
    /// A file with the whole rule, JSON, in place of the flags below.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["launch_digest", "policy_digest", "minimum_tcb", "allow_simulated", "allow_milan"])]
    rule: Option<PathBuf>,
    /// A launch digest that may have the key: 96 hexadecimal digits, as cellactl measure prints it, or reference:NAME. Repeat for more.
    #[arg(long, value_name = "HEX", value_parser = measurement)]
    launch_digest: Vec<String>,
    /// A policy that may have the key: 64 hexadecimal digits, as cellactl policy digest prints it. Repeat for more.
    #[arg(long, value_name = "HEX", value_parser = digest::<32>)]
    policy_digest: Vec<String>,
    /// Oldest firmware that may have the key: bootloader=3,tee=0,snp=20,microcode=209 (and fmc=0 on Turin).
    #[arg(long, value_name = "PARTS", value_parser = tcb)]
    minimum_tcb: Option<Value>,
    /// Release to simulated platforms too: they protect nothing from whoever owns the machine.
    #[arg(long)]
    allow_simulated: bool,
    /// Release to Milan processors too, whose keys are known to have been extracted.
    #[arg(long)]
    allow_milan: bool,
}

impl RuleArgs {
    /// The rule as the broker takes it. The broker checks it again; unknown members are its to refuse.
    pub(super) fn json(&self) -> Result<Vec<u8>, RuleError> {
        if let Some(path) = &self.rule {
            let bytes = files::read(path, MAX_RULE)?;
            let parsed: Map<String, Value> = serde_json::from_slice(&bytes).map_err(|source| RuleError::Json {
                path: path.clone(),
                source,
            })?;
            return encode(&Value::Object(parsed));
        }
        for (flag, list) in [
            ("--launch-digest", &self.launch_digest),
            ("--policy-digest", &self.policy_digest),
        ] {
            if list.is_empty() {
                return Err(RuleError::Missing { flag });
            }
        }
        encode(&json!({
            "launch-digests": self.launch_digest,
            "policy-digests": self.policy_digest,
            "minimum-tcb": self.minimum_tcb,
            "allow-simulated": self.allow_simulated,
            "allow-milan": self.allow_milan,
        }))
    }
}

fn encode(rule: &Value) -> Result<Vec<u8>, RuleError> {
    serde_json::to_vec(rule).map_err(|source| RuleError::Encode { source })
}

/// Lower-case digits, or the name of reference values.
fn measurement(text: &str) -> Result<String, String> {
    match text.strip_prefix("reference:") {
        Some(name) => {
            let name: ReferenceName = name.parse().map_err(|error: ReferenceNameError| error.to_string())?;
            Ok(format!("reference:{name}"))
        }
        None => digest::<48>(text),
    }
}

/// Lower-case digits of `N` bytes.
fn digest<const N: usize>(text: &str) -> Result<String, String> {
    match hex::decode(text) {
        Ok(bytes) if bytes.len() == N => Ok(hex::encode(bytes)),
        _ => Err(format!("must be {} hexadecimal digits", 2 * N)),
    }
}

fn tcb(text: &str) -> Result<Value, String> {
    let mut parts = Map::new();
    for part in text.split(',') {
        let (name, number) = part.split_once('=').ok_or("must be name=number, joined by commas")?;
        let number: u8 = number.parse().map_err(|_| format!("{name} must be 0 to 255"))?;
        if !TCB_PARTS.contains(&name) {
            return Err(format!("{name:?} is not one of {}", TCB_PARTS.join(", ")));
        }
        if parts.insert(name.to_owned(), number.into()).is_some() {
            return Err(format!("{name} appears twice"));
        }
    }
    match TCB_PARTS
        .iter()
        .find(|name| **name != "fmc" && !parts.contains_key(**name))
    {
        Some(missing) => Err(format!("{missing} is missing")),
        None => Ok(Value::Object(parts)),
    }
}

/// Why there is no rule.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RuleError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is no JSON object.
    #[error("{} is not a JSON object", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    /// A rule without digests releases nothing.
    #[error("the rule would release to nobody: name at least one {flag}, or give the whole rule with --rule FILE")]
    Missing { flag: &'static str },
    /// It could not be written.
    #[error("writing the rule")]
    Encode { source: serde_json::Error },
}

/// As the broker's.
const MAX_RULE: u64 = 64 * 1024;
const TCB_PARTS: [&str; 5] = ["fmc", "bootloader", "tee", "snp", "microcode"];

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Rule {
        #[command(flatten)]
        args: RuleArgs,
    }

    fn parse(args: &[&str]) -> Result<RuleArgs, clap::Error> {
        Rule::try_parse_from(["rule"].iter().chain(args)).map(|rule| rule.args)
    }

    #[test]
    fn flags_become_a_rule() {
        let (launch, policy) = ("AB".repeat(48), "cd".repeat(32));
        let tcb = "bootloader=3,tee=0,snp=20,microcode=209";
        let args = parse(&[
            "--launch-digest",
            &launch,
            "--policy-digest",
            &policy,
            "--minimum-tcb",
            tcb,
            "--allow-simulated",
        ]);
        let rule: Value = serde_json::from_slice(&args.unwrap().json().unwrap()).unwrap();
        assert_eq!(
            rule,
            json!({
                "launch-digests": ["ab".repeat(48)], "policy-digests": [policy],
                "minimum-tcb": {"bootloader": 3, "tee": 0, "snp": 20, "microcode": 209},
                "allow-simulated": true, "allow-milan": false
            })
        );
    }

    #[test]
    fn files_are_taken_whole() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), br#"{"launch-digests":[]}"#).unwrap();
        let path = file.path().to_str().unwrap();
        assert_eq!(
            parse(&["--rule", path]).unwrap().json().unwrap(),
            br#"{"launch-digests":[]}"#
        );
        std::fs::write(file.path(), b"[]").unwrap();
        assert!(matches!(
            parse(&["--rule", path]).unwrap().json(),
            Err(RuleError::Json { .. })
        ));
        assert!(parse(&["--rule", path, "--allow-milan"]).is_err());
    }

    #[test]
    fn incomplete_rules_are_refused() {
        assert!(matches!(
            parse(&[]).unwrap().json(),
            Err(RuleError::Missing {
                flag: "--launch-digest"
            })
        ));
        for bad in ["ab", "reference:", "reference:a b", "guest"] {
            assert!(parse(&["--launch-digest", bad]).is_err(), "{bad}");
        }
        assert!(parse(&["--launch-digest", "reference:guest-1"]).is_ok());
        assert!(parse(&["--policy-digest", &"xy".repeat(32)]).is_err());
        for bad in [
            "snp=1",
            "bootloader=3,tee=0,snp=256,microcode=1",
            "x=1",
            "snp=1,snp=1",
            "snp",
        ] {
            assert!(parse(&["--minimum-tcb", bad]).is_err(), "{bad}");
        }
    }
}
