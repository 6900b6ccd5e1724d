//! What a guest's measured policy says that it runs, as far as versions are concerned.
//!
//! Read from the initdata document only after its digest was found in the evidence (threat T9): then it is the document
//! that the guest was launched with, and the agent holds itself to it. A document without `cella.toml` is another
//! system's and says nothing here; one whose `cella.toml` this broker cannot read is refused, since a floor could not be
//! compared with it.

use std::collections::BTreeMap;

use cella_policy::Policy;
use cella_policy::initdata::POLICY_KEY;
use serde::{Deserialize, Serialize};

/// Most bytes that names of models take together: they go into tokens, which travel in a header.
const MAX_NAMES: usize = 4096;

/// Versions in a measured policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Workload {
    /// The policy itself, if it has a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Revision>,
    /// Models, with their versions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, u64>,
}

/// A policy's name and revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Revision {
    /// Its name.
    pub name: String,
    /// Its revision.
    pub revision: u64,
}

impl Workload {
    /// Reads a document that the evidence vouches for. Pure; linear in its length.
    pub fn read(document: &str) -> Result<Self, WorkloadError> {
        let Ok(document) = document.parse::<toml::Table>() else {
            return Ok(Self::default());
        };
        let policy = document
            .get("data")
            .and_then(|data| data.get(POLICY_KEY))
            .and_then(toml::Value::as_str);
        let Some(policy) = policy else {
            return Ok(Self::default());
        };
        let policy = Policy::parse(policy).map_err(|_| WorkloadError::Policy)?;
        let models: BTreeMap<_, _> = policy
            .models()
            .iter()
            .map(|model| (model.name.clone(), model.version))
            .collect();
        if models.keys().map(String::len).sum::<usize>() > MAX_NAMES {
            return Err(WorkloadError::TooLarge);
        }
        Ok(Self {
            policy: policy.revision().map(|(name, revision)| Revision {
                name: name.to_owned(),
                revision,
            }),
            models,
        })
    }
}

/// A measured policy whose versions cannot be told. The texts go to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkloadError {
    /// Another version of the policy's form, or not a policy.
    #[error("the policy in the initdata cannot be read by this broker")]
    Policy,
    /// More names than a token can carry.
    #[error("the names of the policy's models are longer than {MAX_NAMES} bytes together")]
    TooLarge,
}

#[cfg(test)]
mod tests {
    use super::*;
    use cella_policy::initdata::{Algorithm, write};

    const POLICY: &str = include_str!("../../libs/policy/src/policy/example.toml");

    fn document(policy: &str) -> String {
        write(policy, Algorithm::Sha256)
    }

    #[test]
    fn models_and_revision() {
        let plain = Workload::read(&document(POLICY)).unwrap();
        assert_eq!(plain.models, BTreeMap::from([("models/demo".to_owned(), 1)]));
        assert_eq!(plain.policy, None);
        let named = POLICY.replacen("version = 1", "version = 1\nname = \"demo\"\nrevision = 7", 1);
        let named = Workload::read(&document(&named)).unwrap();
        let revision = Revision {
            name: "demo".to_owned(),
            revision: 7,
        };
        assert_eq!(named.policy, Some(revision));
    }

    #[test]
    fn other_documents_say_nothing_and_unreadable_policies_are_refused() {
        for other in [
            "",
            "not toml [",
            "algorithm = \"sha256\"\nversion = \"0.1.0\"\n[data]\n\"aa.toml\" = \"x\"\n",
        ] {
            assert_eq!(Workload::read(other), Ok(Workload::default()), "{other}");
        }
        for bad in ["version = 2\n", "", "version = 1\nnew-key = 1\n"] {
            assert_eq!(Workload::read(&document(bad)), Err(WorkloadError::Policy), "{bad}");
        }
    }
}
