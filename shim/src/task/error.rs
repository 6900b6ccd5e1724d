//! What can go wrong with a request, and the one place where it becomes a gRPC status.

use std::error::Error;
use std::sync::Arc;

use containerd_shim_protos::ttrpc::{self, Code};

use super::container::Phase;
use crate::agent::AgentError;
use crate::bundle::BundleError;
use crate::config::ConfigError;
use crate::container_spec::ImageError;
use crate::initdata::CarryError;
use crate::network::NetworkError;
use crate::options::OptionsError;
use crate::ports::PortsError;
use crate::vm::sizing::SizeError;
use crate::vm::{LaunchError, Outcome};
use crate::volumes::VolumeError;

/// A request that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The bundle.
    #[error("reading the bundle")]
    Bundle(#[from] BundleError),
    /// The runtime options.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The shim's configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The port forwards.
    #[error(transparent)]
    Ports(#[from] PortsError),
    /// The pod's network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The pod's initdata.
    #[error(transparent)]
    Initdata(#[from] CarryError),
    /// The image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The VM's size.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// The VM did not come up.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The agent refused or failed.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// A volume.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// A fifo of containerd's.
    #[error("attaching the container's {pipe}")]
    Stdio {
        /// "stdin", "stdout" or "stderr".
        pipe: &'static str,
        /// Why not.
        #[source]
        source: Box<containerd_shim::Error>,
    },
    /// A log driver instead of a fifo.
    #[error("{pipe} is {uri:?}: only fifos are supported, no log drivers")]
    StdioKind {
        /// "stdin", "stdout" or "stderr".
        pipe: &'static str,
        /// What containerd gave.
        uri: String,
    },
    /// No such container.
    #[error("container {id:?} is not known")]
    Unknown {
        /// The id.
        id: String,
    },
    /// No such exec: none can be made.
    #[error("exec {exec_id:?} is not known")]
    UnknownExec {
        /// The id.
        exec_id: String,
    },
    /// The id is taken.
    #[error("container {id:?} exists")]
    Exists {
        /// The id.
        id: String,
    },
    /// The container is in a state in which this cannot be done.
    #[error("container {id:?} is {phase:?}, it must be {wanted}")]
    Phase {
        /// The id.
        id: String,
        /// The state it is in.
        phase: Phase,
        /// The state it should be in.
        wanted: &'static str,
    },
    /// The process has ended; containerd looks for these words.
    #[error("process already finished")]
    Finished,
    /// The pod has no VM, or more than one is asked for.
    #[error("the pod's VM {state}")]
    NoVm {
        /// "is still booting", "is not up", "is up already".
        state: &'static str,
    },
    /// The VM went down in the middle of the request.
    #[error("the VM is gone: {}", describe(outcome))]
    VmGone {
        /// Why.
        outcome: Arc<Outcome>,
    },
    /// Nothing of the kind exists here.
    #[error("{what} is not supported")]
    Unsupported {
        /// The call or option.
        what: &'static str,
    },
    /// The shim was told to end, or a task of its own panicked (which the log says).
    #[error("the request was interrupted")]
    Interrupted,
}

fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Requested => "it was taken down".to_owned(),
        Outcome::Died(death) => death.to_string(),
    }
}

impl TaskError {
    /// The whole story in one line, causes last.
    pub fn message(&self) -> String {
        let mut message = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // A cause that its effect already quotes is not repeated.
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = error.source();
        }
        message
    }

    /// Whether containerd asks such things in the normal course of events.
    pub fn is_routine(&self) -> bool {
        matches!(
            self,
            Self::Unknown { .. } | Self::UnknownExec { .. } | Self::Finished | Self::Unsupported { .. }
        )
    }

    /// The answer for containerd, who is on the same side of every trust boundary as the shim and gets the causes too.
    pub fn into_status(self) -> ttrpc::Error {
        ttrpc::Error::RpcStatus(ttrpc::get_status(self.code(), self.message()))
    }

    /// The gRPC code of the answer.
    pub fn code(&self) -> Code {
        match self {
            // The agent's own verdict.
            Self::Agent(AgentError::Refused { code, .. })
            | Self::Volume(VolumeError::Agent(AgentError::Refused { code, .. })) => *code,
            Self::Volume(error) => error.code().unwrap_or(Code::INTERNAL),
            Self::Agent(AgentError::Timeout { .. }) => Code::DEADLINE_EXCEEDED,
            Self::Options(_)
            | Self::Ports(_)
            | Self::Network(_)
            | Self::Initdata(CarryError::Missing | CarryError::Bad { .. })
            | Self::Image(_)
            | Self::Size(SizeError::Annotation { .. })
            | Self::StdioKind { .. } => Code::INVALID_ARGUMENT,
            Self::Config(_) | Self::Phase { .. } | Self::NoVm { .. } => Code::FAILED_PRECONDITION,
            Self::Unknown { .. } | Self::UnknownExec { .. } | Self::Finished => Code::NOT_FOUND,
            Self::Size(_) => Code::RESOURCE_EXHAUSTED,
            Self::Exists { .. } => Code::ALREADY_EXISTS,
            Self::Unsupported { .. } => Code::UNIMPLEMENTED,
            Self::VmGone { .. } | Self::Interrupted => Code::ABORTED,
            Self::Bundle(_) | Self::Launch(_) | Self::Agent(_) | Self::Initdata(_) | Self::Stdio { .. } => {
                Code::INTERNAL
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Exit;
    use crate::vm::Death;

    fn status(error: TaskError) -> (Code, String) {
        match error.into_status() {
            ttrpc::Error::RpcStatus(status) => (status.code.enum_value().unwrap(), status.message),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_denial_reaches_containerd_word_for_word() {
        let message = "policy denies container \"server\": args[3] is \"--x\", allowed is \"--y\"".to_owned();
        let denial = AgentError::Refused {
            code: Code::PERMISSION_DENIED,
            message: message.clone(),
        };
        assert_eq!(status(denial.into()), (Code::PERMISSION_DENIED, message));
    }

    #[test]
    fn causes_follow_their_effects() {
        let source = std::io::Error::from(std::io::ErrorKind::NotFound);
        let error = TaskError::Bundle(BundleError::Read {
            path: "/b/config.json".into(),
            source,
        });
        let (code, message) = status(error);
        assert_eq!(code, Code::INTERNAL);
        assert_eq!(
            message,
            "reading the bundle: cannot read /b/config.json: entity not found"
        );
    }

    #[test]
    fn the_death_of_a_vm_says_who_and_how() {
        let death = Death {
            program: "qemu",
            exit: Exit::Signal(9),
            reason: String::new(),
            stderr: vec![],
            console: vec!["Kernel panic".into()],
        };
        let (code, message) = status(TaskError::VmGone {
            outcome: Arc::new(Outcome::Died(death)),
        });
        assert_eq!(
            (code, message.as_str()),
            (
                Code::ABORTED,
                "the VM is gone: qemu ended with signal 9; console: Kernel panic"
            )
        );
    }

    #[test]
    fn what_containerd_looks_for() {
        assert_eq!(
            status(TaskError::Finished),
            (Code::NOT_FOUND, "process already finished".into())
        );
        assert_eq!(status(TaskError::Unknown { id: "x".into() }).0, Code::NOT_FOUND);
        assert_eq!(
            status(TaskError::Unsupported { what: "Exec" }),
            (Code::UNIMPLEMENTED, "Exec is not supported".into())
        );
    }
}
