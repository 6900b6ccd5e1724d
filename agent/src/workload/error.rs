//! Why a pod's keys, images or models are not there, told apart by who is to blame.
//!
//! One failure is given to everybody who waits for the same thing, so errors are cheap to clone. Each is one line that an
//! operator on the host may read: it names references, digests and sizes, which the host knows anyway, and never a name
//! from inside an image, a key or a byte of content.

use std::{error::Error, fmt, ops::Range, sync::Arc};

use cella_oci::Digest;
use cella_policy::{KeyId, ModelDigest};

/// Why something of the workload is not there.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkloadError {
    /// A container that the policy does not have was asked for.
    #[error("the policy names no container {container:?}")]
    UnknownContainer {
        /// The name that was asked for.
        container: String,
    },
    /// The broker does not release a key to this guest.
    #[error("key broker {broker} refused key {key}: {reason}")]
    KeyRefused {
        /// The broker's address.
        broker: String,
        /// The key.
        key: KeyId,
        /// The broker's words, printable and short.
        reason: String,
    },
    /// The broker does not have a key that the policy names.
    #[error("key broker {broker} has no key {key}: store it there, or correct the policy")]
    KeyMissing {
        /// The broker's address.
        broker: String,
        /// The key.
        key: KeyId,
    },
    /// The broker's key is none.
    #[error("key broker {broker}: key {key} has {found} bytes, a key that wraps others has 32")]
    KeyLength {
        /// The broker's address.
        broker: String,
        /// The key.
        key: KeyId,
        /// Its length.
        found: usize,
    },
    /// The broker does not believe this guest.
    #[error("key broker {broker} refused the evidence of this guest: {reason}")]
    EvidenceRefused {
        /// The broker's address.
        broker: String,
        /// The broker's words, printable and short.
        reason: String,
    },
    /// The broker could not be reached or made no sense. The cause names it.
    #[error("{cause}")]
    Broker {
        /// What went wrong.
        cause: Cause,
    },
    /// The platform gave no evidence.
    #[error("the platform gave no evidence for this guest: {cause}")]
    Evidence {
        /// What went wrong.
        cause: Cause,
    },
    /// A registry could not be reached, does not have something, or made no sense.
    #[error("{subject}: {cause}")]
    Registry {
        /// What was being fetched.
        subject: Subject,
        /// What went wrong.
        cause: Cause,
    },
    /// A manifest or configuration is not what it must be.
    #[error("{subject}: {cause}")]
    Content {
        /// What it belongs to.
        subject: Subject,
        /// What is wrong.
        cause: Cause,
    },
    /// An image layer is not what it must be.
    #[error("image {image}: layer {layer} ({digest}) {fault}")]
    Layer {
        /// The image, without its digest.
        image: String,
        /// Number of the layer, the lowest being 0.
        layer: usize,
        /// Its digest in the manifest.
        digest: Digest,
        /// What is wrong.
        fault: LayerFault,
    },
    /// A part of a model could not be had from its registry.
    #[error("model {model}: segment {segment} of {path} could not be fetched: {cause}")]
    Fetch {
        /// The model.
        model: String,
        /// Path in the model.
        path: String,
        /// Number of the segment, from 0.
        segment: u32,
        /// What went wrong.
        cause: Cause,
    },
    /// A model is authentic and not the one that the policy names.
    #[error("model {model} is {found}, the policy names {policy}")]
    Provenance {
        /// The model.
        model: String,
        /// Digest of its plaintext.
        found: ModelDigest,
        /// The policy's.
        policy: ModelDigest,
    },
    /// A segment of a model was changed, exchanged, or sealed for something else.
    #[error("model {model}: segment {segment} of {path} is not authentic")]
    Segment {
        /// The model.
        model: String,
        /// Path in the model.
        path: String,
        /// Number of the segment, from 0.
        segment: u32,
    },
    /// A file of a model is not what it must be.
    #[error("model {model}: {path} {fault}")]
    File {
        /// The model.
        model: String,
        /// Path in the model.
        path: String,
        /// What is wrong.
        fault: FileFault,
    },
    /// A model does not fit.
    #[error("model {model} needs {} MB, the guest has {} MB free", megabytes_up(*needs), megabytes(*free))]
    ModelMemory {
        /// The model.
        model: String,
        /// Bytes that it takes, rounded up to whole pages.
        needs: u64,
        /// Bytes that could be given to it.
        free: u64,
    },
    /// Memory that was there for a model was taken by something else meanwhile.
    #[error("model {model}: {} MB of memory were there for {path} and are not any more; {} MB are free", megabytes_up(*needs), megabytes(*free))]
    ModelMemoryGone {
        /// The model.
        model: String,
        /// Path in the model.
        path: String,
        /// Bytes of the file.
        needs: u64,
        /// Bytes that could be given to it now.
        free: u64,
    },
    /// An image does not fit.
    #[error("image {image} does not fit: the guest has {} MB free for it", megabytes(*free))]
    ImageMemory {
        /// The image, without its digest.
        image: String,
        /// Bytes that could be given to it.
        free: u64,
    },
    /// What a job may leave does not fit.
    #[error("output {output} may take {} MB, the guest has {} MB free", megabytes_up(*needs), megabytes(*free))]
    OutputMemory {
        /// The output.
        output: String,
        /// Bytes that it may take, rounded up to whole pages.
        needs: u64,
        /// Bytes that could be given to it.
        free: u64,
    },
    /// The container's output was pushed: there is no key any more for another one.
    #[error("output {output} was pushed already, as {reference}: a guest pushes one")]
    OutputPushed {
        /// The output.
        output: String,
        /// The artifact.
        reference: String,
    },
    /// The guest itself failed.
    #[error("the guest failed at {doing}: {cause}")]
    Internal {
        /// What it was doing.
        doing: &'static str,
        /// What went wrong.
        cause: Cause,
    },
    /// The machine is being shut down.
    #[error("the guest is shutting down")]
    ShutDown,
}

impl WorkloadError {
    /// Who has to act.
    pub fn blame(&self) -> Blame {
        match self {
            Self::UnknownContainer { .. } | Self::OutputPushed { .. } => Blame::Policy,
            Self::KeyRefused { .. } | Self::EvidenceRefused { .. } => Blame::Refused,
            Self::KeyMissing { .. } | Self::KeyLength { .. } | Self::Broker { .. } => Blame::Broker,
            Self::Evidence { .. } => Blame::Host,
            Self::Registry { .. } | Self::Fetch { .. } => Blame::Registry,
            Self::Content { .. }
            | Self::Layer { .. }
            | Self::Segment { .. }
            | Self::Provenance { .. }
            | Self::File { .. } => Blame::Content,
            Self::ModelMemory { .. }
            | Self::ModelMemoryGone { .. }
            | Self::ImageMemory { .. }
            | Self::OutputMemory { .. } => Blame::Memory,
            Self::Internal { .. } | Self::ShutDown => Blame::Internal,
        }
    }

    pub(crate) fn internal(doing: &'static str, error: impl Error + Send + Sync + 'static) -> Self {
        Self::Internal {
            doing,
            cause: Cause::new(error),
        }
    }
}

/// Who has to act on a [`WorkloadError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Blame {
    /// Whoever asked for what the policy does not have.
    Policy,
    /// The owner of the key: the broker understood and said no.
    Refused,
    /// The operator of the key broker.
    Broker,
    /// The operator of the registry.
    Registry,
    /// The author of image or model, or somebody who changed it on the way.
    Content,
    /// Whoever sized the guest.
    Memory,
    /// The host's platform.
    Host,
    /// The agent.
    Internal,
}

/// What was being fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// An image: its repository, without the digest.
    Image(String),
    /// A model: its name in the policy.
    Model(String),
    /// What a job leaves: its name and version in the policy.
    Output(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(name) => write!(f, "image {name}"),
            Self::Model(name) => write!(f, "model {name}"),
            Self::Output(name) => write!(f, "output {name}"),
        }
    }
}

/// What is wrong with an image layer; continues the sentence "layer 2 …".
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerFault {
    /// The blob is not the one that the manifest names.
    #[error("is not authentic: its SHA-256 differs")]
    Digest,
    /// The encrypted layer's MAC is wrong.
    #[error("is not authentic: HMAC differs")]
    Hmac,
    /// The decrypted layer is not the one that was encrypted.
    #[error("is not authentic: the digest of the decrypted layer differs")]
    PlainDigest,
    /// The unpacked layer is not the one that the configuration names.
    #[error("is not authentic: its diff_id differs")]
    DiffId,
    /// The blob is shorter or longer than the manifest says.
    #[error("is not authentic: it has {found} bytes, the manifest says {expected}")]
    Length {
        /// Bytes that came, at least.
        found: u64,
        /// Bytes in the manifest.
        expected: u64,
    },
    /// The policy wants encrypted layers only.
    #[error("is not encrypted, and the policy demands that it is")]
    NotEncrypted,
    /// The layer's key cannot be had from its annotations.
    #[error("cannot be opened: {0}")]
    Key(Cause),
    /// The layer's archive cannot be unpacked.
    #[error("cannot be unpacked: {0}")]
    Unpack(Cause),
}

/// What is wrong with a file of a model; continues the sentence "model.gguf …".
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileFault {
    /// The file's key cannot be had from its annotations.
    #[error("cannot be opened: {0}")]
    Key(Cause),
    /// The policy wants sealed files only.
    #[error("is not sealed: {media_type} is taken sealed only")]
    NotSealed {
        /// Its media type.
        media_type: String,
    },
    /// The header is none.
    #[error("is not authentic: {0}")]
    Header(Cause),
    /// The registry does not have all of it.
    #[error("is not whole in the registry: of its {expected} bytes, {} to {} are missing, from segment {segment} on", range.start, range.end)]
    Missing {
        /// The first segment that is not there, from 0.
        segment: u32,
        /// Bytes that were asked for.
        range: Range<u64>,
        /// Bytes in the manifest.
        expected: u64,
    },
    /// The lengths cannot be.
    #[error("is not sealed: {0}")]
    Layout(Cause),
}

/// An error of whatever kind that can be shared; shown with its own causes in one line.
#[derive(Clone)]
pub struct Cause(Arc<dyn Error + Send + Sync>);

impl Cause {
    /// Wraps `error`.
    pub(crate) fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Arc::from(error.into()))
    }

    /// The error as it was.
    pub fn error(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.0
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = self.0.to_string();
        let mut next = self.0.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // Some errors repeat their source.
            if !line.ends_with(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            next = cause.source();
        }
        f.write_str(&printable(&line, MAX_LINE))
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cause({self})")
    }
}

/// `text` without control characters and not longer than `max` characters.
pub(crate) fn printable(text: &str, max: usize) -> String {
    text.chars()
        .take(max)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// Longest line of causes, in characters.
const MAX_LINE: usize = 500;

fn megabytes(bytes: u64) -> u64 {
    bytes / 1_000_000
}

/// Rounded up, so that what does not fit never reads as if it did.
fn megabytes_up(bytes: u64) -> u64 {
    bytes.div_ceil(1_000_000)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("reading\nx")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_cause_is_one_printable_line_with_its_causes() {
        let cause = Cause::new(Outer(io::Error::other("disk gone")));
        assert_eq!(cause.to_string(), "reading?x: disk gone");
        assert!(cause.error().source().is_some());
        let long = Cause::new(io::Error::other("x".repeat(10_000)));
        assert_eq!(long.to_string().len(), MAX_LINE);
    }

    #[test]
    fn sizes_that_do_not_fit_never_read_as_if_they_did() {
        let error = WorkloadError::ModelMemory {
            model: "models/demo".into(),
            needs: 1_076_999_001,
            free: 400_999_999,
        };
        assert_eq!(
            error.to_string(),
            "model models/demo needs 1077 MB, the guest has 400 MB free"
        );
        assert_eq!(error.blame(), Blame::Memory);
    }
}
