//! A container's name on the host.

use std::{fmt, str::FromStr};

/// Identifies a container. It becomes a directory's and a cgroup's name, so it is plain: containerd's own rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerId(String);

impl ContainerId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ContainerId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let starts_plain = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        if starts_plain && text.len() <= MAX_LENGTH && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError)
        }
    }
}

/// A text that is no container id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the container id is not 1 to {MAX_LENGTH} letters, digits, _ . - beginning with a letter or digit")]
pub struct IdError;

const MAX_LENGTH: usize = 76;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_plain_names() {
        for good in ["a", "demo-1", "0123456789abcdef_x.y"] {
            assert_eq!(good.parse::<ContainerId>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "-a", "a/b", "a b", "a\0", "../x", &"a".repeat(77)] {
            assert_eq!(bad.parse::<ContainerId>(), Err(IdError), "{bad:?}");
        }
    }
}
