//! From a workload to a policy: asks the registries what tags mean, what images run, how long models are.

use std::collections::BTreeSet;

use cella_oci::image::{self, ImageConfig, ImageError, MAX_CONFIG};
use cella_oci::{Manifest, Reference, ReferenceError};
use cella_policy::POLICY_VERSION;
use cella_policy::file::{Choice, ContainerFile, KbsFile, MirrorFile, ModelFile, PolicyFile, RegistryFile};
use cella_seal::packet::{self, PacketError};

use super::runtime;
use super::workload::{ContainerWork, KbsWork, MirrorWork, ModelWork, RegistryWork, WorkloadFile};
use crate::files::{self, FileError, MAX_TEXT};
use crate::lint::{self, Suspicion};
use crate::model::{Facts, FactsError};
use crate::store::{Access, Artifact, Location, StoreError};

/// The policy's file form; its rules are checked by `Policy::from_file`.
pub(super) async fn resolve(workload: &WorkloadFile) -> Result<PolicyFile, ResolveError> {
    let mut container = Vec::with_capacity(workload.container.len());
    for work in &workload.container {
        container.push(resolve_container(work, workload).await?);
    }
    let mut model = Vec::with_capacity(workload.model.len());
    for work in &workload.model {
        model.push(resolve_model(work, workload, Facts::of).await?);
    }
    let mut dataset = Vec::with_capacity(workload.dataset.len());
    for work in &workload.dataset {
        dataset.push(resolve_model(work, workload, Facts::of_dataset).await?);
    }
    let registry = workload
        .registry
        .iter()
        .map(resolve_registry)
        .collect::<Result<_, _>>()?;
    let kbs = workload.kbs.as_ref().map(resolve_broker).transpose()?;
    Ok(PolicyFile {
        version: POLICY_VERSION,
        name: workload.name.clone(),
        revision: workload.revision,
        kbs,
        pod: workload.pod.clone(),
        network: workload.network.clone(),
        registry,
        container,
        model,
        dataset,
        output: workload.output.clone(),
    })
}

fn resolve_broker(work: &KbsWork) -> Result<KbsFile, ResolveError> {
    let ca = work
        .ca
        .as_deref()
        .map(|path| files::read_text(path, MAX_TEXT))
        .transpose()?;
    Ok(KbsFile {
        url: work.url.clone(),
        ca,
        token_keys: work.token_keys.clone(),
    })
}

fn resolve_registry(work: &RegistryWork) -> Result<RegistryFile, ResolveError> {
    let ca = work
        .ca
        .as_deref()
        .map(|path| files::read_text(path, MAX_TEXT))
        .transpose()?;
    let mirror = work.mirror.iter().map(resolve_mirror);
    Ok(RegistryFile {
        name: work.name.clone(),
        endpoint: work.endpoint.clone(),
        ca,
        mirror: mirror.collect::<Result<_, _>>()?,
    })
}

fn resolve_mirror(work: &MirrorWork) -> Result<MirrorFile, ResolveError> {
    let ca = work.ca.as_deref().map(|path| files::read_text(path, MAX_TEXT));
    Ok(MirrorFile {
        endpoint: work.endpoint.clone(),
        ca: ca.transpose()?,
    })
}

async fn resolve_container(work: &ContainerWork, workload: &WorkloadFile) -> Result<ContainerFile, ResolveError> {
    if work.image.is_empty() {
        return Err(ResolveError::NoImage {
            name: work.name.clone(),
        });
    }
    let (reference, artifact) = pull(&work.image, workload).await?;
    let image = || work.image.clone();
    let config = artifact.config(MAX_CONFIG).await?;
    let config = ImageConfig::parse(&config).map_err(|source| ResolveError::Image { image: image(), source })?;
    let keys = layer_keys(&artifact.manifest, &config, &work.image)?;
    let run = &config.config;
    let pod = match &work.kubernetes {
        Some(pod) => Some(runtime::in_a_pod(run, pod).map_err(|source| ResolveError::InAPod {
            container: work.name.clone(),
            line: pod.line,
            source,
        })?),
        None => None,
    };
    let file = ContainerFile {
        name: work.name.clone(),
        image: reference.with_digest(artifact.digest).to_string(),
        image_keys: work.image_keys.clone().unwrap_or(keys),
        require_encrypted: work.require_encrypted,
        matching: work.matching,
        instances: work.instances.clone(),
        presence: work.presence,
        after: work.after.clone(),
        args: match &pod {
            Some(pod) => Choice::Value(pod.args.clone()),
            None => runtime::args(run, work.args.as_ref()),
        },
        env: runtime::env(run, &work.env, &work.env_allow),
        env_allow: work.env_allow.clone(),
        cwd: work.cwd.clone().unwrap_or_else(|| runtime::cwd(run)),
        user: match (&work.user, &pod) {
            (Some(user), _) => user.clone(),
            (None, Some(pod)) => pod.user.clone(),
            (None, None) => runtime::user(run),
        },
        capabilities: match &pod {
            Some(pod) => runtime::with_more(&work.capabilities, &pod.capabilities),
            None => work.capabilities.clone(),
        },
        privileged: work.privileged,
        new_privileges: work.new_privileges,
        exec: work.exec.clone(),
        terminal: work.terminal,
        readonly_rootfs: work.readonly_rootfs.clone(),
        hostname: work.hostname.clone(),
        stdio: work.stdio.clone(),
        memlock_bytes: work.memlock_bytes.clone(),
        rlimits: work.rlimits,
        seccomp: work.seccomp,
        masked_paths: work.masked_paths,
        signals: match (&work.signals, &work.kubernetes) {
            (Some(signals), _) => signals.clone(),
            (None, pod) => runtime::signals(run, pod.as_ref().and_then(|pod| pod.stop_signal.as_deref())),
        },
        volumes: work.volumes,
        mount: work.mount.clone(),
        tmpfs: work.tmpfs.clone(),
        volume: match &work.kubernetes {
            Some(_) => runtime::with_volumes_of_the_image(run, work),
            None => work.volume.clone(),
        },
    };
    let what = format!("container {:?} variable", file.name);
    let mut suspicions = lint::variables(&what, &file.env, &work.allow_env);
    if let Choice::Value(args) = &file.args {
        let what = format!("container {:?} args", file.name);
        suspicions.extend(lint::arguments(&what, args, &work.allow_env));
    }
    match suspicions.into_iter().next() {
        Some(source) => Err(ResolveError::Secret { source }),
        None => Ok(file),
    }
}

/// The keys that an image's layers name. An image that is encrypted in part is a mistake of whoever made it.
fn layer_keys(manifest: &Manifest, config: &ImageConfig, name: &str) -> Result<Vec<String>, ResolveError> {
    let image = || name.to_owned();
    let layers = image::layers(manifest, config).map_err(|source| ResolveError::Image { image: image(), source })?;
    let encrypted: Vec<_> = layers.iter().filter(|layer| layer.encrypted).collect();
    if !encrypted.is_empty() && encrypted.len() < layers.len() {
        return Err(ResolveError::Mixed {
            image: image(),
            encrypted: encrypted.len(),
            layers: layers.len(),
        });
    }
    let mut keys = BTreeSet::new();
    for layer in encrypted {
        let kids = packet::layer_kids(&layer.descriptor.annotations);
        keys.extend(kids.map_err(|source| ResolveError::Packet { image: image(), source })?);
    }
    Ok(keys.into_iter().collect())
}

async fn resolve_model(
    work: &ModelWork,
    workload: &WorkloadFile,
    read: fn(&Manifest) -> Result<Facts, FactsError>,
) -> Result<ModelFile, ResolveError> {
    let (reference, artifact) = pull(&work.artifact, workload).await?;
    let model = || work.artifact.clone();
    let facts = read(&artifact.manifest).map_err(|source| ResolveError::Model { model: model(), source })?;
    let disagree = |field, given: String, found: String| ResolveError::Disagree {
        model: model(),
        field,
        given,
        found,
    };
    if let Some(given) = work.name.as_ref().filter(|given| **given != facts.name) {
        return Err(disagree("name", given.clone(), facts.name));
    }
    if let Some(given) = work.version.filter(|given| *given != facts.version) {
        return Err(disagree("version", given.to_string(), facts.version.to_string()));
    }
    if let (Some(given), Some(found)) = (&work.digest, facts.model_digest())
        && *given != found.to_string()
    {
        return Err(disagree("digest", given.clone(), found.to_string()));
    }
    let bytes = facts.bytes();
    Ok(ModelFile {
        name: facts.name,
        version: facts.version,
        artifact: reference.with_digest(artifact.digest).to_string(),
        keys: work.keys.clone().unwrap_or_else(|| facts.keys.into_iter().collect()),
        bytes,
        provenance: work.provenance,
        digest: work.digest.clone(),
    })
}

async fn pull(text: &str, workload: &WorkloadFile) -> Result<(Reference, Artifact), ResolveError> {
    let reference: Reference = text.parse().map_err(|source| ResolveError::Reference {
        text: text.to_owned(),
        source,
    })?;
    if let Some(directory) = workload.layouts.get(text) {
        let layout = Location::Layout(directory.clone());
        let artifact = layout.open(&Access::default(), "amd64").await?;
        return Ok((reference, artifact));
    }
    let work = workload
        .registry
        .iter()
        .find(|registry| registry.name == reference.registry)
        .ok_or_else(|| ResolveError::Registry {
            text: text.to_owned(),
            registry: reference.registry.clone(),
        })?;
    let access = Access {
        registry_ca: work.ca.clone(),
        plain_http: false,
    };
    let registry = match &work.desk_url {
        Some(url) => access.registry_at(&work.name, url)?,
        None => access.registry(&work.name)?,
    };
    let artifact = Artifact::pull(registry, &reference, "amd64").await?;
    Ok((reference, artifact))
}

/// Why a workload became no policy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ResolveError {
    /// A file that the workload names.
    #[error(transparent)]
    File(#[from] FileError),
    /// A registry.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No reference.
    #[error("{text:?} is not a reference")]
    Reference { text: String, source: ReferenceError },
    /// A registry that the workload does not name.
    #[error("{text}: the workload has no [[registry]] named {registry:?}, so the guest would not know how to reach it")]
    Registry { text: String, registry: String },
    /// Nothing to run.
    #[error("container {name:?}: image is missing")]
    NoImage { name: String },
    /// A pod's YAML and its image do not go together.
    #[error("line {line}: container {container:?}")]
    InAPod {
        container: String,
        line: usize,
        source: runtime::InAPodError,
    },
    /// Not an image that can be used.
    #[error("image {image}")]
    Image { image: String, source: ImageError },
    /// Some layers are encrypted and some are not.
    #[error("image {image}: {encrypted} of {layers} layers are encrypted; encrypt it again, as a whole")]
    Mixed {
        image: String,
        encrypted: usize,
        layers: usize,
    },
    /// The key of a layer cannot be read.
    #[error("image {image}: the key of a layer cannot be read")]
    Packet { image: String, source: PacketError },
    /// The policy would show a secret.
    #[error("refused: a policy is public; if it is no secret, list the variable in allow-env")]
    Secret { source: Suspicion },
    /// Not a sealed model.
    #[error("model {model}")]
    Model { model: String, source: FactsError },
    /// Workload and manifest contradict each other.
    #[error("model {model}: the workload says {field} {given}, the artifact {found}")]
    Disagree {
        model: String,
        field: &'static str,
        given: String,
        found: String,
    },
}
