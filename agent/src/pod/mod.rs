//! What a pod's containers have in common: host name, messages, shared memory, volumes, and where it is wanted a process
//! namespace. Their network is the guest's own.
//!
//! ```text
//! new ──found (ConfigureNetwork, once)──▶ founded ──dissolved, or last clone dropped──▶ gone: mounts, namespaces, init
//! ```

mod error;
mod events;
mod ingress;
mod init;
mod memory;
mod namespaces;
mod sysctl;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

pub use error::PodError;
pub use events::{Amount, Event, EventKind, Events};
pub use ingress::Ingress;
pub use namespaces::NamespaceError;
pub use sysctl::{Sysctl, SysctlError};

use self::{init::Init, memory::SharedMemory, namespaces::Namespaces};
use crate::{reaper::Reaper, volume::Volumes};

/// A pod. Clones share it.
#[derive(Clone, Debug)]
pub struct Pod {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    program: PathBuf,
    reaper: Reaper,
    volumes: Volumes,
    events: Events,
    common: Mutex<Option<Common>>,
    /// Process 1 of the process namespace that containers may share.
    init: tokio::sync::Mutex<Option<Init>>,
}

#[derive(Debug)]
struct Common {
    hostname: String,
    namespaces: Namespaces,
    memory: SharedMemory,
}

/// Where a launcher finds what a pod's containers share. Good as long as the pod is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommonGround {
    /// The pod's host name.
    pub hostname: String,
    /// The IPC namespace.
    pub ipc: PathBuf,
    /// The UTS namespace, which has the host name.
    pub uts: PathBuf,
    /// The file system for `/dev/shm`.
    pub shm: PathBuf,
}

impl Pod {
    /// A pod that keeps what it has in `dir`. `program` is this binary, started anew when containers share processes.
    pub fn new(dir: PathBuf, program: PathBuf, reaper: Reaper) -> Self {
        Self {
            shared: Arc::new(Shared {
                volumes: Volumes::new(dir.join("volumes")),
                events: Events::new(),
                dir,
                program,
                reaper,
                common: Mutex::default(),
                init: tokio::sync::Mutex::default(),
            }),
        }
    }

    /// Its volumes.
    pub fn volumes(&self) -> &Volumes {
        &self.shared.volumes
    }

    /// What happened in it.
    pub fn events(&self) -> &Events {
        &self.shared.events
    }

    /// Where files of the agent's for one container may be made.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Gives it its host name and kernel parameters. Once, before its first container. Blocks for milliseconds.
    pub fn found(&self, hostname: &str, sysctls: &[Sysctl]) -> Result<(), PodError> {
        let mut common = self.shared.common.lock().unwrap_or_else(PoisonError::into_inner);
        if common.is_some() {
            return Err(PodError::Twice);
        }
        *common = Some(self.make(hostname, sysctls)?);
        Ok(())
    }

    /// What its containers share. A pod that nobody founded gets a host name like any other machine without one.
    pub fn common_ground(&self) -> Result<CommonGround, PodError> {
        let mut common = self.shared.common.lock().unwrap_or_else(PoisonError::into_inner);
        let common = match &mut *common {
            Some(common) => common,
            none => none.insert(self.make(NAMELESS, &[])?),
        };
        Ok(CommonGround {
            hostname: common.hostname.clone(),
            ipc: common.namespaces.ipc(),
            uts: common.namespaces.uts(),
            shm: common.memory.path().to_owned(),
        })
    }

    /// The process namespace that containers share, made when the first of them wants it.
    pub async fn process_namespace(&self) -> Result<PathBuf, PodError> {
        let mut init = self.shared.init.lock().await;
        let init = match &mut *init {
            Some(init) => init,
            none => none.insert(Init::start(&self.shared.program, &self.shared.reaper).await?),
        };
        Ok(init.namespace())
    }

    /// Takes away what it has, whoever still holds it: mounts, namespaces, volumes. Its containers must have ended.
    pub fn dissolve(&self) {
        *self.shared.common.lock().unwrap_or_else(PoisonError::into_inner) = None;
        // Nobody starts a container any more, so the lock is free.
        if let Ok(mut init) = self.shared.init.try_lock() {
            *init = None;
        }
        self.shared.volumes.clear();
    }

    fn make(&self, hostname: &str, sysctls: &[Sysctl]) -> Result<Common, PodError> {
        let hostname = if hostname.is_empty() { NAMELESS } else { hostname };
        Ok(Common {
            hostname: hostname.to_owned(),
            namespaces: Namespaces::make(hostname, sysctls).map_err(PodError::Namespaces)?,
            memory: SharedMemory::make(&self.shared.dir.join("shm")).map_err(PodError::Memory)?,
        })
    }
}

/// Sets the kernel parameters that every pod of every runtime has, for the guest's network namespace.
pub fn set_defaults() -> Result<(), SysctlError> {
    sysctl::set_defaults(Path::new("/proc/sys"))
}

/// Host name of a pod that was given none.
const NAMELESS: &str = "cella";
