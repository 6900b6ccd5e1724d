//! What can be wrong with a policy.

use std::fmt;

use crate::capability::CapabilityError;
use crate::names::NameError;
use crate::pem::PemError;
use crate::signal::SignalError;
use crate::volume::VolumeKindError;

/// Why a text is no policy. Every variant says where; messages hold nothing but the policy's own text, which is public.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Longer than an initdata document may be.
    #[error("policy: {found} bytes, the limit is {limit}")]
    TooLarge {
        /// Length of the text.
        found: usize,
        /// Longest length that is read.
        limit: usize,
    },
    /// No TOML, a missing key, a wrong type, or a key that this version does not know (named in `reason`).
    #[error("policy, line {line}: {reason}")]
    Syntax {
        /// Line, from 1; 0 when the parser could not tell.
        line: usize,
        /// The parser's words, one line.
        reason: String,
    },
    /// `version` is not the one that is implemented.
    #[error("policy: version is {found}, this program knows {known} only", known = crate::POLICY_VERSION)]
    Version {
        /// What the policy says.
        found: u64,
    },
    /// A name, path, reference or endpoint breaks its rule.
    #[error("policy, {place}: {error}")]
    Name {
        /// Where.
        place: Place,
        /// What is wrong.
        error: NameError,
    },
    /// A certificate authority is missing or malformed.
    #[error("policy, {place}: {error}")]
    Certificate {
        /// Where.
        place: Place,
        /// What is wrong.
        error: PemError,
    },
    /// TLS without an authority to trust: the guest trusts no public roots.
    #[error("policy, {place}: https needs `ca`, the PEM of the authority that signed the server's certificate")]
    NoAuthority {
        /// Where.
        place: Place,
    },
    /// A key is named, and nobody who could release it.
    #[error("policy: key {key} is named, but there is no [kbs] to ask for it")]
    NoBroker {
        /// The first such key.
        key: String,
    },
    /// The key broker must be spoken to with TLS.
    #[error("policy, {place}: plain http is refused, keys travel over https only")]
    PlainHttp {
        /// Where.
        place: Place,
    },
    /// No such capability.
    #[error("policy, {place}: {error}")]
    Capability {
        /// Where.
        place: Place,
        /// What is wrong.
        error: CapabilityError,
    },
    /// No such signal.
    #[error("policy, {place}: {error}")]
    Signal {
        /// Where.
        place: Place,
        /// What is wrong.
        error: SignalError,
    },
    /// No such kind of volume.
    #[error("policy, {place}: {error}")]
    Volume {
        /// Where.
        place: Place,
        /// What is wrong.
        error: VolumeKindError,
    },
    /// Two entries that must differ do not.
    #[error("policy, {place}: {what} {name:?} appears twice")]
    Duplicate {
        /// Where the second one is.
        place: Place,
        /// What kind of name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A name refers to nothing in this policy.
    #[error("policy, {place}: no [[{what}]] is named {name:?}")]
    Dangling {
        /// Where the name is used.
        place: Place,
        /// The table that should define it.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A container that could only start after itself.
    #[error("policy, {place}: {name:?} in turn starts after this container")]
    Circle {
        /// Where.
        place: Place,
        /// Who stands there.
        name: String,
    },
    /// A number or a length is out of its range.
    #[error("policy, {place}: {found} is out of range, allowed is {least} to {most}")]
    Range {
        /// Where.
        place: Place,
        /// What stands there.
        found: u64,
        /// Smallest that is allowed.
        least: u64,
        /// Largest that is allowed.
        most: u64,
    },
    /// A value is not one of those that are allowed.
    #[error("policy, {place}: {found:?} is not allowed here, expected {expected}")]
    Choice {
        /// Where.
        place: Place,
        /// What stands there.
        found: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// An argument or environment variable that no process could get.
    #[error("policy, {place}: {rule}")]
    Text {
        /// Where.
        place: Place,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// A mount that would hide, or lie within, another one or a part of the system.
    #[error("policy, {place}: {path} overlaps {other}")]
    Overlap {
        /// Where.
        place: Place,
        /// The mount's destination.
        path: String,
        /// What it collides with.
        other: String,
    },
    /// `require-encrypted = true` without a key that could decrypt anything.
    #[error("policy, {place}: encrypted layers are required, but image-keys names no key")]
    EncryptedWithoutKey {
        /// Where.
        place: Place,
    },
}

/// A place in a policy, in the words of the file: `container "server" args[3]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Place(String);

impl Place {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The same place, one step further in.
    pub(crate) fn with(&self, field: &str) -> Self {
        Self(format!("{} {field}", self.0))
    }

    /// The same place, at an index of a list.
    pub(crate) fn at(&self, field: &str, index: usize) -> Self {
        Self(format!("{} {field}[{index}]", self.0))
    }

    /// An entry of the list that this place is.
    pub(crate) fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Line (from 1) and one-line reason of a TOML error in `text`.
pub(crate) fn toml_reason(text: &str, error: &toml::de::Error) -> (usize, String) {
    let line = error
        .span()
        .and_then(|span| text.as_bytes().get(..span.start))
        .map_or(0, |before| before.iter().filter(|byte| **byte == b'\n').count() + 1);
    let mut reason: String = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = reason.char_indices().nth(400) {
        reason.truncate(end);
        reason.push('…');
    }
    (line, reason)
}
