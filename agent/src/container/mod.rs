//! The guest's containers: as many of each that the policy names as it allows at once.
//!
//! ```text
//!           create              start             program runs            process 1 ends
//! (nothing) ──────▶ created ──────────▶ starting ──────────────▶ running ───────────────▶ stopped ──delete──▶ (nothing)
//!                     │ │                  │                                                ▲
//!                     │ └──kill────────────┼── kill, or image, model or launch failed ──────┘
//!                     └──delete──▶ (nothing)
//! ```
//! Each container's state has one lock; what waits (pulls, launch, exit) runs in a task of its own, so that a host that
//! drops its connection cannot leave a container between two states. A container whose start failed is stopped with
//! status 255 and keeps no process.

mod cgroup;
mod error;
mod id;
mod instance;
mod pipes;
mod prepare;
mod resources;

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use cella_policy::check::Admission;
use slog::Logger;

pub use cgroup::{CgroupError, CgroupRoot, CpuUse, IoUse, LimitError, Limits, Machine, MemoryUse, NetworkUse, Stats};
pub use error::ContainerError;
pub use id::{ContainerId, IdError};
pub use instance::{ContainerState, Snapshot};
pub use pipes::{StreamNumbers, WantedPipes};

use crate::{
    network::NetworkPlan,
    pod::Pod,
    reaper::{Exit, Reaper},
    stage::StageLog,
    stream::Streams,
    workload::{ModelMount, Rootfs, Workload, WorkloadError},
};
use cgroup::Cgroup;
use instance::Instance;

/// Where a container's root and models come from.
#[async_trait]
pub trait Supply: Send + Sync {
    /// Waits for the verified image of a container that the policy names.
    async fn image(&self, container: &str) -> Result<Rootfs, WorkloadError>;
    /// Waits for the verified models of such a container.
    async fn models(&self, container: &str) -> Result<Vec<ModelMount>, WorkloadError>;
}

#[async_trait]
impl Supply for Workload {
    async fn image(&self, container: &str) -> Result<Rootfs, WorkloadError> {
        Workload::image(self, container).await
    }

    async fn models(&self, container: &str) -> Result<Vec<ModelMount>, WorkloadError> {
        Workload::models(self, container).await
    }
}

/// What all containers need.
pub struct Setting {
    /// Where their directories are made.
    pub state_dir: PathBuf,
    /// The binary that is started as the launcher.
    pub launcher: PathBuf,
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
    /// Pipes that were asked for.
    pub pipes: WantedPipes,
    /// Limits that were asked for.
    pub limits: Limits,
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
            return Err(ContainerError::Exists { id: creation.id });
        }
        let policy = creation.admission.policy;
        let mut others = instances.values().filter(|other| other.policy().name == policy.name);
        let count = u32::try_from(others.clone().count()).unwrap_or(u32::MAX);
        if !policy.instances.allows(|most| count < *most)
            && let Some(other) = others.next()
        {
            return Err(ContainerError::NameTaken {
                name: policy.name.clone(),
                id: other.id().clone(),
            });
        }
        let (instance, numbers) = Instance::create(Arc::clone(&self.setting), creation)?;
        instances.insert(instance.id().clone(), Arc::new(instance));
        Ok(numbers)
    }

    /// Waits for image and models, then starts the program; its process number.
    pub async fn start(
        &self,
        id: &ContainerId,
        supply: Arc<dyn Supply>,
        network: Arc<NetworkPlan>,
    ) -> Result<u32, ContainerError> {
        let instance = self.find(id)?;
        let id = id.clone();
        // The task goes on when the caller goes away.
        tokio::spawn(async move { instance.start(supply, network).await })
            .await
            .unwrap_or(Err(ContainerError::Interrupted { id }))
    }

    /// Waits for the end of a container. Safe to cancel.
    pub async fn wait(&self, id: &ContainerId) -> Result<Exit, ContainerError> {
        Ok(self.find(id)?.wait().await)
    }

    /// Sends a signal that the policy allows, to process 1 or to all.
    pub fn signal(&self, id: &ContainerId, signal: u32, all: bool) -> Result<(), ContainerError> {
        self.find(id)?.signal(signal, all)
    }

    /// Process numbers of a container; empty when it does not run.
    pub fn processes(&self, id: &ContainerId) -> Result<Vec<u32>, ContainerError> {
        self.find(id)?.processes()
    }

    /// Removes a container that does not run; how it ended.
    pub async fn delete(&self, id: &ContainerId) -> Result<Exit, ContainerError> {
        let exit = self.find(id)?.remove().await?;
        self.lock().remove(id);
        Ok(exit)
    }

    /// Where their pipes are offered.
    pub fn streams(&self) -> &Streams {
        &self.setting.streams
    }

    /// What they share.
    pub fn pod(&self) -> &Pod {
        &self.setting.pod
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
                if instance.is_running() {
                    instance.wait().await;
                }
            }
        };
        // Whoever is left dies with the machine.
        let _ = tokio::time::timeout(limit, gone).await;
    }

    fn find(&self, id: &ContainerId) -> Result<Arc<Instance>, ContainerError> {
        self.lock()
            .get(id)
            .cloned()
            .ok_or_else(|| ContainerError::Unknown { id: id.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Arc<Instance>>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Setting {
    fn bundle(&self, id: &ContainerId) -> PathBuf {
        self.state_dir.join(id.as_str())
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
}
