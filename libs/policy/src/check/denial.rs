//! Why a request is denied, in words for the operator who reads them through containerd.
//!
//! Each denial says which rule, which field, what was asked for and what would be allowed.

use std::fmt;
use std::net::IpAddr;

use crate::form::Form;
use crate::policy::{Port, Protocol};

/// One reason. Text that came from the host is quoted, escaped and cut; the policy's own text is public.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each variant's fields are named in its message")]
pub enum Denial {
    /// The host named a container that is not in the policy, and no entry may be chosen by image.
    #[error("policy denies container {name}: it names no such container, allowed is {allowed}")]
    UnknownContainer { name: String, allowed: String },
    /// No container that could be chosen has one of the images.
    #[error("policy denies image {image}: no container in the policy uses it, allowed is {allowed}")]
    UnknownImage { image: String, allowed: String },
    /// There was no image to compare.
    #[error("policy denies the container: no image was named; is the cella snapshotter in use?")]
    NoImage,
    /// A list that nobody needs so long.
    #[error("policy denies {subject}: it has {found} {field}, at most {limit} are read")]
    TooMany {
        subject: Subject,
        field: &'static str,
        found: usize,
        limit: usize,
    },
    /// An argument differs.
    #[error("policy denies {subject}: args[{index}] is {given}, allowed is {allowed}")]
    Argument {
        subject: Subject,
        index: usize,
        given: String,
        allowed: String,
    },
    /// More arguments than the policy has.
    #[error("policy denies {subject}: args[{index}] is {given}, allowed is nothing more")]
    ExtraArgument {
        subject: Subject,
        index: usize,
        given: String,
    },
    /// Fewer arguments than the policy has.
    #[error("policy denies {subject}: args[{index}] is missing, it must be {allowed}")]
    MissingArgument {
        subject: Subject,
        index: usize,
        allowed: String,
    },
    /// A command line that the policy's `exec` does not have.
    #[error("policy denies {subject}: its command {given} is not in exec, allowed is {allowed}")]
    Command {
        subject: Subject,
        given: String,
        allowed: String,
    },
    /// A variable has another value.
    #[error("policy denies {subject}: variable {name} is {given}, allowed by env is {allowed}")]
    Variable {
        subject: Subject,
        name: String,
        given: String,
        allowed: String,
    },
    /// A variable whose value the host may choose, but not so.
    #[error("policy denies {subject}: variable {name} is {given}, allowed by env-allow is what has the form {allowed}")]
    VariableForm {
        subject: Subject,
        name: String,
        given: String,
        allowed: Form,
    },
    /// A variable that the policy does not have.
    #[error("policy denies {subject}: variable {name} is not named in env or env-allow, allowed is {allowed}")]
    ExtraVariable {
        subject: Subject,
        name: String,
        allowed: String,
    },
    /// A variable of the policy is not there.
    #[error("policy denies {subject}: variable {name} of env is missing, it must be {allowed}")]
    MissingVariable {
        subject: Subject,
        name: String,
        allowed: String,
    },
    /// A variable is there twice: which value counts depends on the program.
    #[error("policy denies {subject}: variable {name} appears twice in env, allowed is once")]
    RepeatedVariable { subject: Subject, name: String },
    /// Text that no process could get, or that would mean something else than it looks like.
    #[error("policy denies {subject}: {field} is {given}, allowed is {allowed}")]
    Form {
        subject: Subject,
        field: &'static str,
        given: String,
        allowed: &'static str,
    },
    /// Another working directory.
    #[error("policy denies {subject}: working directory (cwd) is {given}, allowed is {allowed}")]
    WorkingDirectory {
        subject: Subject,
        given: String,
        allowed: String,
    },
    /// Another user or group.
    #[error("policy denies {subject}: user.{field} is {given}, allowed is {allowed}")]
    User {
        subject: Subject,
        field: &'static str,
        given: u32,
        allowed: u32,
    },
    /// A user by name, where the policy has numbers.
    #[error(
        "policy denies {subject}: user is {given}, a name; allowed is uid {allowed} as a number (the policy may say \
         user = \"image\" instead)"
    )]
    UserName {
        subject: Subject,
        given: String,
        allowed: u32,
    },
    /// Other additional groups.
    #[error("policy denies {subject}: additional groups (user.additional-gids) are {given:?}, allowed are {allowed:?}")]
    Groups {
        subject: Subject,
        given: Vec<u32>,
        allowed: Vec<u32>,
    },
    /// A mount that the policy does not name.
    #[error("policy denies mount {destination} of type {kind}: not named in volume of {subject}, allowed is {allowed}")]
    Mount {
        subject: Subject,
        destination: String,
        kind: String,
        allowed: String,
    },
    /// A folder of the host.
    #[error(
        "policy denies mount {destination} of type {kind}: it is a path of the host, which {subject} can never see; \
         allowed is {allowed}"
    )]
    HostPath {
        subject: Subject,
        destination: String,
        kind: String,
        allowed: String,
    },
    /// A volume that the policy does not name there.
    #[error(
        "policy denies mount {destination} of volume kind {kind}: not named in volume of {subject}, allowed is {allowed}"
    )]
    Volume {
        subject: Subject,
        destination: String,
        kind: &'static str,
        allowed: String,
    },
    /// A volume whose files the policy names is not there.
    #[error(
        "policy denies {subject}: mount {destination} is missing, it must be a volume of kind {kind} with the files of its entry in volume"
    )]
    MissingVolume {
        subject: Subject,
        destination: String,
        kind: &'static str,
    },
    /// A file of a volume whose files the policy names.
    #[error("policy denies volume {volume}: its file {path} is {given}, allowed by files is {allowed}")]
    File {
        volume: String,
        path: String,
        given: String,
        allowed: String,
    },
    /// A volume where it would hide something.
    #[error(
        "policy denies mount {destination}: in {subject} it would cover {other}, allowed is any place apart from it"
    )]
    Covers {
        subject: Subject,
        destination: String,
        other: String,
    },
    /// Two volumes in one place.
    #[error("policy denies mount {destination}: {subject} has two there, allowed is one")]
    MountTwice { subject: Subject, destination: String },
    /// A kind of volume that no container may mount.
    #[error("policy denies volumes of kind {kind}: not named in volume of any container, allowed is {allowed}")]
    VolumeKind { kind: &'static str, allowed: String },
    /// A capability that is neither in containerd's default set nor in the policy.
    #[error(
        "policy denies {subject}: capability {given} is not named in capabilities, allowed is {allowed} and containerd's default set"
    )]
    Capability {
        subject: Subject,
        given: String,
        allowed: String,
    },
    /// A capability that Linux does not have.
    #[error(
        "policy denies {subject}: {given} of capabilities is none that this guest knows, allowed is any of Linux 6.12"
    )]
    NoCapability { subject: Subject, given: String },
    /// Every power at once.
    #[error("policy denies {subject}: privileged is true, allowed is false")]
    Privileged { subject: Subject },
    /// A resource limit that the policy does not name.
    #[error(
        "policy denies {subject}: limit {kind} of {soft}:{hard} is not named in rlimits or memlock-bytes, allowed is {allowed}"
    )]
    Rlimit {
        subject: Subject,
        kind: String,
        soft: u64,
        hard: u64,
        allowed: String,
    },
    /// Another host name, or none at all.
    #[error("policy denies {subject}: hostname is {given}, allowed is {allowed}")]
    Hostname {
        subject: Subject,
        given: String,
        allowed: String,
    },
    /// A terminal is wanted.
    #[error("policy denies {subject}: terminal is true, allowed is false: a terminal is not allowed")]
    Terminal { subject: Subject },
    /// A read-only root is wanted where the policy has a writable one.
    #[error(
        "policy denies {subject}: readonly-rootfs is asked to be true, allowed is false: the policy makes the root file \
         system writable; do not ask for a read-only one, or have a policy with readonly-rootfs = \"any\""
    )]
    ReadonlyRootfs { subject: Subject },
    /// It is not its turn yet.
    #[error("policy denies starting {subject}: its after names {other}, allowed is when that {needed}")]
    Order {
        subject: Subject,
        other: String,
        needed: &'static str,
    },
    /// A command line of the host's choice while a required container is not there.
    #[error(
        "policy denies {subject}: exec is \"any\" and the ingress is shut by presence, {missing}; allowed is when nobody is \
         missing, or what exec names"
    )]
    ExecShut { subject: Subject, missing: String },
    /// A signal.
    #[error("policy denies {subject}: signal {given} is not named in signals, allowed is {allowed}")]
    Signal {
        subject: Subject,
        given: String,
        allowed: String,
    },
    /// A port of the pod.
    #[error("policy denies forwarding to port {port}: [pod] forward-ports does not name it, allowed is {allowed}")]
    Forward { port: u16, allowed: String },
    /// A port of the pod while a required container is not there.
    #[error("policy denies forwarding to port {port}: the ingress is shut by presence, {missing}")]
    Shut { port: u16, missing: String },
    /// An optional call.
    #[error("policy denies the call {call}: [pod] calls does not name it, allowed is {allowed}")]
    Call { call: &'static str, allowed: String },
    /// What containers use.
    #[error("policy denies statistics: [pod] stats is \"deny\", allowed is nothing")]
    Stats,
    /// Somebody whom containers may not speak to.
    #[error(
        "policy denies connecting to {to} {protocol} {port}: [network] egress does not name it, allowed is {allowed}"
    )]
    Connect {
        to: IpAddr,
        protocol: Protocol,
        port: u16,
        allowed: String,
    },
    /// A port that clients may not use.
    #[error("policy denies clients at {port}: [network] ingress does not name it, allowed is {allowed}")]
    Client { port: Port, allowed: String },
    /// A port that clients may use, while a required container is not there.
    #[error("policy denies clients at {port}: the ingress is shut by presence, {missing}")]
    ClientShut { port: Port, missing: String },
    /// Packets of the pod's containers that no rule lets out. Where they were going is not said: a container chooses it.
    #[error(
        "policy denies packets: [network] egress does not name where at most {packets} of the pod's containers were going"
    )]
    Egress { packets: u64 },
    /// Packets for the pod's containers that no rule lets in.
    #[error(
        "policy denies packets: [network] ingress does not name the ports of at most {packets} that came in, or the ingress \
         is shut by presence"
    )]
    Ingress { packets: u64 },
    /// One process namespace for all containers is wanted.
    #[error("policy denies {subject}: share-process-namespace is asked to be true, allowed is false")]
    SharedPid { subject: Subject },
    /// A namespace of the host.
    #[error("policy denies {subject}: it asks for the host's {given} namespace, allowed is the pod's own")]
    HostNamespace { subject: Subject, given: String },
    /// A kernel parameter.
    #[error("policy denies sysctl {name}: not named by [pod] sysctl, allowed is {allowed}")]
    Sysctl { name: String, allowed: String },
    /// A value that no kernel parameter has.
    #[error("policy denies sysctl {name}: its value is {given}, allowed is up to 1024 printable characters")]
    SysctlValue { name: String, given: String },
    /// A device or hook.
    #[error("policy denies {subject}: {what} {given} is not allowed, allowed is {allowed}")]
    Extra {
        subject: Subject,
        what: &'static str,
        given: String,
        allowed: &'static str,
    },
}

/// Whose request it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A container, by the policy's name or, where none was found, nothing.
    Container(String),
    /// A further process in a container.
    Exec(String),
    /// The pod.
    Pod,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container(name) if name.is_empty() => f.write_str("the container"),
            Self::Container(name) => write!(f, "container {name:?}"),
            Self::Exec(name) => write!(f, "exec in container {name:?}"),
            Self::Pod => f.write_str("the pod"),
        }
    }
}
