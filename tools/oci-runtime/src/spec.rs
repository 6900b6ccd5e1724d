//! config.json, as far as the agent's containers have it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use cella_agent::launch::{
    HostSeccomp, LaunchPlan, MaskPlan, MountPlan, NamespacePlan, ProcessPlan, RlimitPlan, SeccompPlan,
    capabilities::CapabilitySet,
};
use cella_policy::Capability;
use serde::Deserialize;
use serde_json::Value;

use crate::state::Folder;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Spec {
    #[serde(rename = "ociVersion")]
    pub(crate) version: String,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
    process: Option<Process>,
    root: Option<Root>,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    mounts: Vec<Mount>,
    #[serde(default)]
    hooks: BTreeMap<String, Vec<Value>>,
    #[serde(default)]
    linux: Linux,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    #[serde(default)]
    terminal: bool,
    #[serde(default)]
    user: User,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    cwd: PathBuf,
    #[serde(default)]
    capabilities: Option<Capabilities>,
    #[serde(default)]
    rlimits: Vec<Rlimit>,
    #[serde(default)]
    no_new_privileges: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct User {
    uid: u32,
    gid: u32,
    additional_gids: Vec<u32>,
}

#[derive(Deserialize)]
struct Capabilities {
    #[serde(default)]
    bounding: Vec<String>,
}

#[derive(Deserialize)]
struct Rlimit {
    #[serde(rename = "type")]
    kind: String,
    soft: u64,
    hard: u64,
}

#[derive(Deserialize)]
struct Root {
    path: PathBuf,
    #[serde(default)]
    readonly: bool,
}

#[derive(Deserialize)]
struct Mount {
    destination: PathBuf,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    options: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Linux {
    namespaces: Vec<Namespace>,
    masked_paths: Vec<PathBuf>,
    readonly_paths: Vec<PathBuf>,
    seccomp: Option<Value>,
    devices: Vec<Value>,
    sysctl: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: PathBuf,
}

impl Spec {
    pub(crate) fn read(bundle: &Path) -> anyhow::Result<Self> {
        let path = bundle.join("config.json");
        let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))
    }

    /// Refuses what a guest would refuse, or does not have.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.version.starts_with("1."),
            "version {:?} of the specification",
            self.version
        );
        ensure!(self.hooks.values().all(Vec::is_empty), "hooks would run on the host");
        ensure!(self.linux.devices.is_empty(), "devices of the host");
        ensure!(self.linux.sysctl.is_empty(), "kernel parameters are the pod's");
        for namespace in &self.linux.namespaces {
            ensure!(
                NAMESPACES.contains(&namespace.kind.as_str()),
                "namespace {:?}",
                namespace.kind
            );
            ensure!(
                namespace.path.as_os_str().is_empty(),
                "a namespace of the host's: {}",
                namespace.kind
            );
        }
        Ok(())
    }

    pub(crate) fn plan(&self, bundle: &Path, folder: &Folder) -> anyhow::Result<LaunchPlan> {
        let process = self.process.as_ref().context("the configuration has no process")?;
        let root = self.root.as_ref().context("the configuration has no root")?;
        let plan = LaunchPlan {
            bundle: folder.mounts(),
            lower_dirs: vec![bundle.join(&root.path)],
            writable_mib: 64,
            readonly_rootfs: root.readonly,
            mounts: self
                .mounts
                .iter()
                .filter_map(|mount| mount.plan().transpose())
                .collect::<Result<_, _>>()?,
            files: Vec::new(),
            namespaces: NamespacePlan::default(),
            masks: MaskPlan {
                nothing: false,
                writable: false,
                masked: self.linux.masked_paths.clone(),
                readonly: self.linux.readonly_paths.clone(),
            },
            devices: Vec::new(),
            shm: None,
            hostname: self.hostname.clone(),
            cgroup: None,
            process: process.plan(self.linux.seccomp.as_ref())?,
        };
        plan.check()?;
        Ok(plan)
    }
}

impl Process {
    fn plan(&self, seccomp: Option<&Value>) -> anyhow::Result<ProcessPlan> {
        ensure!(!self.terminal, "a terminal: there is no console socket here");
        let bounding = self.capabilities.iter().flat_map(|sets| &sets.bounding);
        let mut capabilities = Vec::new();
        for name in bounding {
            match name.parse::<Capability>() {
                Ok(capability) => capabilities.push(capability.number()),
                Err(error) => bail!("capability {name:?}: {error}"),
            }
        }
        let seccomp = seccomp.map(serde_json::to_vec).transpose()?;
        Ok(ProcessPlan {
            args: self.args.clone(),
            env: self.env.clone(),
            cwd: self.cwd.clone(),
            lookup: None,
            uid: self.user.uid,
            gid: self.user.gid,
            additional_gids: self.user.additional_gids.clone(),
            capabilities: CapabilitySet::from_numbers(capabilities),
            rlimits: self.rlimits.iter().map(Rlimit::plan).collect(),
            terminal: None,
            no_new_privileges: self.no_new_privileges,
            ambient: true,
            seccomp: SeccompPlan::Container,
            host_seccomp: seccomp.map(|json| HostSeccomp::parse(&json)).transpose()?,
        })
    }
}

impl Rlimit {
    fn plan(&self) -> RlimitPlan {
        RlimitPlan {
            kind: self.kind.clone(),
            soft: self.soft,
            hard: self.hard,
        }
    }
}

impl Mount {
    /// `None` for what the agent makes by itself.
    fn plan(&self) -> anyhow::Result<Option<MountPlan>> {
        if OWN_MOUNTS.iter().any(|own| self.destination == Path::new(own)) {
            return Ok(None);
        }
        ensure!(
            self.kind == "tmpfs",
            "a mount of type {:?} on {}",
            self.kind,
            self.destination.display()
        );
        let size = self
            .options
            .iter()
            .find_map(|option| option.strip_prefix("size=")?.strip_suffix('k')?.parse::<u64>().ok());
        Ok(Some(MountPlan::Tmpfs {
            destination: self.destination.clone(),
            size_mib: size.map_or(16, |kib| (kib / 1024).max(1)),
        }))
    }
}

const NAMESPACES: [&str; 6] = ["pid", "network", "ipc", "uts", "mount", "cgroup"];

const OWN_MOUNTS: [&str; 8] = [
    "/proc",
    "/dev",
    "/dev/pts",
    "/dev/shm",
    "/dev/mqueue",
    "/sys",
    "/sys/fs/cgroup",
    "/run",
];
