//! `cellactl policy`: what a guest obeys, written from a short description of the workload.

mod from_pod;
mod judge;
mod resolve;
mod runtime;
mod words;
mod workload;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cella_policy::initdata::{self, Algorithm, Initdata, InitdataError};
use cella_policy::{Policy, PolicyError};

use self::from_pod::{FromPodArgs, PodError};
use self::judge::{JudgeError, TestArgs};
use self::resolve::ResolveError;
use self::workload::{WorkloadError, WorkloadFile};
use crate::files::{self, FileError, MAX_TEXT};

/// What to do with a policy.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum PolicyCommand {
    /// Write initdata with the policy for a workload: tags become digests, sizes and keys come from the manifests.
    #[command(alias = "new")]
    Write(WriteArgs),
    /// Write initdata with the policy for a pod: Kubernetes YAML and the configurations of its images.
    FromPod(FromPodArgs),
    /// Say in words what a policy newly allows and what no longer: two initdata documents, or policies (cella.toml).
    Diff(DiffArgs),
    /// Say what a guest with this policy would answer to a request: a bundle of OCI, or questions in JSON.
    Test(TestArgs),
    /// Say in plain words what an initdata document, or a policy (cella.toml), allows and what it leaves to the host.
    #[command(alias = "show")]
    Explain(DocumentArgs),
    /// Print the SHA-256 of a document, hexadecimal: what a key's rule names and HOST_DATA holds.
    Digest(DocumentArgs),
    /// Print a document as the value of io.katacontainers.config.hypervisor.cc_init_data.
    Annotation(DocumentArgs),
}

/// `cellactl policy write`.
#[derive(Debug, clap::Args)]
pub(crate) struct WriteArgs {
    /// The workload, TOML: the tables kbs, registry, container and model as in a policy, but images and artifacts may
    /// be named by tag and everything that the registry knows may be left out. Files named in it are relative to it.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    #[command(flatten)]
    out: OutArgs,
}

/// What comes of a workload, and what stands in for parts of it.
#[derive(Debug, clap::Args)]
pub(crate) struct OutArgs {
    /// The key broker, in place of the workload's: https://host:port, as the guest reaches it.
    #[arg(long, value_name = "URL")]
    kbs: Option<String>,
    /// PEM of the broker's authority, in place of the workload's.
    #[arg(long, value_name = "PEM")]
    kbs_ca: Option<PathBuf>,
    /// PEM of a registry's authority, in place of the workload's: NAME=FILE. Repeat for more.
    #[arg(long, value_name = "NAME=PEM", value_parser = named_file)]
    registry_ca: Vec<(String, PathBuf)>,
    /// An image that lies on this machine and need not be asked for: REFERENCE=DIRECTORY of an OCI layout. Repeat for more.
    #[arg(long, value_name = "IMAGE=DIR", value_parser = named_file)]
    layout: Vec<(String, PathBuf)>,
    /// Digest that is bound at launch: sha256 works on SEV-SNP and TDX, sha384 fills the field of TDX.
    #[arg(long, default_value = "sha256", value_parser = algorithm)]
    algorithm: Algorithm,
    /// The initdata document to write. Its digest is over its very bytes: hand it on as it is.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// A document.
#[derive(Debug, clap::Args)]
pub(crate) struct DocumentArgs {
    /// The initdata document.
    document: PathBuf,
}

/// `cellactl policy diff`.
#[derive(Debug, clap::Args)]
pub(crate) struct DiffArgs {
    /// What it was.
    old: PathBuf,
    /// What it is.
    new: PathBuf,
    /// Fail if anything is newly allowed.
    #[arg(long)]
    refuse_more: bool,
}

/// Does it; returns what belongs on standard output.
pub(crate) async fn run(command: PolicyCommand) -> Result<String, PolicyCommandError> {
    match command {
        PolicyCommand::Write(args) => write(args).await,
        PolicyCommand::FromPod(args) => from_pod(args).await,
        PolicyCommand::Diff(args) => diff(&args),
        PolicyCommand::Test(args) => {
            let (policy, _) = policy_of(&args.document)?;
            Ok(judge::run(&policy, &args)?)
        }
        PolicyCommand::Explain(args) => explain(&args),
        PolicyCommand::Digest(args) => {
            let (document, _) = read(&args.document)?;
            Ok(format!("{}\n", hex::encode(initdata::digests(&document).sha256)))
        }
        PolicyCommand::Annotation(args) => {
            let (document, _) = read(&args.document)?;
            Ok(format!("{}\n", initdata::encode_annotation(&document)))
        }
    }
}

async fn write(args: WriteArgs) -> Result<String, PolicyCommandError> {
    let workload = WorkloadFile::parse(&args.from, &files::read_text(&args.from, MAX_TEXT)?)?;
    finish(workload, args.out).await
}

async fn from_pod(args: FromPodArgs) -> Result<String, PolicyCommandError> {
    let yaml = files::read_text(&args.yaml, MAX_TEXT)?;
    let base = match &args.with {
        Some(file) => WorkloadFile::parse(file, &files::read_text(file, MAX_TEXT)?)?,
        None => WorkloadFile::default(),
    };
    let (workload, notes) = from_pod::workload(&yaml, base, &args).map_err(|source| PolicyCommandError::Pod {
        path: args.yaml.clone(),
        source,
    })?;
    for note in notes {
        eprintln!("note: {note}");
    }
    finish(workload, args.out).await
}

/// From a workload to a document; what it says, in words.
async fn finish(mut workload: WorkloadFile, args: OutArgs) -> Result<String, PolicyCommandError> {
    if args.kbs.is_some() || args.kbs_ca.is_some() {
        let kbs = workload.kbs.get_or_insert_default();
        kbs.url = args.kbs.unwrap_or(std::mem::take(&mut kbs.url));
        kbs.ca = args.kbs_ca.or(kbs.ca.take());
    }
    let mut authorities: BTreeMap<String, PathBuf> = args.registry_ca.into_iter().collect();
    for registry in &mut workload.registry {
        registry.ca = authorities.remove(&registry.name).or(registry.ca.take());
    }
    if let Some((name, _)) = authorities.pop_first() {
        return Err(PolicyCommandError::NoSuchRegistry { name });
    }
    workload.layouts = args.layout.into_iter().collect();
    let policy = Policy::from_file(resolve::resolve(&workload).await?)?;
    let document = initdata::write(&policy.to_toml(), args.algorithm).into_bytes();
    // The guest will read it exactly like this.
    initdata::parse(&document, args.algorithm)?;
    let annotation = initdata::encode_annotation(&document);
    if annotation.len() > KUBERNETES_ANNOTATIONS {
        eprintln!(
            "note: {} characters as an annotation; Kubernetes takes {KUBERNETES_ANNOTATIONS} for all of a pod's together",
            annotation.len()
        );
    }
    files::write(&args.out, &document)?;
    Ok(words::describe(&policy, Some(&document)))
}

fn diff(args: &DiffArgs) -> Result<String, PolicyCommandError> {
    let (old, _) = policy_of(&args.old)?;
    let (new, _) = policy_of(&args.new)?;
    let difference = words::Difference::between(&old, &new);
    if args.refuse_more && !difference.more.is_empty() {
        return Err(PolicyCommandError::More {
            count: difference.more.len(),
            words: difference.render(),
        });
    }
    Ok(difference.render())
}

fn explain(args: &DocumentArgs) -> Result<String, PolicyCommandError> {
    let (policy, document) = policy_of(&args.document)?;
    Ok(words::describe(&policy, document.as_deref()))
}

/// The policy of an initdata document, with the document's bytes, or the policy alone.
fn policy_of(path: &Path) -> Result<(Policy, Option<Vec<u8>>), PolicyCommandError> {
    let text = files::read_text(path, MAX_TEXT)?;
    if initdata::algorithm(text.as_bytes()).is_err() && text.contains("[[container]]") {
        return Ok((Policy::parse(&text)?, None));
    }
    let (document, initdata) = read(path)?;
    Ok((initdata.policy, Some(document)))
}

/// A document that is well-formed by its own claim. Nothing here says that any evidence binds it.
fn read(path: &Path) -> Result<(Vec<u8>, Initdata), PolicyCommandError> {
    let document = files::read(path, MAX_TEXT)?;
    let claimed = initdata::algorithm(&document)?;
    let parsed = initdata::parse(&document, claimed)?;
    Ok((document, parsed))
}

fn algorithm(text: &str) -> Result<Algorithm, String> {
    text.parse().map_err(|error: InitdataError| error.to_string())
}

fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.to_owned(), file.into())),
        _ => Err("must be NAME=FILE".to_owned()),
    }
}

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum PolicyCommandError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The workload.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// A request.
    #[error(transparent)]
    Judge(#[from] JudgeError),
    /// A pod that becomes no policy.
    #[error("{}", path.display())]
    Pod { path: PathBuf, source: PodError },
    /// A change that was not to be.
    #[error("{count} things are newly allowed\n{words}")]
    More { count: usize, words: String },
    /// What the workload names.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The policy that would come of it.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The document.
    #[error(transparent)]
    Initdata(#[from] InitdataError),
    /// An authority for nobody.
    #[error("--registry-ca {name}=…: the workload has no [[registry]] of that name")]
    NoSuchRegistry { name: String },
}

/// Kubernetes' limit for all annotations of an object.
const KUBERNETES_ANNOTATIONS: usize = 256 * 1024;
