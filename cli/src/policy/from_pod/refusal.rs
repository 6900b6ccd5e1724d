//! What a pod asks for that a confidential guest cannot give, by its line and field.

use super::yaml::{Node, YamlError};

/// Why a pod becomes no policy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum PodError {
    /// Not YAML, or not of the form that Kubernetes wants.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// No pod in it.
    #[error("there is no Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, Job or CronJob in it")]
    NoWorkload,
    /// More than one.
    #[error("there are several workloads in it: say --name with one of {names}")]
    Several { names: String },
    /// None of that name.
    #[error("there is no workload {name:?} in it, but {names}")]
    Unknown { name: String, names: String },
    /// A field that must be there.
    #[error("line {line}: {field} is missing")]
    Missing { line: usize, field: String },
    /// A value that Kubernetes does not know.
    #[error("line {line}: {field} is {given:?}, expected {expected}")]
    Value {
        line: usize,
        field: String,
        given: String,
        expected: &'static str,
    },
    /// What the host could read or change.
    #[error("line {line}: {field} cannot be kept from the host: {why}")]
    NotConfidential { line: usize, field: String, why: String },
    /// What only the author can take upon themselves.
    #[error(
        "line {line}: {field} is the host's to choose: {why}. If that may be, say --accept {accept}, and the policy lets \
         the host choose it"
    )]
    HostsChoice {
        line: usize,
        field: String,
        why: String,
        accept: String,
    },
    /// A container of the base file that the pod does not have.
    #[error("the workload file names container {name:?}, which the pod does not have")]
    Stray { name: String },
    /// A container of the base file that says what the pod says.
    #[error("the workload file's container {name:?} says {key}, which the pod's YAML says")]
    Said { name: String, key: &'static str },
    /// Something that was accepted and is not there.
    #[error("--accept {name}: the pod has nothing of that name that needs it")]
    NothingToAccept { name: String },
}

impl PodError {
    pub(super) fn secret_for_nobody(node: &Node, field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::NotConfidential {
            line: node.line,
            field: field.into(),
            why: why.into(),
        }
    }

    pub(super) fn value(node: &Node, field: impl Into<String>, given: &str, expected: &'static str) -> Self {
        Self::Value {
            line: node.line,
            field: field.into(),
            given: given.chars().take(100).collect(),
            expected,
        }
    }

    pub(super) fn missing(node: &Node, field: impl Into<String>) -> Self {
        Self::Missing {
            line: node.line,
            field: field.into(),
        }
    }
}
