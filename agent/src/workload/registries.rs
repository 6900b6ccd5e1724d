//! The registries that the policy names, and how patient the agent is with them.

use std::{collections::BTreeMap, time::Duration};

use cella_http::{ClientConfig, Dates, HttpError, TlsRoots, TrustedTime};
use cella_oci::{Descriptor, Digest, Manifest, Registry, RegistryError};
use cella_policy::{DigestRef, Policy};

use super::error::{Cause, Subject, WorkloadError};

/// A client for each registry of the policy.
#[derive(Debug)]
pub(crate) struct Registries(BTreeMap<String, Registry>);

impl Registries {
    /// Clients for all registries, which judge certificates by `time`. Nothing is dialled yet.
    pub(crate) fn of(policy: &Policy, time: &TrustedTime) -> Result<Self, WorkloadError> {
        let mut clients = BTreeMap::new();
        for registry in policy.registries() {
            let failed = |cause: Cause| WorkloadError::Internal {
                doing: "setting up a registry's client",
                cause,
            };
            let origin = registry
                .endpoint
                .to_string()
                .parse()
                .map_err(|error| failed(Cause::new(OriginError(error))))?;
            let roots = registry
                .ca
                .as_ref()
                .map(|ca| TlsRoots::from_pem(ca.as_str()))
                .transpose();
            let roots = roots.map_err(|error| failed(Cause::new(error)))?;
            let name = registry.name.as_str();
            let config = ClientConfig {
                dates: Dates::Trusted(time.clone()),
                ..ClientConfig::default()
            };
            let client = Registry::with_config(origin, roots, name, config);
            let client = client.map_err(|error| failed(Cause::new(error)))?;
            clients.insert(name.to_owned(), client);
        }
        Ok(Self(clients))
    }

    /// What `reference` points to, for `subject`.
    pub(crate) fn artifact(&self, reference: &DigestRef, subject: Subject) -> Result<Artifact, WorkloadError> {
        let name = reference.registry().as_str();
        match self.0.get(name) {
            Some(registry) => Ok(Artifact {
                registry: registry.clone(),
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

/// An artifact in a registry: an image or a model.
#[derive(Clone, Debug)]
pub(crate) struct Artifact {
    /// Where it is.
    pub(crate) registry: Registry,
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
        let mut patience = Patience::new();
        let bytes = loop {
            match self.registry.manifest(&self.repository, &self.digest).await {
                Ok(bytes) => break bytes,
                Err(error) => patience.after(error).await.map_err(|error| self.failed(error))?,
            }
        };
        Manifest::parse(&bytes).map_err(|error| self.content(error))
    }

    /// A small blob of the manifest, at most `max` bytes: its digest is the manifest's.
    pub(crate) async fn blob(&self, descriptor: &Descriptor, max: u64) -> Result<Vec<u8>, WorkloadError> {
        let mut patience = Patience::new();
        loop {
            match self.registry.blob(&self.repository, descriptor, max).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => patience.after(error).await.map_err(|error| self.failed(error))?,
            }
        }
    }

    /// Whether the registry's certificates were valid, as far as the time is known: for the end of a pull, whose connections
    /// may be older than that.
    pub(crate) fn check_dates(&self) -> Result<(), WorkloadError> {
        self.registry.check_dates().map_err(|error| WorkloadError::Registry {
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

/// Three tries, with growing pauses, for what may be better a moment later.
#[derive(Debug)]
pub(crate) struct Patience {
    tries: u32,
}

impl Patience {
    /// For something that was not tried yet.
    pub(crate) fn new() -> Self {
        Self { tries: 0 }
    }

    /// There was progress: what fails from now on is new.
    pub(crate) fn renew(&mut self) {
        self.tries = 0;
    }

    /// Waits before the next try; gives the error back where there is none.
    pub(crate) async fn after(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.tries += 1;
        if self.tries >= TRIES || !is_transient(&error) {
            return Err(error);
        }
        tokio::time::sleep(PAUSE * self.tries).await;
        Ok(())
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
