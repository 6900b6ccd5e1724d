//! Why something cannot be done with a container. Each is one line for the operator on the host.

use std::io;

use super::{CgroupError, ContainerId, LimitError};
use crate::{
    launch::{LaunchError, PlanError},
    workload::WorkloadError,
};

/// Why something cannot be done with a container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerError {
    /// There is none of that id.
    #[error("container {id} does not exist")]
    Unknown {
        /// The id.
        id: ContainerId,
    },
    /// There is one already.
    #[error("container {id} exists already")]
    Exists {
        /// The id.
        id: ContainerId,
    },
    /// The policy's container is there already under another id.
    #[error("container {name:?} of the policy exists already, as {id}: delete that first")]
    NameTaken {
        /// The policy's name.
        name: String,
        /// Who has it.
        id: ContainerId,
    },
    /// Not in this state.
    #[error("container {id} cannot be {wanted}: it is {state}")]
    State {
        /// The id.
        id: ContainerId,
        /// What was asked for.
        wanted: &'static str,
        /// What it is.
        state: &'static str,
    },
    /// The policy forbids the signal.
    #[error("policy denies signal {signal} to container {name:?}")]
    SignalDenied {
        /// The policy's name.
        name: String,
        /// The signal's number.
        signal: u32,
    },
    /// The signal is none, or could not be delivered.
    #[error("signal {signal} cannot be sent to container {id}")]
    Signal {
        /// The id.
        id: ContainerId,
        /// The signal's number.
        signal: u32,
    },
    /// A terminal is not offered.
    #[error("container {name:?} asks for a terminal: the agent has none to give")]
    Terminal {
        /// The policy's name.
        name: String,
    },
    /// Killed before its program ran.
    #[error("container {id} was killed while it was starting")]
    Killed {
        /// The id.
        id: ContainerId,
    },
    /// The starting task ended without a word.
    #[error("starting container {id} was interrupted")]
    Interrupted {
        /// The id.
        id: ContainerId,
    },
    /// Image, models or keys.
    #[error("{0}")]
    Workload(#[source] WorkloadError),
    /// What the policy says cannot be carried out.
    #[error("{0}")]
    Plan(#[source] PlanError),
    /// The launch failed.
    #[error("{0}")]
    Launch(#[source] LaunchError),
    /// Its cgroup failed.
    #[error("{0}")]
    Cgroup(#[source] CgroupError),
    /// It has no cgroup to count or limit by.
    #[error("container {id} has no cgroup: this machine has no cgroup v2")]
    NoGroup {
        /// The id.
        id: ContainerId,
    },
    /// Limits that it cannot have.
    #[error("{0}")]
    Limit(#[source] LimitError),
    /// A pipe could not be made.
    #[error("making the pipes of container {id} failed")]
    Pipe {
        /// The id.
        id: ContainerId,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Its directory failed.
    #[error("{what} the directory of container {id} failed")]
    Directory {
        /// What was being done.
        what: &'static str,
        /// The id.
        id: ContainerId,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}
