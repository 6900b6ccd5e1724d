//! Files to layers, layers to an artifact: each blob first, the manifest last.

use std::{collections::BTreeMap, path::Path, time::Duration};

use bytes::Bytes;
use cella_http::HttpError;
use cella_oci::{
    Descriptor, Digest, Manifest, Registry, RegistryError, media_type,
    modelpack::{MAX_CONFIG, ModelDescriptor, ModelParameters, NewLayer, NewModel, write_model},
};
use cella_policy::OutputPolicy;
use cella_record::RUN_MEDIA_TYPE;
use cella_seal::{
    Kek, PlainDigest,
    packet::{self, Cipher, PrivateOptions, PubOpts},
    place,
    stream::Layout,
};

use super::{
    OutputError,
    collect::{OutputFile, collect, format},
    pipe::pipe,
    seal::{Sealed, seal},
};
use crate::workload::{Cause, Subject, WorkloadError};

/// What a push takes, once the key is there. The key is zeroed with it.
pub(crate) struct Opened {
    pub(super) registry: Registry,
    pub(super) kek: Kek,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opened({})", self.registry.name())
    }
}

/// An artifact that is in its registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pushed {
    /// `registry/repository@sha256:…`.
    pub(super) reference: String,
    /// Its files.
    pub(super) files: Vec<PushedFile>,
}

/// One of its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PushedFile {
    pub(super) path: String,
    /// Of the plaintext.
    pub(super) digest: Digest,
    pub(super) bytes: u64,
}

impl Opened {
    /// Whether the registry takes anything at all: better before a job's hours of work than after them. A registry that is not there now
    /// may be there then.
    pub(super) async fn check(&self, policy: &OutputPolicy) -> Result<(), WorkloadError> {
        match self.registry.check_push(&policy.repository).await {
            Err(error) if !is_transient(&error) => Err(WorkloadError::Registry {
                subject: Subject::Output(policy.to_string()),
                cause: Cause::new(error),
            }),
            _ => Ok(()),
        }
    }

    /// Seals and pushes what lies below `folder`, which nobody writes to any more. Dropped halfway, it leaves nothing that has a name.
    pub(super) async fn push(&self, policy: &OutputPolicy, folder: &Path) -> Result<Pushed, OutputError> {
        let (root, max_bytes) = (folder.to_owned(), policy.max_bytes);
        let files = tokio::task::spawn_blocking(move || collect(&root, max_bytes));
        let files = files.await.map_err(|_| OutputError::Interrupted)??;
        let mut layers = Vec::with_capacity(files.len());
        for file in &files {
            let mut patience = Patience::default();
            layers.push(loop {
                match self.push_file(policy, file).await {
                    Ok(layer) => break layer,
                    Err(error) => patience.after(error).await?,
                }
            });
        }
        let pushed = layers.iter().map(|layer| PushedFile {
            path: layer.path.to_string(),
            digest: layer.diff_id,
            bytes: Layout::from_ciphertext_len(layer.size).map_or(0, |layout| layout.plaintext_len()),
        });
        let pushed = pushed.collect();
        let model = NewModel {
            name: policy.name.clone(),
            version: policy.version,
            descriptor: ModelDescriptor::default(),
            parameters: ModelParameters {
                format: format(&files).map(str::to_owned),
                ..ModelParameters::default()
            },
            layers,
        };
        let digest = self.push_manifest(policy, model).await?;
        // The connection may be older than the time is known.
        self.registry.check_dates().map_err(OutputError::Dates)?;
        Ok(Pushed {
            reference: format!("{}/{}@{digest}", policy.registry, policy.repository),
            files: pushed,
        })
    }

    /// Pushes the record of the run beside what it has left: where it stays when the guest is gone. It is public.
    pub(super) async fn push_record(
        &self,
        policy: &OutputPolicy,
        pushed: &Pushed,
        text: &str,
    ) -> Result<(), OutputError> {
        let blobs = [Bytes::from_static(b"{}"), Bytes::copy_from_slice(text.as_bytes())];
        let repository = policy.repository.as_str();
        for blob in &blobs {
            self.registry.push_blob(repository, blob.clone()).await?;
        }
        let [config, record] = blobs.each_ref().map(|blob| Descriptor {
            media_type: RUN_MEDIA_TYPE.to_owned(),
            digest: Digest::of(blob),
            size: u64::try_from(blob.len()).unwrap_or(u64::MAX),
            annotations: BTreeMap::new(),
            platform: None,
        });
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: Some(RUN_MEDIA_TYPE.to_owned()),
            config: Descriptor {
                media_type: EMPTY_TYPE.to_owned(),
                ..config
            },
            layers: vec![record],
            annotations: BTreeMap::from([(OF_ANNOTATION.to_owned(), pushed.reference.clone())]),
        };
        let bytes = Bytes::from(manifest.to_json().map_err(|_| OutputError::Interrupted)?);
        let (tag, kind) = (policy.record_tag(), media_type::OCI_MANIFEST);
        self.registry.push_manifest(repository, Some(&tag), kind, bytes).await?;
        Ok(())
    }

    async fn push_manifest(&self, policy: &OutputPolicy, model: NewModel) -> Result<Digest, OutputError> {
        let (config, manifest) = write_model(model).map_err(OutputError::Artifact)?;
        let found = u64::try_from(config.len()).unwrap_or(u64::MAX);
        if found > MAX_CONFIG {
            return Err(OutputError::Config { found });
        }
        let config = Bytes::from(config);
        let repository = policy.repository.as_str();
        let mut patience = Patience::default();
        while let Err(error) = self.registry.push_blob(repository, config.clone()).await {
            patience.after(error.into()).await?;
        }
        let bytes = manifest.to_json().map_err(|_| OutputError::Interrupted)?;
        let (bytes, tag) = (Bytes::from(bytes), policy.tag());
        let mut patience = Patience::default();
        loop {
            let kind = media_type::OCI_MANIFEST;
            let pushed = self.registry.push_manifest(repository, Some(&tag), kind, bytes.clone());
            match pushed.await {
                Ok(digest) => return Ok(digest),
                Err(error) => patience.after(error.into()).await?,
            }
        }
    }

    /// One try at one file, under a key that is drawn for it.
    async fn push_file(&self, policy: &OutputPolicy, file: &OutputFile) -> Result<NewLayer, OutputError> {
        let path = file.path.as_str();
        let place = place::associated_data(&policy.name, path, policy.version)?;
        let layout = Layout::from_plaintext_len(file.bytes).map_err(|source| OutputError::Layout {
            path: path.to_owned(),
            source,
        })?;
        let (inlet, outlet) = pipe();
        let sealing = tokio::task::spawn_blocking({
            let file = file.clone();
            move || seal(&file, &place, inlet)
        });
        let length = layout.ciphertext_len();
        let sent = self.registry.send_blob(&policy.repository, length, outlet).await;
        // The thread ends with the reader, whether it was heard to the end or not.
        let sealed = sealing.await.map_err(|_| OutputError::Interrupted)?;
        let (sent, Sealed { key, plain, cipher }) = match (sent, sealed) {
            (Ok(sent), Ok(sealed)) => (sent, sealed),
            // Where the sender has failed the thread only hears of it.
            (Err(error), Ok(_)) => return Err(error.into()),
            (Err(error), Err(told)) if is_broken_pipe(&told) => return Err(error.into()),
            (_, Err(error)) => return Err(error),
        };
        self.registry.finish_blob(&policy.repository, sent, &cipher).await?;
        let public = PubOpts {
            cipher: Cipher::TinkStream,
            hmac: None,
        };
        let private = PrivateOptions {
            symkey: key,
            digest: PlainDigest(*plain.as_bytes()),
            nonce: None,
        };
        let annotations = packet::wrap_layer(&public, &private, &self.kek, policy.key.as_str())?;
        Ok(NewLayer {
            path: file.path.clone(),
            kind: file.kind,
            digest: cipher,
            size: length,
            diff_id: plain,
            key_annotations: Some(annotations),
        })
    }
}

/// Some tries with growing pauses, for what may be better a moment later.
#[derive(Default)]
struct Patience {
    tries: u32,
}

impl Patience {
    /// Waits before the next try; gives the error back where there is none.
    async fn after(&mut self, error: OutputError) -> Result<(), OutputError> {
        match &error {
            OutputError::Registry(error) if self.tries < TRIES && is_transient(error) => self.tries += 1,
            _ => return Err(error),
        }
        tokio::time::sleep(PAUSE * 2_u32.pow(self.tries)).await;
        Ok(())
    }
}

fn is_broken_pipe(error: &OutputError) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if kind == Some(std::io::ErrorKind::BrokenPipe) {
            return true;
        }
        next = error.source();
    }
    false
}

fn is_transient(error: &RegistryError) -> bool {
    match error {
        RegistryError::Http { source, .. } => matches!(
            source,
            HttpError::Connect { .. }
                | HttpError::Timeout { .. }
                | HttpError::Closed { .. }
                | HttpError::Protocol { .. }
        ),
        RegistryError::Status { status, .. } => *status >= 500 || *status == 429,
        _ => false,
    }
}

/// Beyond the first: pauses of 1, 2, 4 and 8 seconds between.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);
/// OCI's type of a configuration that is `{}`.
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// Of a record's manifest: what the run has left.
const OF_ANNOTATION: &str = "dev.cella.run.artifact";
