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
    /// Models and datasets, with their versions; and what the guest would push, where it has no older version of that name.
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
        let mut models: BTreeMap<_, _> = policy
            .sealed()
            .map(|sealed| (sealed.name.clone(), sealed.version))
            .collect();
        if let Some(output) = policy.output() {
            // An input of the same name has a lower version: the policy does not validate otherwise.
            models.entry(output.name.clone()).or_insert(output.version);
        }
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
    fn datasets_and_outputs_have_floors_too() {
        let zeros = "0".repeat(64);
        let job = |name: &str, version: u64| {
            format!(
                "{POLICY}\n[[dataset]]\nname = \"datasets/demo\"\nversion = 3\nartifact = \"localhost:5000/d@sha256:{zeros}\"\n\
                 keys = [\"kbs:///demo/k/1\"]\nbytes = 1\n[output]\ncontainer = \"server\"\ndestination = \"/output\"\n\
                 name = {name:?}\nversion = {version}\nrepository = \"localhost:5000/d\"\nkey = \"kbs:///demo/k/1\"\nmax-bytes = 1\n"
            )
        };
        let models = |name, version| Workload::read(&document(&job(name, version))).unwrap().models;
        let (demo, data, new) = (
            "models/demo".to_owned(),
            "datasets/demo".to_owned(),
            "models/new".to_owned(),
        );
        // What it reads of a name is older than what it writes.
        assert_eq!(
            models("models/demo", 2),
            BTreeMap::from([(demo.clone(), 1), (data.clone(), 3)])
        );
        assert_eq!(
            models("models/new", 7),
            BTreeMap::from([(demo, 1), (data, 3), (new, 7)])
        );
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
