//! Why a request is denied, in words for the operator who reads them through containerd.

/// One reason. Text that came from the host is quoted, escaped and cut; the policy's own text is public.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each variant's fields are named in its message")]
pub enum Denial {
    /// The host named a container that is not in the policy.
    #[error("policy denies container {name}: it names no such container")]
    UnknownContainer { name: String },
    /// No container has one of the images.
    #[error("policy denies image {image}: no container in the policy uses it")]
    UnknownImage { image: String },
    /// There was no image to compare.
    #[error("policy denies the container: no image was named; is the cella snapshotter in use?")]
    NoImage,
    /// The named container has another image.
    #[error("policy denies container {container:?}: image is {given}, allowed is {allowed}")]
    OtherImage {
        container: String,
        given: String,
        allowed: String,
    },
    /// An argument differs.
    #[error("policy denies container {container:?}: args[{index}] is {given}, allowed is {allowed}")]
    Argument {
        container: String,
        index: usize,
        given: String,
        allowed: String,
    },
    /// More arguments than the policy has.
    #[error("policy denies container {container:?}: args[{index}] is {given}, allowed is nothing more")]
    ExtraArgument {
        container: String,
        index: usize,
        given: String,
    },
    /// Fewer arguments than the policy has.
    #[error("policy denies container {container:?}: args[{index}] is missing, it must be {allowed}")]
    MissingArgument {
        container: String,
        index: usize,
        allowed: String,
    },
    /// A variable has another value.
    #[error("policy denies container {container:?}: variable {name} is {given}, allowed is {allowed}")]
    Variable {
        container: String,
        name: String,
        given: String,
        allowed: String,
    },
    /// A variable that the policy does not have.
    #[error("policy denies container {container:?}: variable {name} is not named")]
    ExtraVariable { container: String, name: String },
    /// A variable of the policy is not there.
    #[error("policy denies container {container:?}: variable {name} is missing")]
    MissingVariable { container: String, name: String },
    /// A variable is there twice: which value counts depends on the program.
    #[error("policy denies container {container:?}: variable {name} appears twice")]
    RepeatedVariable { container: String, name: String },
    /// Another working directory.
    #[error("policy denies container {container:?}: working directory is {given}, allowed is {allowed}")]
    WorkingDirectory {
        container: String,
        given: String,
        allowed: String,
    },
    /// Another user or group.
    #[error("policy denies container {container:?}: {field} is {given}, allowed is {allowed}")]
    User {
        container: String,
        field: &'static str,
        given: u32,
        allowed: u32,
    },
    /// Other additional groups.
    #[error("policy denies container {container:?}: additional groups are {given:?}, allowed are {allowed:?}")]
    Groups {
        container: String,
        given: Vec<u32>,
        allowed: Vec<u32>,
    },
    /// A mount that the policy does not name.
    #[error("policy denies mount {destination} of type {kind}: not named by container {container:?}")]
    Mount {
        container: String,
        destination: String,
        kind: String,
    },
    /// A capability that is neither in containerd's default set nor in the policy.
    #[error("policy denies container {container:?}: capability {given} is not named")]
    Capability { container: String, given: String },
    /// A resource limit that the policy does not name.
    #[error("policy denies container {container:?}: limit {kind} of {soft}:{hard} is not named")]
    Rlimit {
        container: String,
        kind: String,
        soft: u64,
        hard: u64,
    },
    /// Another host name, or none at all.
    #[error("policy denies container {container:?}: host name is {given}, allowed is {allowed}")]
    Hostname {
        container: String,
        given: String,
        allowed: String,
    },
    /// A terminal is wanted.
    #[error("policy denies container {container:?}: a terminal is not allowed")]
    Terminal { container: String },
    /// A read-only root is wanted where the policy has a writable one.
    #[error("policy denies container {container:?}: its root file system is writable, not read-only")]
    ReadonlyRootfs { container: String },
    /// A sysctl, device or hook.
    #[error("policy denies container {container:?}: {what} {given} is not allowed")]
    Extra {
        container: String,
        what: &'static str,
        given: String,
    },
}
