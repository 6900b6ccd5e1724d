//! Names in a policy, as types whose constructors refuse what cannot be.
//!
//! Parsed from text that the policy's author wrote; also used on text from the host, so every rule is a length or
//! character check that ends in a [`NameError`].

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

/// A key at the broker: `kbs:///<repository>/<type>/<tag>`. The host part is always empty: the broker is the policy's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

impl KeyId {
    /// The whole identifier, `kbs:///demo/model-kek/1`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The resource path that the broker is asked for, `demo/model-kek/1`.
    pub fn path(&self) -> &str {
        self.0.strip_prefix(KEY_SCHEME).unwrap_or_default()
    }
}

impl FromStr for KeyId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let path = text
            .strip_prefix(KEY_SCHEME)
            .ok_or_else(|| NameError::key(text, "must begin with kbs:///"))?;
        let segments: Vec<&str> = path.split('/').collect();
        if segments.len() != 3 {
            return Err(NameError::key(text, "must be kbs:///<repository>/<type>/<tag>"));
        }
        if !segments.iter().all(|segment| is_segment(segment)) {
            return Err(NameError::key(
                text,
                "each part is 1 to 128 of A-Z a-z 0-9 _ . - and neither . nor ..",
            ));
        }
        if path == PUBLISHED_TEST_KEY {
            return Err(NameError::key(
                text,
                "this key is published in the source of coco_keyprovider",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A SHA-256 digest, written `sha256:<64 lower-case hexadecimal digits>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Digest([u8; 32]);

impl Sha256Digest {
    /// The digest's bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Sha256Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl FromStr for Sha256Digest {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bad = || NameError::digest(text, "must be sha256: and 64 lower-case hexadecimal digits");
        let digits = text.strip_prefix("sha256:").ok_or_else(bad)?;
        if digits.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| bad())?;
        Ok(Self(bytes))
    }
}

/// A registry as it stands in front of a reference: `host` or `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryName(String);

impl RegistryName {
    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RegistryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (host, port) = split_port(text);
        if !is_host(host) || port.is_some_and(|port| parse_port(port).is_none()) {
            return Err(NameError::registry(text, "must be host or host:port"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// An image or artifact by content: `registry/repository@sha256:<hex>`. A tag beside the digest is refused, because
/// nobody would look at it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DigestRef {
    registry: RegistryName,
    repository: String,
    digest: Sha256Digest,
}

impl DigestRef {
    /// Which registry, by the name that the policy gives it.
    pub fn registry(&self) -> &RegistryName {
        &self.registry
    }

    /// Repository within the registry, `demo/llama-server`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Digest of the manifest.
    pub fn digest(&self) -> &Sha256Digest {
        &self.digest
    }
}

impl FromStr for DigestRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bad = |rule| NameError::reference(text, rule);
        let (name, digest) = text
            .split_once('@')
            .ok_or_else(|| bad("has no digest; write …@sha256:<hex>"))?;
        let digest = digest
            .parse()
            .map_err(|_| bad("the digest must be sha256: and 64 lower-case hexadecimal digits"))?;
        let (registry, repository) = name
            .split_once('/')
            .ok_or_else(|| bad("has no registry; write host/repository"))?;
        let registry = registry
            .parse()
            .map_err(|_| bad("the registry must be host or host:port"))?;
        if repository.contains(':') {
            return Err(bad("has a tag beside its digest; leave the tag out"));
        }
        if !is_repository(repository) {
            return Err(bad(
                "the repository must be lower-case parts of a-z 0-9 . _ - joined by /",
            ));
        }
        Ok(Self {
            registry,
            repository: repository.to_owned(),
            digest,
        })
    }
}

/// How an endpoint is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS: for content that is checked by digest.
    Http,
    /// With TLS, trusting only the authority that stands beside it in the policy.
    Https,
}

/// Where a service listens: `https://host:port`. No path, query or user; the port is always explicit in the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    scheme: Scheme,
    host: String,
    port: u16,
}

impl Endpoint {
    /// With or without TLS.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host name or address; an IPv6 address stands in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Endpoint {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bad = |rule| NameError::endpoint(text, rule);
        let (scheme, rest, default_port) = if let Some(rest) = text.strip_prefix("https://") {
            (Scheme::Https, rest, 443)
        } else if let Some(rest) = text.strip_prefix("http://") {
            (Scheme::Http, rest, 80)
        } else {
            return Err(bad("must begin with https:// or http://"));
        };
        let (host, port) = split_port(rest.strip_suffix('/').unwrap_or(rest));
        if !is_host(host) {
            return Err(bad("must be scheme://host:port without path, query or user"));
        }
        let port = match port {
            Some(port) => parse_port(port).ok_or_else(|| bad("the port must be 1 to 65535"))?,
            None => default_port,
        };
        Ok(Self {
            scheme,
            host: host.to_owned(),
            port,
        })
    }
}

/// An absolute path in the container, normalised: no `.`, no `..`, no empty part, no trailing slash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestPath(String);

impl GuestPath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True for `/`.
    pub fn is_root(&self) -> bool {
        self.0 == "/"
    }

    /// True when both are the same or `self` lies below `other`.
    pub fn is_within(&self, other: &GuestPath) -> bool {
        other.is_root()
            || self
                .0
                .strip_prefix(other.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl FromStr for GuestPath {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bad = |rule| NameError::path(text, rule);
        let rest = text.strip_prefix('/').ok_or_else(|| bad("must be absolute"))?;
        if text.len() > MAX_PATH {
            return Err(bad("is longer than 4095 bytes"));
        }
        if text.chars().any(char::is_control) {
            return Err(bad("has a control character"));
        }
        if !rest.is_empty() && rest.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(bad("must be normalised: no //, no . or .., no slash at the end"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A name that breaks its rule. The message quotes at most 120 characters of what was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {given}: {rule}")]
pub struct NameError {
    kind: &'static str,
    given: String,
    rule: &'static str,
}

impl NameError {
    pub(crate) fn new(kind: &'static str, given: &str, rule: &'static str) -> Self {
        Self {
            kind,
            given: shown(given),
            rule,
        }
    }

    fn key(given: &str, rule: &'static str) -> Self {
        Self::new("key", given, rule)
    }

    fn digest(given: &str, rule: &'static str) -> Self {
        Self::new("digest", given, rule)
    }

    fn registry(given: &str, rule: &'static str) -> Self {
        Self::new("registry", given, rule)
    }

    fn reference(given: &str, rule: &'static str) -> Self {
        Self::new("reference", given, rule)
    }

    fn endpoint(given: &str, rule: &'static str) -> Self {
        Self::new("endpoint", given, rule)
    }

    fn path(given: &str, rule: &'static str) -> Self {
        Self::new("path", given, rule)
    }
}

/// Foreign text made fit for a message: quoted, escaped, at most 120 characters.
pub(crate) fn shown(text: &str) -> String {
    const LIMIT: usize = 120;
    match text.char_indices().nth(LIMIT) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
    }
}

/// A name of a container: 1 to 63 of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit.
pub(crate) fn is_container_name(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// A repository path as the distribution specification has it: parts of letters and digits with single separators.
pub(crate) fn is_repository(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_separator = |text: &str| matches!(text, "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
    let is_part = |part: &str| {
        part.starts_with(alphanumeric) && part.ends_with(alphanumeric) && part.split(alphanumeric).all(is_separator)
    };
    text.len() <= 255 && text.split('/').all(is_part)
}

/// A host name as the kernel takes it: 1 to 64 of `A-Z a-z 0-9 . -`.
pub(crate) fn is_hostname(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && !text.starts_with(['-', '.'])
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
}

/// One part of a key's name, or a policy's name.
pub(crate) fn is_segment(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && !matches!(text, "." | "..")
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn is_host(text: &str) -> bool {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    text.len() <= 253
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
}

/// Splits `host:port`; the colons of a bracketed IPv6 address stay with the host.
fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    }
}

fn parse_port(text: &str) -> Option<u16> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|port| *port != 0)
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for RegistryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for DigestRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.registry, self.repository, self.digest)
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme, self.host, self.port)
    }
}

impl fmt::Display for GuestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const KEY_SCHEME: &str = "kbs:///";
const PUBLISHED_TEST_KEY: &str = "default/test-key/1";
const MAX_PATH: usize = 4095;
