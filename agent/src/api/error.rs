//! From what failed to what the host is told: one ttrpc code and one line.

use std::error::Error;

use cella_attest::cert_table::{MAX_CERT, MAX_CERTS};
use cella_policy::check::Denial;
use ttrpc::Code;

use crate::{
    container::{ContainerError, IdError, LimitError},
    filter::FilterError,
    launch::{HostSeccompError, LaunchError},
    network::{NetworkError, PlanError},
    pod::{NamespaceError, PodError, SysctlError},
    untrusted,
    volume::VolumeError,
    workload::{Blame, WorkloadError},
};

/// What can be wrong with a request, or with doing what it asks.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// The policy says no.
    #[error("{0}")]
    Denied(#[source] Denial),
    /// A system call filter that cannot be.
    #[error("{0}")]
    Seccomp(#[source] HostSeccompError),
    /// A terminal that large is none.
    #[error("a terminal of {columns} by {rows} characters cannot be")]
    TerminalSize {
        /// The width.
        columns: u32,
        /// The height.
        rows: u32,
    },
    /// Not a container or exec id.
    #[error("{0}")]
    Id(#[source] IdError),
    /// Containers.
    #[error("{0}")]
    Container(#[source] ContainerError),
    /// Limits that cannot be.
    #[error("{0}")]
    Limits(#[source] LimitError),
    /// Volumes.
    #[error("{0}")]
    Volume(#[source] VolumeError),
    /// A network that cannot be.
    #[error("{0}")]
    NetworkPlan(#[source] PlanError),
    /// A network that could not be set.
    #[error("{0}")]
    Network(#[source] NetworkError),
    /// A network that could not be filtered.
    #[error("{0}")]
    Filter(#[source] FilterError),
    /// A pod that could not be made ready.
    #[error("{0}")]
    Pod(#[source] PodError),
    /// Certificates that are none.
    #[error(
        "{count} certificates, the longest of {longest} bytes; at most {MAX_CERTS}, each of 1 to {MAX_CERT} bytes, make a chain"
    )]
    Certificates {
        /// How many came.
        count: usize,
        /// Length of the longest.
        longest: usize,
    },
    /// A second ConfigureNetwork.
    #[error("the network is configured already")]
    NetworkTwice,
    /// Start before ConfigureNetwork.
    #[error("the network is not configured yet: nothing can be pulled")]
    NoNetwork,
    /// A task of the agent's broke off.
    #[error("the agent broke off this request")]
    Interrupted,
}

impl ApiError {
    /// Whether the policy forbids what was asked.
    pub(super) fn is_denial(&self) -> bool {
        matches!(
            self,
            Self::Denied(_)
                | Self::Volume(VolumeError::Denied(_))
                | Self::Container(ContainerError::Denied(_) | ContainerError::Volume(VolumeError::Denied(_)))
        )
    }
}

impl From<ApiError> for ttrpc::Error {
    fn from(error: ApiError) -> Self {
        ttrpc::Error::RpcStatus(ttrpc::get_status(code(&error), one_line(&error)))
    }
}

/// The one place where failures become codes.
fn code(error: &ApiError) -> Code {
    match error {
        ApiError::Denied(_) => Code::PERMISSION_DENIED,
        ApiError::Id(_)
        | ApiError::NetworkPlan(_)
        | ApiError::Seccomp(_)
        | ApiError::TerminalSize { .. }
        | ApiError::Certificates { .. } => Code::INVALID_ARGUMENT,
        ApiError::Limits(error) => limit_code(error),
        ApiError::Volume(error) => volume_code(error),
        ApiError::Pod(error) => pod_code(error),
        ApiError::NetworkTwice | ApiError::NoNetwork => Code::FAILED_PRECONDITION,
        ApiError::Network(NetworkError::NoDevice { .. }) => Code::NOT_FOUND,
        ApiError::Network(_) | ApiError::Filter(_) | ApiError::Interrupted => Code::INTERNAL,
        ApiError::Container(error) => container_code(error),
    }
}

fn container_code(error: &ContainerError) -> Code {
    match error {
        ContainerError::Unknown { .. } => Code::NOT_FOUND,
        ContainerError::Exists { .. } | ContainerError::NameTaken { .. } => Code::ALREADY_EXISTS,
        ContainerError::Denied(_) => Code::PERMISSION_DENIED,
        ContainerError::Signal { .. } => Code::INVALID_ARGUMENT,
        ContainerError::State { .. } | ContainerError::NoTerminal { .. } | ContainerError::Plan(_) => {
            Code::FAILED_PRECONDITION
        }
        ContainerError::TooMany { .. } | ContainerError::Launch(LaunchError::Full(_)) => Code::RESOURCE_EXHAUSTED,
        ContainerError::Killed { .. } | ContainerError::Interrupted { .. } => Code::ABORTED,
        // The image and the policy are at fault, not the agent.
        ContainerError::Launch(_) => Code::FAILED_PRECONDITION,
        ContainerError::Workload(error) => workload_code(error),
        ContainerError::Limit(error) => limit_code(error),
        ContainerError::Volume(error) => volume_code(error),
        ContainerError::Pod(error) => pod_code(error),
        ContainerError::NoGroup { .. } => Code::UNIMPLEMENTED,
        ContainerError::Cgroup(_)
        | ContainerError::Pipe { .. }
        | ContainerError::Resize { .. }
        | ContainerError::Directory { .. } => Code::INTERNAL,
    }
}

fn limit_code(error: &LimitError) -> Code {
    match error {
        LimitError::Machine { .. } => Code::RESOURCE_EXHAUSTED,
        _ => Code::INVALID_ARGUMENT,
    }
}

fn pod_code(error: &PodError) -> Code {
    match error {
        PodError::Twice | PodError::Sysctl(SysctlError::Set { .. }) => Code::FAILED_PRECONDITION,
        PodError::Namespaces(NamespaceError::Sysctl(_)) => Code::FAILED_PRECONDITION,
        PodError::Sysctl(_) => Code::INVALID_ARGUMENT,
        _ => Code::INTERNAL,
    }
}

fn volume_code(error: &VolumeError) -> Code {
    match error {
        VolumeError::TooManyFiles { .. } | VolumeError::TooManyVolumes | VolumeError::TooLarge { .. } => {
            Code::RESOURCE_EXHAUSTED
        }
        VolumeError::Denied(_) => Code::PERMISSION_DENIED,
        VolumeError::Exists { .. } => Code::ALREADY_EXISTS,
        VolumeError::Unknown { .. } => Code::NOT_FOUND,
        VolumeError::Io { .. } => Code::INTERNAL,
        _ => Code::INVALID_ARGUMENT,
    }
}

fn workload_code(error: &WorkloadError) -> Code {
    match error.blame() {
        Blame::Policy | Blame::Host => Code::FAILED_PRECONDITION,
        Blame::Refused => Code::PERMISSION_DENIED,
        Blame::Broker | Blame::Registry => Code::UNAVAILABLE,
        Blame::Content => Code::DATA_LOSS,
        Blame::Memory => Code::RESOURCE_EXHAUSTED,
        Blame::Internal => Code::INTERNAL,
    }
}

/// An error and its causes in one printable, bounded line; a cause that its effect quotes already is not repeated.
pub fn one_line(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    untrusted::one_line(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("inner\nline")]
    struct Inner;

    #[test]
    fn causes_make_one_line() {
        assert_eq!(one_line(&Outer(Inner)), "outer: inner line");
        assert_eq!(one_line(&Inner), "inner line");
    }

    #[test]
    fn denials_are_permission_denied_and_say_what() {
        let denial = Denial::UnknownImage {
            image: "sha256:00".into(),
            allowed: "sha256:11".into(),
        };
        let ttrpc::Error::RpcStatus(status) = ApiError::Denied(denial).into() else {
            panic!()
        };
        assert_eq!(status.code(), Code::PERMISSION_DENIED);
        assert_eq!(
            status.message(),
            "policy denies image sha256:00: no container in the policy uses it, allowed is sha256:11"
        );
    }

    #[test]
    fn launch_failures_keep_their_words() {
        let launch = LaunchError::Step("exec: \"/usr/bin/x\": no such file or directory".into());
        let error = ApiError::Container(ContainerError::Launch(launch));
        assert_eq!(code(&error), Code::FAILED_PRECONDITION);
        assert_eq!(one_line(&error), "exec: \"/usr/bin/x\": no such file or directory");
        let launch = LaunchError::Full("fork the process: Resource temporarily unavailable".into());
        let error = ApiError::Container(ContainerError::Launch(launch));
        assert_eq!(code(&error), Code::RESOURCE_EXHAUSTED);
    }
}
