//! Names on the host: of a container, and of a further process in one.

use std::{fmt, str::FromStr};

/// Identifies a container. It becomes a directory's and a cgroup's name, so it is plain: containerd's own rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerId(String);

/// Identifies a process of ExecProcess within its container; containerd's rule too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExecId(String);

/// Identifies a process of the host's: a container's first one, or one of ExecProcess.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessId {
    /// The container it is in.
    pub container: ContainerId,
    /// Which of ExecProcess; `None` = the container's first.
    pub exec: Option<ExecId>,
}

impl ContainerId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The container's first process.
    pub fn first_process(&self) -> ProcessId {
        ProcessId {
            container: self.clone(),
            exec: None,
        }
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.exec {
            None => write!(f, "container {}", self.container),
            Some(exec) => write!(f, "process {exec} of container {}", self.container),
        }
    }
}

impl FromStr for ContainerId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        is_plain(text)
            .then(|| Self(text.to_owned()))
            .ok_or(IdError { what: "container" })
    }
}

impl FromStr for ExecId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        is_plain(text)
            .then(|| Self(text.to_owned()))
            .ok_or(IdError { what: "exec" })
    }
}

fn is_plain(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let starts_plain = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    starts_plain && text.len() <= MAX_LENGTH && text.bytes().all(plain)
}

/// A text that is no id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {what} id is not 1 to {MAX_LENGTH} letters, digits, _ . - beginning with a letter or digit")]
pub struct IdError {
    what: &'static str,
}

const MAX_LENGTH: usize = 76;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_plain_names() {
        for good in ["a", "demo-1", "0123456789abcdef_x.y"] {
            assert_eq!(good.parse::<ContainerId>().unwrap().as_str(), good);
            assert_eq!(good.parse::<ExecId>().unwrap().to_string(), good);
        }
        for bad in ["", ".", "..", "-a", "a/b", "a b", "a\0", "../x", &"a".repeat(77)] {
            assert_eq!(
                bad.parse::<ContainerId>(),
                Err(IdError { what: "container" }),
                "{bad:?}"
            );
            assert_eq!(bad.parse::<ExecId>(), Err(IdError { what: "exec" }), "{bad:?}");
        }
    }

    #[test]
    fn a_process_is_named_with_its_container() {
        let mut id = "c1".parse::<ContainerId>().unwrap().first_process();
        assert_eq!(id.to_string(), "container c1");
        id.exec = Some("e1".parse().unwrap());
        assert_eq!(id.to_string(), "process e1 of container c1");
    }
}
