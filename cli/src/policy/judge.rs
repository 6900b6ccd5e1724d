//! `cellactl policy test`: what a guest with this policy would say, by the guest's own rules.
//!
//! A request is a bundle's `config.json`, as containerd writes it, or a question, or a list of questions that are asked one after
//! the other: `{"create": {…}}`, `{"start": "server"}`, `{"connect": {…}}` (docs/config.md).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use cella_bundle::oci::{Mount, Spec};
use cella_bundle::{Foreign, Neighbours, Source};
use cella_policy::Policy;
use cella_policy::VolumeKind;
use cella_policy::check::{ContainerRequest, Judge, ProcessRequest, Question, RequestedMount, RequestedRlimit};

use crate::files::{self, FileError, MAX_TEXT};

/// `cellactl policy test`.
#[derive(Debug, clap::Args)]
pub(crate) struct TestArgs {
    /// The initdata document, or the policy (cella.toml).
    pub(super) document: PathBuf,
    /// A bundle's folder, its config.json, or questions in JSON.
    pub(super) request: PathBuf,
    /// The container's name, where the bundle does not say it (CRI's annotation does).
    #[arg(long)]
    name: Option<String>,
    /// The image that the host believes it is, REPOSITORY@DIGEST. Repeat for more.
    #[arg(long)]
    image: Vec<String>,
}

/// A line for each question; an error if any is denied.
pub(super) fn run(policy: &Policy, args: &TestArgs) -> Result<String, JudgeError> {
    let file = match args.request.is_dir() {
        true => args.request.join("config.json"),
        false => args.request.clone(),
    };
    let text = files::read_text(&file, MAX_TEXT)?;
    let questions = questions(&text, args).map_err(|source| source.at(&file))?;
    let (mut judge, mut out, mut denied) = (Judge::new(policy), String::new(), 0_usize);
    for question in &questions {
        // Writing to a string cannot fail.
        let _ = match judge.ask(question) {
            Ok(()) => writeln!(out, "allowed: {question}"),
            Err(denial) => {
                denied += 1;
                writeln!(out, "DENIED:  {question}\n         {denial}")
            }
        };
    }
    match denied {
        0 => Ok(out),
        denied => Err(JudgeError::Denied {
            denied,
            of: questions.len(),
            words: out,
        }),
    }
}

fn questions(text: &str, args: &TestArgs) -> Result<Vec<Question>, FormError> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(FormError::Json)?;
    if value.get("ociVersion").is_some() {
        return bundle(serde_json::from_value(value).map_err(FormError::Json)?, args);
    }
    let questions = match value {
        list @ serde_json::Value::Array(_) => serde_json::from_value(list),
        one => serde_json::from_value(one).map(|question| vec![question]),
    };
    questions.map_err(FormError::Json)
}

/// What the shim asks for when it is given this bundle: the volumes, then the container.
fn bundle(spec: Spec, args: &TestArgs) -> Result<Vec<Question>, FormError> {
    let is_in_pod = spec.annotations.contains_key(SANDBOX_ID);
    if spec
        .annotations
        .get(CONTAINER_TYPE)
        .is_some_and(|kind| kind == "sandbox")
    {
        return Ok(vec![Question::Sysctl(spec.linux.sysctl)]);
    }
    let neighbours = match is_in_pod {
        true => Neighbours::Pod {
            of_the_host: Vec::new(),
        },
        false => Neighbours::None,
    };
    let namespaces = cella_bundle::namespaces(&spec, &neighbours);
    let privileged = cella_bundle::privileged(&spec);
    let (mounts, mut questions) = mounts(&spec)?;
    let named = spec.annotations.get(CONTAINER_NAME).cloned();
    let Spec {
        process,
        root,
        hostname,
        hooks,
        linux,
        ..
    } = spec;
    if !is_in_pod {
        questions.insert(0, Question::Sysctl(linux.sysctl.clone()));
    }
    let sets = process.capabilities;
    let capabilities = [
        sets.bounding,
        sets.effective,
        sets.inheritable,
        sets.permitted,
        sets.ambient,
    ];
    let limit = |limit: cella_bundle::oci::Rlimit| RequestedRlimit {
        kind: limit.kind,
        soft: limit.soft,
        hard: limit.hard,
    };
    questions.push(Question::Create(Box::new(ContainerRequest {
        name: args.name.clone().or(named).unwrap_or_default(),
        images: args.image.clone(),
        process: ProcessRequest {
            args: process.args,
            env: process.env,
            cwd: process.cwd,
            uid: process.user.uid,
            gid: process.user.gid,
            additional_gids: process.user.additional_gids,
            user_name: String::new(),
            capabilities: capabilities.concat(),
            rlimits: process.rlimits.into_iter().map(limit).collect(),
            terminal: process.terminal,
            no_new_privileges: process.no_new_privileges,
        },
        mounts,
        hostname,
        readonly_rootfs: root.readonly,
        masked_paths: linux.masked_paths,
        readonly_paths: linux.readonly_paths,
        sysctl: if is_in_pod { linux.sysctl } else { Default::default() },
        devices: linux.devices.into_iter().map(|device| device.path).collect(),
        hooks: hooks.into_values().flatten().flatten().map(|hook| hook.path).collect(),
        shared_pid: namespaces.shared_pid,
        host_namespaces: namespaces.of_the_host,
        privileged,
    })));
    Ok(questions)
}

/// Mounts as the agent gets them, and the volumes that are put first. Where a container's own files are offered, the guest may do
/// without them, so nothing is asked.
fn mounts(spec: &Spec) -> Result<(Vec<RequestedMount>, Vec<Question>), FormError> {
    let (mut mounts, mut questions) = (Vec::new(), Vec::new());
    for mount in &spec.mounts {
        if mount.kind != BIND && !mount.options.iter().any(|option| option == BIND || option == "rbind") {
            mounts.push(requested(mount, None));
            continue;
        }
        let source =
            cella_bundle::classify(&mount.source, &mount.destination).map_err(|foreign| FormError::Foreign {
                destination: mount.destination.clone(),
                foreign,
            })?;
        let kind = match source {
            Source::EmptyDir { .. } => Some(VolumeKind::EmptyDir),
            Source::Files { kind, .. } => Some(kind),
            Source::ImageDefined if spec.root.readonly => Some(VolumeKind::EmptyDir),
            Source::ImageDefined => continue,
            Source::Served { kind } => {
                mounts.push(requested(mount, Some(kind)));
                continue;
            }
            Source::TerminationLog => {
                mounts.push(requested(mount, Some(VolumeKind::TerminationLog)));
                continue;
            }
            Source::SharedMemory => None,
        };
        questions.extend(kind.map(Question::Volume));
        mounts.push(requested(mount, kind));
    }
    Ok((mounts, questions))
}

fn requested(mount: &Mount, kind: Option<VolumeKind>) -> RequestedMount {
    RequestedMount {
        destination: mount.destination.clone(),
        kind: mount.kind.clone(),
        volume: kind.map(|_| "volume".to_owned()).unwrap_or_default(),
        volume_kind: kind,
        read_only: mount.options.iter().any(|option| option == "ro"),
    }
}

/// Why a request was not allowed, or not judged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum JudgeError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// No request.
    #[error("{} is neither a specification of OCI nor a question", path.display())]
    Form { path: PathBuf, source: FormError },
    /// The policy says no.
    #[error("{denied} of {of} denied\n{words}")]
    Denied { denied: usize, of: usize, words: String },
}

/// What is wrong with a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FormError {
    /// Not JSON, or not of the form.
    #[error(transparent)]
    Json(serde_json::Error),
    /// A mount that the shim refuses whatever the policy says.
    #[error("mount {destination}: {} cannot be kept from the host, and is refused before any policy is asked", foreign.what)]
    Foreign { destination: String, foreign: Foreign },
}

impl FormError {
    fn at(self, path: &Path) -> JudgeError {
        JudgeError::Form {
            path: path.to_owned(),
            source: self,
        }
    }
}

const BIND: &str = "bind";
const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
const CONTAINER_NAME: &str = "io.kubernetes.cri.container-name";
const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";
