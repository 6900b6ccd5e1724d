//! Sealing: each file becomes a layer under a key of its own, bound to the model's name, its path and the version.

mod error;
mod job;
mod straight;

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

use cella_oci::modelpack::{ModelDescriptor, ModelParameters, NewLayer, NewModel, write_model};
use cella_oci::{Manifest, Reference, check_repository, media_type};

pub(crate) use error::SealModelError;
use job::Job;
pub(super) use job::PUBLIC;

use super::files::{self, Collected, Contents, Format, Reading};
use super::key::{self, KeyArgs, RegisterArgs};
use crate::files::parent;
use crate::interrupt::Stop;
use crate::layout::Layout;
use crate::progress::Progress;
use crate::staging::Staging;
use crate::store::Access;
use crate::{transfer, units};

/// `cellactl model seal`.
#[derive(Debug, clap::Args)]
pub(crate) struct SealArgs {
    /// The model: a GGUF file (of several parts any), a safetensors file, or a folder with weights, configuration, tokenizer
    /// and documentation. Names that begin with a dot are left out.
    path: PathBuf,
    /// Name that the sealing binds, as the policy has it: models/demo.
    #[arg(long, value_parser = model_name)]
    name: String,
    /// Version that the sealing binds. Count up with each release: the broker can then refuse older ones.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=i64::MAX.unsigned_abs()))]
    version: u64,
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    register: RegisterArgs,
    /// What the folder is.
    #[arg(long, value_enum, default_value_t = Contents::Model)]
    contents: Contents,
    /// Format that the weights must have. Found out by default.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Leave architecture, size and precision out of the public configuration, and do not read the weights' headers.
    #[arg(long)]
    no_facts: bool,
    /// Threads that seal; each holds one segment of 1 MiB. All processors by default.
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Directory to make: an OCI layout.
    #[arg(long, value_name = "LAYOUT_DIR", required_unless_present = "push")]
    out: Option<PathBuf>,
    /// Registry to push to, registry/repository:tag: from the layout, or without --out as it is sealed, with nothing on disk.
    #[arg(long, value_name = "REFERENCE")]
    push: Option<Reference>,
    #[command(flatten)]
    access: Access,
}

pub(super) async fn run(args: &SealArgs, stop: Stop) -> Result<String, SealModelError> {
    let collected = files::collect(
        &args.path,
        Reading {
            contents: args.contents,
            headers: !args.no_facts,
        },
    )?;
    check(args, &collected)?;
    let key = key::ready(&args.key, &args.register).await?;
    let started = Instant::now();
    let progress = Progress::start("sealing", collected.bytes());
    let job = Job {
        name: args.name.clone(),
        version: args.version,
        kek: &key.kek,
        kid: args.key.key.as_str(),
        threads: args
            .threads
            .or_else(|| std::thread::available_parallelism().ok())
            .unwrap_or(NonZeroUsize::MIN),
        counter: progress.counter(),
        stop: stop.clone(),
    };
    let mut said = Vec::new();
    let digest = match (&args.out, &args.push) {
        (Some(out), push) => {
            let digest = into_layout(&job, args, &collected, out)?;
            progress.finish("sealed");
            said.push(summary(args, &collected, &out.display().to_string(), started));
            if let Some(to) = push {
                let pushed = transfer::push(&Layout::open(out)?, to, &args.access, Some(stop)).await?;
                said.push(pushed.to_string());
            }
            digest
        }
        (None, Some(to)) => {
            let pushed = into_registry(&job, args, &collected, to).await?;
            progress.finish("sealed and pushed");
            said.push(summary(args, &collected, &to.to_string(), started));
            said.push(pushed.to_string());
            pushed.digest.map(|digest| digest.to_string()).unwrap_or_default()
        }
        // clap demands one of them.
        (None, None) => return Err(SealModelError::NoPlace),
    };
    key.finish(&args.name, args.version).await?;
    // The last line is for scripts: what a policy names.
    if args.push.is_none() {
        said.push(digest);
    }
    Ok(said.join("\n") + "\n")
}

/// What can be refused before anything is made.
fn check(args: &SealArgs, collected: &Collected) -> Result<(), SealModelError> {
    if let Some(wanted) = args.format.filter(|wanted| collected.format != Some(*wanted)) {
        return Err(SealModelError::Format {
            wanted: wanted.name(),
            found: collected.format.map_or("of no single format", Format::name),
        });
    }
    if let Some(reference) = args.push.as_ref().filter(|to| to.digest.is_some()) {
        return Err(SealModelError::PushByDigest {
            reference: reference.to_string(),
        });
    }
    if args.path.is_dir() {
        let written = args.out.iter().chain([&args.key.key_file]);
        for path in written {
            if lies_in(path, &args.path) {
                return Err(SealModelError::Inside {
                    path: path.clone(),
                    folder: args.path.clone(),
                });
            }
        }
    }
    for name in &collected.hidden {
        eprintln!("left out: {}", name.display());
    }
    if args.contents == Contents::Any {
        eprintln!(
            "--contents any: a guest takes weights in GGUF and safetensors, their configuration, and documentation"
        );
    }
    Ok(())
}

/// Whether `path`, which need not exist, would lie in `folder`.
fn lies_in(path: &Path, folder: &Path) -> bool {
    let Ok(folder) = fs::canonicalize(folder) else {
        return false;
    };
    // The nearest folder on the way that exists says where all below it would be.
    let mut next = Some(path);
    while let Some(here) = next {
        if let Ok(real) = fs::canonicalize(if here.as_os_str().is_empty() {
            Path::new(".")
        } else {
            here
        }) {
            return real.starts_with(&folder);
        }
        next = here.parent();
    }
    fs::canonicalize(parent(path)).is_ok_and(|real| real.starts_with(&folder))
}

fn into_layout(job: &Job<'_>, args: &SealArgs, collected: &Collected, out: &Path) -> Result<String, SealModelError> {
    let staging = Staging::fresh(out, 0o755)?;
    let layout = Layout::create(&staging.path())?;
    let layers = collected
        .files
        .iter()
        .map(|file| job.seal(file, &layout))
        .collect::<Result<Vec<_>, _>>()?;
    let (config, manifest) = describe(args, collected, layers)?;
    layout.put(&manifest.config.media_type, &config)?;
    let published = layout.publish(&manifest, Some(&format!("{}:v{}", args.name, args.version)))?;
    staging.publish()?;
    Ok(published.digest.to_string())
}

async fn into_registry(
    job: &Job<'_>,
    args: &SealArgs,
    collected: &Collected,
    to: &Reference,
) -> Result<Reference, SealModelError> {
    let registry = args.access.registry(&to.registry)?;
    let mut layers = Vec::with_capacity(collected.files.len());
    for file in &collected.files {
        layers.push(straight::send(job, file, &registry, &to.repository).await?);
    }
    let (config, manifest) = describe(args, collected, layers)?;
    straight::send_small(&registry, &to.repository, config).await?;
    let bytes = manifest
        .to_json()
        .map_err(|source| SealModelError::Manifest { source })?;
    let digest = transfer::push_manifest(&registry, to, media_type::OCI_MANIFEST, bytes).await?;
    Ok(to.with_digest(digest))
}

/// Configuration and manifest.
fn describe(
    args: &SealArgs,
    collected: &Collected,
    layers: Vec<NewLayer>,
) -> Result<(Vec<u8>, Manifest), SealModelError> {
    let parameters = match args.no_facts {
        true => ModelParameters {
            format: collected.format.map(|format| format.name().to_owned()),
            ..ModelParameters::default()
        },
        false => collected.parameters.clone(),
    };
    Ok(write_model(NewModel {
        name: args.name.clone(),
        version: args.version,
        descriptor: ModelDescriptor::default(),
        parameters,
        layers,
    })?)
}

fn summary(args: &SealArgs, collected: &Collected, to: &str, started: Instant) -> String {
    let count = collected.files.len();
    format!(
        "{to}: {} version {}, {count} {}, {} bytes, {}",
        args.name,
        args.version,
        if count == 1 { "file" } else { "files" },
        units::grouped(collected.bytes()),
        units::duration(started.elapsed()),
    )
}

/// A name that may be bound.
pub(super) fn model_name(text: &str) -> Result<String, String> {
    check_repository(text)
        .map(|()| text.to_owned())
        .map_err(|error| error.to_string())
}
