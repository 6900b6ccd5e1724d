//! Why a container's volumes cannot be had.

use ttrpc::Code;

use super::{Foreign, ReadError};
use crate::agent::AgentError;
use crate::bundle::oci;
use crate::untrusted::printable;

/// A mount that is refused, or a volume that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// The host could read or change what is in it.
    #[error(
        "mount {destination}: {what} ({path}) cannot be kept confidential: use emptyDir, configMap, secret, projected or \
         downwardAPI, or a model of the policy"
    )]
    Foreign {
        /// Where it was to be mounted.
        destination: String,
        /// "a hostPath volume".
        what: String,
        /// Where it lies on the host.
        path: String,
    },
    /// Mounts were to spread between host and container.
    #[error(
        "mount {destination}: mount propagation ({option}) cannot reach into a confidential guest: leave mountPropagation out"
    )]
    Propagation {
        /// Where it was to be mounted.
        destination: String,
        /// The mount option.
        option: String,
    },
    /// The volume on the host.
    #[error("mount {destination}")]
    Read {
        /// Where it was to be mounted.
        destination: String,
        /// What is wrong.
        #[source]
        source: ReadError,
    },
    /// The agent says no.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The shim was told to end, or a task of its own panicked (which the log says).
    #[error("the request was interrupted")]
    Interrupted,
}

impl VolumeError {
    pub(super) fn foreign(mount: &oci::Mount, foreign: Foreign) -> Self {
        Self::Foreign {
            destination: printable(&mount.destination, 256),
            what: foreign.what,
            path: printable(&mount.source, 256),
        }
    }

    /// The gRPC code; none for the agent's failures, which have their own.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Foreign { .. } | Self::Propagation { .. } => Some(Code::PERMISSION_DENIED),
            Self::Read { source, .. } => Some(match source {
                ReadError::TooLarge { .. } => Code::RESOURCE_EXHAUSTED,
                ReadError::Special { .. } | ReadError::Name { .. } => Code::INVALID_ARGUMENT,
                ReadError::Io { .. } => Code::INTERNAL,
            }),
            Self::Agent(_) => None,
            Self::Interrupted => Some(Code::ABORTED),
        }
    }
}
