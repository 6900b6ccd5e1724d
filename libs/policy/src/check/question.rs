//! Everything that a host can ask, as data: for tools that judge beforehand by the very rules of the guest.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::Deserialize;

use super::{
    ContainerRequest, Denial, Lineup, ProcessRequest, Turn, check_call, check_container, check_egress, check_exec,
    check_forward, check_ingress, check_pod, check_signal, check_stats, check_volume,
};
use crate::names::shown;
use crate::policy::{Call, ContainerPolicy, Policy, Port, Protocol};
use crate::volume::VolumeKind;

/// One thing that a host may ask for, or that happens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Question {
    /// CreateContainer.
    Create(Box<ContainerRequest>),
    /// StartContainer, of a container by the policy's name; it runs from then on.
    Start(String),
    /// A container has ended.
    Ended {
        /// By the policy's name.
        container: String,
        /// Its exit status.
        status: u32,
    },
    /// ExecProcess.
    Exec {
        /// By the policy's name.
        container: String,
        /// The process.
        process: Box<ProcessRequest>,
    },
    /// SignalContainer.
    Signal {
        /// By the policy's name.
        container: String,
        /// The signal's number.
        number: u32,
    },
    /// PutVolume.
    Volume(VolumeKind),
    /// ConfigureNetwork's kernel parameters.
    Sysctl(BTreeMap<String, String>),
    /// One of the optional calls.
    Call(Call),
    /// ContainerStats.
    Stats,
    /// A forwarded port.
    Forward(u16),
    /// A container connects to somebody.
    Connect {
        /// To whom.
        to: IpAddr,
        /// By which protocol.
        protocol: Protocol,
        /// To which port; 0 with ICMP.
        #[serde(default)]
        port: u16,
    },
    /// A client connects to a port of the pod's, `8080/tcp`.
    Client(Port),
}

/// A policy, and who of its containers is there.
#[derive(Debug)]
pub struct Judge<'p> {
    policy: &'p Policy,
    lineup: Lineup,
}

impl<'p> Judge<'p> {
    /// Of a pod of which nothing runs yet.
    pub fn new(policy: &'p Policy) -> Self {
        Self {
            policy,
            lineup: Lineup::new(policy),
        }
    }

    /// Whether the guest would allow it; what is allowed has happened.
    ///
    /// # Errors
    /// The guest's own denial.
    pub fn ask(&mut self, question: &Question) -> Result<(), Denial> {
        let pod = self.policy.pod();
        match question {
            Question::Create(request) => check_container(self.policy, request).map(drop),
            Question::Start(name) => {
                self.container(name)?;
                self.lineup.check_start(name)?;
                self.lineup.note(name, Turn::Running);
                Ok(())
            }
            Question::Ended { container, status } => {
                self.container(container)?;
                let turn = Turn::Ended {
                    status: *status,
                    paused: false,
                };
                self.lineup.note(container, turn);
                Ok(())
            }
            Question::Exec { container, process } => {
                let container = self.container(container)?;
                check_exec(container, process)?;
                self.lineup.check_exec(container)
            }
            Question::Signal { container, number } => check_signal(self.container(container)?, *number),
            Question::Volume(kind) => check_volume(self.policy, *kind),
            Question::Sysctl(values) => check_pod(self.policy, values),
            Question::Call(call) => check_call(pod, *call),
            Question::Stats => check_stats(pod).map(drop),
            Question::Forward(port) => {
                check_forward(pod, *port)?;
                self.open().map_err(|missing| Denial::Shut { port: *port, missing })
            }
            Question::Connect { to, protocol, port } => check_egress(self.policy.network(), *to, *protocol, *port),
            Question::Client(port) => {
                check_ingress(self.policy.network(), *port)?;
                self.open()
                    .map_err(|missing| Denial::ClientShut { port: *port, missing })
            }
        }
    }

    fn open(&self) -> Result<(), String> {
        self.lineup.shut_because().map_or(Ok(()), Err)
    }

    fn container(&self, name: &str) -> Result<&'p ContainerPolicy, Denial> {
        let known = self.policy.containers().iter().map(|container| &container.name);
        self.policy.container(name).ok_or_else(|| Denial::UnknownContainer {
            name: shown(name),
            allowed: super::shown_list(known),
        })
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(request) if request.name.is_empty() => f.write_str("create a container"),
            Self::Create(request) => write!(f, "create container {}", shown(&request.name)),
            Self::Start(name) => write!(f, "start container {}", shown(name)),
            Self::Ended { container, status } => write!(f, "container {} has ended with {status}", shown(container)),
            Self::Exec { container, process } => {
                write!(
                    f,
                    "exec {} in container {}",
                    shown(&process.args.join(" ")),
                    shown(container)
                )
            }
            Self::Signal { container, number } => write!(f, "signal {number} to container {}", shown(container)),
            Self::Volume(kind) => write!(f, "put a volume of kind {kind}"),
            Self::Sysctl(values) => write!(f, "set {} kernel parameters", values.len()),
            Self::Call(call) => write!(f, "call {call}"),
            Self::Stats => f.write_str("statistics"),
            Self::Forward(port) => write!(f, "forward to port {port}"),
            Self::Connect { to, protocol, port } => write!(f, "connect to {to} {protocol} {port}"),
            Self::Client(port) => write!(f, "a client at {port}"),
        }
    }
}
