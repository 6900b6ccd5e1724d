//! The guest's containers, as many of each that the policy names as it allows at once, and the processes in them.
//!
//! ```text
//!           create              start             program runs            process ends
//! (nothing) ──────▶ created ──────────▶ starting ──────────────▶ running ──────────────▶ stopped ──delete──▶ (nothing)
//!                     │ │                  │                                                ▲
//!                     │ └──kill────────────┼── kill, or image, model or launch failed ──────┘
//!                     └──delete──▶ (nothing)
//! ```
//! A container's first process and each further one (exec) go through the same states. An exec can be made and started
//! while the first process runs, ends with it at the latest, and is killed by nothing before its start. Each process's
//! state has one lock; what waits (pulls, launch, exit, the push of an output) runs in a task of its own, so that a host that drops its
//! connection cannot leave a process between two states. A process whose start failed is stopped with status 255. Of
//! several deletes at once one succeeds, so that none takes away what was made under the same id in the meantime.

mod cgroup;
mod error;
mod id;
mod instance;
mod pipes;
mod prepare;
mod process;
mod resources;
mod standing;
mod volumes;

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use cella_policy::{
    ContainerPolicy,
    check::{Admission, AdmittedProcess},
};
use slog::Logger;
use tokio::sync::oneshot;

pub use cgroup::{CgroupError, CgroupRoot, CpuUse, IoUse, LimitError, Limits, Machine, MemoryUse, NetworkUse, Stats};
pub use error::ContainerError;
pub use id::{ContainerId, ExecId, IdError, ProcessId};
pub use instance::Snapshot;
pub use pipes::{StreamNumbers, WantedPipes};
pub use process::ProcessState;

use crate::{
    launch::{HostSeccomp, Launcher, TerminalSize},
    network::NetworkPlan,
    pod::{Ingress, Pod},
    reaper::{Exit, Reaper},
    stage::StageLog,
    stream::Streams,
    workload::{ModelMount, OutputEnd, OutputMount, Rootfs, Workload, WorkloadError},
};
use cgroup::Cgroup;
use instance::Instance;
use pipes::Outlet;

/// Where a container's root and models come from, and where its output goes.
#[async_trait]
pub trait Supply: Send + Sync {
    /// Waits for the verified image of a container that the policy names.
    async fn image(&self, container: &str) -> Result<Rootfs, WorkloadError>;
    /// Waits for the verified models of such a container.
    async fn models(&self, container: &str) -> Result<Vec<ModelMount>, WorkloadError>;
    /// An empty folder for what such a container leaves, if the policy keeps that.
    async fn output(&self, _container: &str) -> Result<Option<OutputMount>, WorkloadError> {
        Ok(None)
    }
    /// Such a container has ended with `status`, and nothing of it is alive: keeps what it has left, where that is to be kept, unless
    /// `killed` is told meanwhile. `refused`: the status that the host is told where it could not be kept.
    async fn finish(&self, _container: &str, _status: u32, _refused: u32, _killed: oneshot::Receiver<()>) -> OutputEnd {
        OutputEnd::None
    }
}

#[async_trait]
impl Supply for Workload {
    async fn image(&self, container: &str) -> Result<Rootfs, WorkloadError> {
        Workload::image(self, container).await
    }

    async fn models(&self, container: &str) -> Result<Vec<ModelMount>, WorkloadError> {
        Workload::models(self, container).await
    }

    async fn output(&self, container: &str) -> Result<Option<OutputMount>, WorkloadError> {
        Workload::output(self, container).await
    }

    async fn finish(&self, container: &str, status: u32, refused: u32, killed: oneshot::Receiver<()>) -> OutputEnd {
        Workload::finish(self, container, status, refused, killed).await
    }
}

/// What all containers need.
pub struct Setting {
    /// Where their directories are made.
    pub state_dir: PathBuf,
    /// Starts their processes.
    pub launcher: Launcher,
    /// Where cgroups are made; `None` only where there is no cgroup v2, in tests.
    pub cgroups: Option<CgroupRoot>,
    /// Memory that a container's changes to its root may take, in MiB.
    pub writable_mib: u64,
    /// Their pipes.
    pub streams: Streams,
    /// Their processes.
    pub reaper: Reaper,
    /// What they share.
    pub pod: Pod,
    /// Who of them must be there for clients to come in.
    pub ingress: Ingress,
    /// Where starts are recorded.
    pub stages: StageLog,
    /// The log.
    pub log: Logger,
}

/// All containers. Clones share them.
#[derive(Clone)]
pub struct Containers {
    setting: Arc<Setting>,
    instances: Arc<Mutex<BTreeMap<ContainerId, Arc<Instance>>>>,
}

/// A container as the host asks for it, after the policy has agreed.
pub struct Creation<'p> {
    /// The host's name for it.
    pub id: ContainerId,
    /// What the policy has made of it.
    pub admission: Admission<'p>,
    /// The host's system call filter, where the policy admits one.
    pub host_seccomp: Option<HostSeccomp>,
    /// Pipes that were asked for.
    pub pipes: WantedPipes,
    /// Limits that were asked for.
    pub limits: Limits,
}

/// A further process as the policy admits it.
pub struct ExecCreation {
    /// The host's name for it.
    pub exec: ExecId,
    /// What the policy has made of it.
    pub process: AdmittedProcess,
    /// Pipes that were asked for.
    pub pipes: WantedPipes,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit status and time.
    pub exit: Exit,
    /// A process of the container was killed for want of memory while this one ran.
    pub out_of_memory: bool,
}

impl Containers {
    /// Without containers.
    pub fn new(setting: Setting) -> Self {
        Self {
            setting: Arc::new(setting),
            instances: Arc::default(),
        }
    }

    /// Makes a container and offers its pipes. Nothing runs yet. Needs a runtime.
    pub fn create(&self, creation: Creation<'_>) -> Result<StreamNumbers, ContainerError> {
        let mut instances = self.lock();
        if instances.contains_key(&creation.id) {
            return Err(ContainerError::Exists {
                process: creation.id.first_process(),
            });
        }
        let policy = creation.admission.policy;
        let mut others = instances
            .values()
            .filter(|other| other.policy().name == policy.name && !other.has_ended());
        let count = u32::try_from(others.clone().count()).unwrap_or(u32::MAX);
        if !policy.instances.allows(|most| count < *most)
            && let Some(other) = others.next()
        {
            return Err(ContainerError::NameTaken {
                name: policy.name.clone(),
                id: other.id().clone(),
            });
        }
        let id = creation.id.clone();
        let made = Instance::create(Arc::clone(&self.setting), creation);
        let (instance, numbers) = made.inspect_err(|_| self.setting.discard(&id))?;
        instances.insert(instance.id().clone(), Arc::new(instance));
        Ok(numbers)
    }

    /// Makes a further process in a running container and offers its pipes. Needs a runtime.
    pub fn exec(&self, id: &ContainerId, creation: ExecCreation) -> Result<StreamNumbers, ContainerError> {
        self.find(id)?.add_exec(creation)
    }

    /// Waits for image and models, then starts the container's program; its process number.
    pub async fn start(
        &self,
        id: &ContainerId,
        supply: Arc<dyn Supply>,
        network: Arc<NetworkPlan>,
    ) -> Result<u32, ContainerError> {
        let instance = self.find(id)?;
        // The task goes on when the caller goes away.
        let start = tokio::spawn(async move { instance.start(supply, network).await });
        let process = id.first_process();
        start.await.unwrap_or(Err(ContainerError::Interrupted { process }))
    }

    /// Starts a further process; its number.
    pub async fn start_exec(&self, id: &ContainerId, exec: &ExecId) -> Result<u32, ContainerError> {
        let instance = self.find(id)?;
        let process = ProcessId {
            container: id.clone(),
            exec: Some(exec.clone()),
        };
        let exec = exec.clone();
        let start = tokio::spawn(async move { instance.start_exec(exec).await });
        start.await.unwrap_or(Err(ContainerError::Interrupted { process }))
    }

    /// Waits for the end of a process. Safe to cancel.
    pub async fn wait(&self, id: &ProcessId) -> Result<Ended, ContainerError> {
        let process = self.find(&id.container)?.process(id.exec.as_ref())?;
        Ok(process.wait().await)
    }

    /// Sends a signal that the policy allows, to one process or to all of its container's.
    pub fn signal(&self, id: &ProcessId, signal: u32, all: bool) -> Result<(), ContainerError> {
        self.find(&id.container)?.signal(id.exec.as_ref(), signal, all)
    }

    /// Sets the size of a process's terminal.
    pub fn resize(&self, id: &ProcessId, size: TerminalSize) -> Result<(), ContainerError> {
        self.find(&id.container)?.process(id.exec.as_ref())?.resize(size)
    }

    /// Process numbers of a container; empty when it does not run.
    pub fn processes(&self, id: &ContainerId) -> Result<Vec<u32>, ContainerError> {
        self.find(id)?.processes()
    }

    /// Removes a container, or a further process, that does not run; how it ended.
    pub async fn delete(&self, id: &ProcessId) -> Result<Ended, ContainerError> {
        let instance = self.find(&id.container)?;
        if let Some(exec) = &id.exec {
            return instance.remove_exec(exec);
        }
        let (containers, container) = (self.clone(), id.container.clone());
        // The task goes on when the caller goes away, and it is the only one for this instance: what is removed is no other.
        let removal = tokio::spawn(async move {
            let removed = instance.remove().await;
            removed.inspect(|_| drop(containers.lock().remove(&container)))
        });
        let process = id.clone();
        removal.await.unwrap_or(Err(ContainerError::Interrupted { process }))
    }

    /// What the policy says of a container.
    pub fn policy(&self, id: &ContainerId) -> Result<ContainerPolicy, ContainerError> {
        Ok(self.find(id)?.policy().clone())
    }

    /// Where their pipes are offered.
    pub fn streams(&self) -> &Streams {
        &self.setting.streams
    }

    /// What the programs of a container have left to be told; nothing when it is gone.
    pub fn last_words(&self, id: &ContainerId) -> Vec<u8> {
        self.find(id).map(|instance| instance.last_words()).unwrap_or_default()
    }

    /// What they share.
    pub fn pod(&self) -> &Pod {
        &self.setting.pod
    }

    /// Where their cgroups are; `None` only where there is no cgroup v2, in tests.
    pub fn cgroups(&self) -> Option<&CgroupRoot> {
        self.setting.cgroups.as_ref()
    }

    /// Whether clients may come in.
    pub fn ingress(&self) -> &Ingress {
        &self.setting.ingress
    }

    /// All containers as they are now.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.lock().values().map(|instance| instance.snapshot()).collect()
    }

    /// Kills what runs and waits, within `limit`, until it is gone.
    pub async fn kill_all(&self, limit: Duration) {
        let instances: Vec<_> = self.lock().values().cloned().collect();
        for instance in &instances {
            instance.kill();
        }
        let gone = async {
            for instance in &instances {
                if instance.is_alive() {
                    instance.wait().await;
                }
            }
        };
        // Whoever is left dies with the machine.
        let _ = tokio::time::timeout(limit, gone).await;
    }

    fn find(&self, id: &ContainerId) -> Result<Arc<Instance>, ContainerError> {
        self.lock().get(id).cloned().ok_or_else(|| ContainerError::Unknown {
            process: id.first_process(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Arc<Instance>>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Setting {
    fn bundle(&self, id: &ContainerId) -> PathBuf {
        self.state_dir.join(id.as_str())
    }

    /// What gets out of a process of a container.
    fn outlet(&self, policy: &ContainerPolicy, process: &ProcessId) -> Outlet {
        Outlet {
            policy: policy.stdio,
            events: self.pod.events().clone(),
            ingress: self.ingress.clone(),
            process: process.clone(),
        }
    }

    fn make_bundle(&self, id: &ContainerId) -> Result<PathBuf, ContainerError> {
        let bundle = self.bundle(id);
        fs::create_dir_all(&bundle).map_err(|source| ContainerError::Directory {
            what: "making",
            id: id.clone(),
            source,
        })?;
        Ok(bundle)
    }

    /// Takes away what there is of a container that could not be made.
    fn discard(&self, id: &ContainerId) {
        if let Some(root) = &self.cgroups {
            root.discard(id);
        }
        // Not there where it was the directory that could not be made.
        let _ = fs::remove_dir(self.bundle(id));
    }
}
