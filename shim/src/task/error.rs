//! What can go wrong with a request, and the one place where it becomes a gRPC status.

use std::error::Error;
use std::sync::Arc;

use containerd_shim_protos::ttrpc::{self, Code};

use super::container::MAX_EXECS;
use super::process::Phase;
use crate::agent::{AgentError, ProcessId};
use crate::bundle::BundleError;
use crate::config::ConfigError;
use crate::container_spec::ImageError;
use crate::initdata::CarryError;
use crate::network::NetworkError;
use crate::options::OptionsError;
use crate::ports::PortsError;
use crate::users::UserError;
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
    /// A user that is a name.
    #[error(transparent)]
    User(#[from] UserError),
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
    /// A fifo or file of containerd's.
    #[error("attaching the process's {pipe}")]
    Stdio {
        /// "stdin", "stdout" or "stderr".
        pipe: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A log driver.
    #[error("{pipe} is {uri:?}: only fifos and files (file://) are supported, no log drivers")]
    StdioKind {
        /// "stdin", "stdout" or "stderr".
        pipe: &'static str,
        /// What containerd gave.
        uri: String,
    },
    /// No such container or exec.
    #[error("{id} is not known")]
    Unknown {
        /// Which.
        id: ProcessId,
    },
    /// The id is taken.
    #[error("{id} exists")]
    Exists {
        /// Which.
        id: ProcessId,
    },
    /// More execs than a container may have.
    #[error("container {id:?} has {MAX_EXECS} execs that nobody has deleted: no more are made")]
    TooManyExecs {
        /// The container.
        id: String,
    },
    /// The process is in a state in which this cannot be done.
    #[error("{id} is {phase}, it must be {wanted}")]
    Phase {
        /// Which.
        id: ProcessId,
        /// The state it is in.
        phase: Phase,
        /// The state it should be in.
        wanted: &'static str,
    },
    /// Frozen processes do not do what was asked for; or they are not frozen.
    #[error("container {id:?} is {is}")]
    Paused {
        /// The container.
        id: String,
        /// "paused" or "not paused".
        is: &'static str,
    },
    /// A part of a request that does not decode.
    #[error("{what} does not decode")]
    Malformed {
        /// Which part.
        what: &'static str,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// A part of a request that is not of the expected kind.
    #[error("{what} has type {type_url:?}")]
    Type {
        /// Which part.
        what: &'static str,
        /// Its type, made printable.
        type_url: String,
    },
    /// A part of a request that is longer than any real one.
    #[error("{what} is longer than {max} bytes")]
    TooLong {
        /// Which part.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// An exec without an id.
    #[error("the exec has no id, or one longer than {max} bytes")]
    ExecId {
        /// The bound.
        max: usize,
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
    /// A request of the Sandbox API that does not decode.
    #[error("the sandbox's configuration is not a runtime.v1.PodSandboxConfig")]
    SandboxConfig {
        /// What the decoder says.
        #[source]
        source: prost::DecodeError,
    },
    /// A failpoint of a test.
    #[cfg(feature = "failpoints")]
    #[error("{message}")]
    Failpoint {
        /// What the test wants to be said.
        message: String,
    },
    /// The shim was told to end, or a task of its own panicked (which the log says).
    #[error("the request was interrupted")]
    Interrupted,
}

fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Requested => "it was taken down".to_owned(),
        Outcome::Died(death) => death.to_string(),
        Outcome::Silent(silence) => silence.to_string(),
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
        matches!(self, Self::Unknown { .. } | Self::Finished | Self::Unsupported { .. })
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
            | Self::User(_)
            | Self::Size(SizeError::Annotation { .. })
            | Self::StdioKind { .. }
            | Self::Malformed { .. }
            | Self::Type { .. }
            | Self::TooLong { .. }
            | Self::ExecId { .. }
            | Self::SandboxConfig { .. } => Code::INVALID_ARGUMENT,
            Self::Initdata(CarryError::Read { .. } | CarryError::BadDefault { .. }) => Code::FAILED_PRECONDITION,
            Self::Config(_) | Self::Phase { .. } | Self::Paused { .. } | Self::NoVm { .. } => Code::FAILED_PRECONDITION,
            Self::Size(_) | Self::TooManyExecs { .. } => Code::RESOURCE_EXHAUSTED,
            Self::Unknown { .. } | Self::Finished => Code::NOT_FOUND,
            #[cfg(feature = "failpoints")]
            Self::Failpoint { .. } => Code::UNKNOWN,
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
        assert_eq!(
            status(TaskError::Unknown {
                id: ProcessId::exec("c", "x")
            }),
            (Code::NOT_FOUND, "exec \"x\" of container \"c\" is not known".into())
        );
        assert_eq!(
            status(TaskError::Unsupported { what: "Checkpoint" }),
            (Code::UNIMPLEMENTED, "Checkpoint is not supported".into())
        );
    }
}
