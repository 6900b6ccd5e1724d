//! Why a pod could not be made ready for its containers.

use std::io;

use super::{NamespaceError, SysctlError};

/// Why a pod could not be made ready for its containers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PodError {
    /// It is ready.
    #[error("the pod has its host name and kernel parameters already")]
    Twice,
    /// Its namespaces.
    #[error("{0}")]
    Namespaces(#[source] NamespaceError),
    /// A kernel parameter that it cannot have.
    #[error("{0}")]
    Sysctl(#[source] SysctlError),
    /// Its `/dev/shm`.
    #[error("making the pod's shared memory failed")]
    Memory(#[source] io::Error),
    /// Its process namespace could not be made.
    #[error("{what} the init of the pod's process namespace failed")]
    Init {
        /// What was being done.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The init of its process namespace gave up.
    #[error("the init of the pod's process namespace: {line}")]
    InitStep {
        /// Its own words.
        line: String,
    },
}
