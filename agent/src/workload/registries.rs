//! The registries that the policy names, and how patient the agent is with them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use cella_http::{ClientConfig, Dates, HttpError, TlsRoots, TrustedTime};
use cella_oci::{BlobReader, BlobStream, Descriptor, Digest, Manifest, Registry, RegistryError};
use cella_policy::{CertificatePem, DigestRef, Endpoint, Policy};
use slog::{Logger, warn};

use super::error::{Cause, Subject, WorkloadError};

/// Clients for each registry of the policy.
#[derive(Debug)]
pub(crate) struct Registries(BTreeMap<String, Arc<Sources>>);

impl Registries {
    /// Clients for all registries and their mirrors, which judge certificates by `time`. Nothing is dialled yet.
    pub(crate) fn of(policy: &Policy, time: &TrustedTime, log: &Logger) -> Result<Self, WorkloadError> {
        let mut all = BTreeMap::new();
        for registry in policy.registries() {
            let name = registry.name.as_str();
            let client = |endpoint, ca| client(name, endpoint, ca, time);
            let mirrors = registry.mirrors.iter();
            let sources = Sources {
                mirrors: mirrors
                    .map(|mirror| client(&mirror.endpoint, mirror.ca.as_ref()))
                    .collect::<Result<_, _>>()?,
                own: client(&registry.endpoint, registry.ca.as_ref())?,
                first: AtomicUsize::new(0),
                log: log.clone(),
            };
            all.insert(name.to_owned(), Arc::new(sources));
        }
        Ok(Self(all))
    }

    /// The registry itself, for a push.
    pub(crate) fn own(&self, name: &str) -> Result<Registry, WorkloadError> {
        let found = self.0.get(name).map(|sources| sources.own.clone());
        // The policy does not validate with an output for a registry that it does not have.
        found.ok_or_else(|| WorkloadError::internal("finding a registry", NoRegistry { name: name.to_owned() }))
    }

    /// What `reference` points to, for `subject`.
    pub(crate) fn artifact(&self, reference: &DigestRef, subject: Subject) -> Result<Artifact, WorkloadError> {
        let name = reference.registry().as_str();
        match self.0.get(name) {
            Some(sources) => Ok(Artifact {
                sources: Arc::clone(sources),
                repository: reference.repository().to_owned(),
                digest: Digest::from(*reference.digest().as_bytes()),
                subject,
            }),
            // The policy does not validate with a reference to a registry that it does not have.
            None => Err(WorkloadError::internal(
                "finding a registry",
                NoRegistry { name: name.to_owned() },
            )),
        }
    }
}

fn client(
    name: &str,
    endpoint: &Endpoint,
    ca: Option<&CertificatePem>,
    time: &TrustedTime,
) -> Result<Registry, WorkloadError> {
    let failed = |cause: Cause| WorkloadError::Internal {
        doing: "setting up a registry's client",
        cause,
    };
    let origin = endpoint.to_string().parse();
    let origin = origin.map_err(|error| failed(Cause::new(OriginError(error))))?;
    let roots = ca.map(|ca| TlsRoots::from_pem(ca.as_str())).transpose();
    let roots = roots.map_err(|error| failed(Cause::new(error)))?;
    let config = ClientConfig {
        dates: Dates::Trusted(time.clone()),
        ..ClientConfig::default()
    };
    Registry::with_config(origin, roots, name, config).map_err(|error| failed(Cause::new(error)))
}

/// A registry's mirrors, in the policy's order, and the registry itself, which is the last.
#[derive(Debug)]
struct Sources {
    mirrors: Vec<Registry>,
    own: Registry,
    /// Whom to ask first: who failed is passed over by everybody.
    first: AtomicUsize,
    log: Logger,
}

impl Sources {
    fn count(&self) -> usize {
        self.mirrors.len() + 1
    }

    fn at(&self, at: usize) -> &Registry {
        self.mirrors.get(at).unwrap_or(&self.own)
    }

    /// The one after `at`, which failed.
    fn pass(&self, at: usize) -> usize {
        let next = (at + 1) % self.count();
        // Unless another has done it.
        let _ = self
            .first
            .compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
        next
    }
}

/// An artifact in a registry: an image or a model.
#[derive(Clone, Debug)]
pub(crate) struct Artifact {
    sources: Arc<Sources>,
    /// Its repository there.
    pub(crate) repository: String,
    /// Digest of its manifest, from the policy.
    pub(crate) digest: Digest,
    /// What errors call it.
    pub(crate) subject: Subject,
}

impl Artifact {
    /// The manifest: its digest is the policy's, checked before it is parsed.
    pub(crate) async fn manifest(&self) -> Result<Manifest, WorkloadError> {
        let mut patience = self.patience();
        let bytes = loop {
            match patience.registry().manifest(&self.repository, &self.digest).await {
                Ok(bytes) => break bytes,
                Err(error) => patience.after(error).await.map_err(|error| self.failed(error))?,
            }
        };
        Manifest::parse(&bytes).map_err(|error| self.content(error))
    }

    /// A small blob of the manifest, at most `max` bytes: its digest is the manifest's.
    pub(crate) async fn blob(&self, descriptor: &Descriptor, max: u64) -> Result<Vec<u8>, WorkloadError> {
        let mut patience = self.patience();
        loop {
            match patience.registry().blob(&self.repository, descriptor, max).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => patience.after(error).await.map_err(|error| self.failed(error))?,
            }
        }
    }

    /// A blob, or a part of it, from whom `patience` has come to.
    pub(crate) async fn stream(
        &self,
        patience: &Patience,
        digest: &Digest,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<BlobStream, RegistryError> {
        patience.registry().blob_stream(&self.repository, digest, range).await
    }

    /// A part of a blob, to be read straight to where it belongs, from whom `patience` has come to.
    pub(crate) async fn reader(
        &self,
        patience: &Patience,
        digest: &Digest,
        range: std::ops::Range<u64>,
    ) -> Result<BlobReader, RegistryError> {
        patience.registry().blob_reader(&self.repository, digest, range).await
    }

    /// For something that was not tried yet.
    pub(crate) fn patience(&self) -> Patience {
        Patience {
            at: self.sources.first.load(Ordering::Relaxed) % self.sources.count(),
            sources: Arc::clone(&self.sources),
            asked: 0,
            hope: false,
            rounds: 0,
        }
    }

    /// Whether the registry's certificates were valid, as far as the time is known: for the end of a pull, whose connections
    /// may be older than that.
    pub(crate) fn check_dates(&self) -> Result<(), WorkloadError> {
        let sources = &self.sources;
        let mut all = sources.mirrors.iter().chain(Some(&sources.own));
        all.try_for_each(Registry::check_dates)
            .map_err(|error| WorkloadError::Registry {
                subject: self.subject.clone(),
                cause: Cause::new(error),
            })
    }

    /// Sorts what the registry's client says by blame.
    pub(crate) fn failed(&self, error: RegistryError) -> WorkloadError {
        match error {
            RegistryError::Digest { .. } | RegistryError::TooLarge { .. } | RegistryError::Length { .. } => {
                self.content(error)
            }
            error => WorkloadError::Registry {
                subject: self.subject.clone(),
                cause: Cause::new(error),
            },
        }
    }

    /// The artifact is not what it must be.
    pub(crate) fn content(&self, error: impl std::error::Error + Send + Sync + 'static) -> WorkloadError {
        WorkloadError::Content {
            subject: self.subject.clone(),
            cause: Cause::new(error),
        }
    }
}

/// Who is asked, and how often: one after the other without a pause, and all of them three times, with growing pauses between, for what
/// may be better a moment later.
#[derive(Debug)]
pub(crate) struct Patience {
    sources: Arc<Sources>,
    at: usize,
    /// How many were asked in this round.
    asked: usize,
    /// Whether one of them may do better the next time.
    hope: bool,
    rounds: u32,
}

impl Patience {
    /// There was progress: what fails from now on is new.
    pub(crate) fn renew(&mut self) {
        (self.asked, self.hope, self.rounds) = (0, false, 0);
    }

    /// Turns to the next one, perhaps after a pause; gives the error back where there is none.
    pub(crate) async fn after(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.asked += 1;
        self.hope |= is_transient(&error);
        let failed = self.at;
        self.at = self.sources.pass(failed);
        if self.asked < self.sources.count() {
            let (failed, next) = (self.sources.at(failed).origin(), self.registry().origin());
            warn!(self.sources.log, "a registry failed and the next one is asked"; "failed" => %failed, "next" => %next,
                "error" => %Cause::new(error));
            return Ok(());
        }
        self.rounds += 1;
        if self.rounds >= TRIES || !self.hope {
            return Err(error);
        }
        (self.asked, self.hope) = (0, false);
        tokio::time::sleep(PAUSE * self.rounds).await;
        Ok(())
    }

    /// Whose turn it is.
    fn registry(&self) -> &Registry {
        self.sources.at(self.at)
    }
}

fn is_transient(error: &RegistryError) -> bool {
    match error {
        RegistryError::Http { source, .. } | RegistryError::Interrupted { source, .. } => {
            matches!(
                source,
                HttpError::Connect { .. } | HttpError::Timeout { .. } | HttpError::Closed { .. }
            )
        }
        RegistryError::Truncated { .. } => true,
        RegistryError::Status { status, .. } => *status >= 500 || *status == 429,
        _ => false,
    }
}

/// The policy's endpoint is no origin.
#[derive(Debug, thiserror::Error)]
#[error("the registry's endpoint cannot be dialled")]
struct OriginError(#[source] cella_http::OriginError);

/// The policy names a registry that it does not have.
#[derive(Debug, thiserror::Error)]
#[error("the policy has no registry {name}")]
struct NoRegistry {
    name: String,
}

const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);
