//! Why something cannot be done with a container or a process in it. Each is one line for the operator on the host.

use std::io;

use cella_policy::check::Denial;

use super::{CgroupError, ContainerId, LimitError, ProcessId};
use crate::{
    launch::{LaunchError, PlanError},
    pod::PodError,
    volume::VolumeError,
    workload::WorkloadError,
};

/// Why something cannot be done with a container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerError {
    /// There is none of that id.
    #[error("{process} does not exist")]
    Unknown {
        /// The process, or container.
        process: ProcessId,
    },
    /// There is one already.
    #[error("{process} exists already")]
    Exists {
        /// The process, or container.
        process: ProcessId,
    },
    /// More than the agent keeps.
    #[error("container {container} has {limit} further processes, which is the limit: delete some that have ended")]
    TooMany {
        /// The container.
        container: ContainerId,
        /// The limit.
        limit: usize,
    },
    /// The policy's container is there already under other ids, as often as its `instances` allows.
    #[error(
        "container {name:?} of the policy exists already, as {id}, and its instances allow no more: delete that first"
    )]
    NameTaken {
        /// The policy's name.
        name: String,
        /// Who has it.
        id: ContainerId,
    },
    /// Not in this state.
    #[error("{process} cannot be {wanted}: it is {state}")]
    State {
        /// The process, or container.
        process: ProcessId,
        /// What was asked for.
        wanted: &'static str,
        /// What it is.
        state: &'static str,
    },
    /// The policy says no.
    #[error("{0}")]
    Denied(#[source] Denial),
    /// The signal is none, or could not be delivered.
    #[error("signal {signal} cannot be sent to {process}")]
    Signal {
        /// The process, or container.
        process: ProcessId,
        /// The signal's number.
        signal: u32,
    },
    /// There is no terminal to set the size of.
    #[error("{process} has no terminal")]
    NoTerminal {
        /// The process, or container.
        process: ProcessId,
    },
    /// The terminal does not take the size.
    #[error("setting the terminal size of {process} failed")]
    Resize {
        /// The process, or container.
        process: ProcessId,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Killed before its program ran.
    #[error("{process} was killed while it was starting")]
    Killed {
        /// The process, or container.
        process: ProcessId,
    },
    /// The starting task ended without a word.
    #[error("starting {process} was interrupted")]
    Interrupted {
        /// The process, or container.
        process: ProcessId,
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
    /// A volume that is not there or cannot be made.
    #[error("{0}")]
    Volume(#[source] VolumeError),
    /// What it shares with the pod's other containers could not be made.
    #[error("{0}")]
    Pod(#[source] PodError),
    /// Limits that it cannot have.
    #[error("{0}")]
    Limit(#[source] LimitError),
    /// A pipe could not be made.
    #[error("making the pipes of {process} failed")]
    Pipe {
        /// The process, or container.
        process: ProcessId,
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
