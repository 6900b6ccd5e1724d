//! A pod: its VM, its containers, and what containerd may do to them.
//!
//! Locks are held for a few instructions, never over an `await`: containerd gives State two seconds, and a start may take
//! minutes. The VM's slot goes Empty → Booting → Up, and back to Empty when a boot fails or is cancelled.

mod boot;
mod pipes;
mod process;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cella_protos::agent as guest;
use containerd_shim::ExitSignal;
use containerd_shim::asynchronous::io::{IoTasks, Stdio};
use containerd_shim::protos::events::task::{TaskCreate, TaskDelete, TaskIO};
use containerd_shim::protos::shim::shim::CreateTaskRequest;
use slog::{Logger, info, warn};

use self::boot::BootGuard;
use self::pipes::{attach, checked_stdio};
use self::process::explain;
use super::container::{Container, Kind, Phase};
use super::error::TaskError;
use super::events::Publisher;
use super::timestamp;
use crate::agent::ExitInfo;
use crate::bundle::{Bundle, Role};
use crate::container_spec::{images, translate};
use crate::logging::Verbosity;
use crate::metrics;
use crate::process::Spawner;
use crate::vm::{State, Vm};

/// What a pod needs from its shim.
pub struct PodParts {
    /// containerd's socket.
    pub containerd: String,
    /// containerd's namespace.
    pub namespace: String,
    /// Where events go.
    pub events: Publisher,
    /// Ends the shim.
    pub exit: Arc<ExitSignal>,
    /// Starts programs.
    pub spawner: Spawner,
    /// The log's level, which the configuration sets.
    pub verbosity: Verbosity,
    /// The log.
    pub log: Logger,
}

/// One pod, and thus one shim.
pub struct Pod {
    parts: PodParts,
    vm: Mutex<Slot>,
    containers: Mutex<BTreeMap<String, Arc<Container>>>,
}

enum Slot {
    Empty,
    Booting,
    Up(Arc<Vm>),
}

impl Pod {
    /// A pod without containers.
    pub fn new(parts: PodParts) -> Self {
        Self {
            parts,
            vm: Mutex::new(Slot::Empty),
            containers: Mutex::default(),
        }
    }

    /// The container `id`.
    ///
    /// # Errors
    /// There is none.
    pub fn container(&self, id: &str) -> Result<Arc<Container>, TaskError> {
        self.all()
            .get(id)
            .cloned()
            .ok_or_else(|| TaskError::Unknown { id: id.to_owned() })
    }

    /// Whether there is neither a container nor a VM.
    pub fn is_idle(&self) -> bool {
        self.all().is_empty() && matches!(*self.slot(), Slot::Empty)
    }

    /// Waits until every event is with containerd, for up to `patience`.
    pub async fn flush_events(&self, patience: Duration) {
        self.parts.events.flush(patience).await;
    }

    /// Makes a container, and the VM where it brings one up; gives QEMU's process.
    ///
    /// Cancelling undoes a boot that is under way.
    ///
    /// # Errors
    /// See [`TaskError`]. Whatever had been started for the container is gone.
    pub async fn create(self: &Arc<Self>, req: CreateTaskRequest) -> Result<u32, TaskError> {
        if self.all().contains_key(&req.id) {
            return Err(TaskError::Exists { id: req.id });
        }
        if !req.checkpoint.is_empty() || !req.parent_checkpoint.is_empty() {
            return Err(TaskError::Unsupported {
                what: "starting from a checkpoint",
            });
        }
        let stdio = checked_stdio(&req)?;
        let bundle_dir = req.bundle.clone();
        let bundle = off_thread(move || Bundle::load(Path::new(&bundle_dir))).await??;
        match bundle.role()? {
            Role::Sandbox => {
                let (guard, vm) = self.boot(&req, &bundle).await?;
                let container = Container::new(
                    &req.id,
                    &req.bundle,
                    Kind::Sandbox,
                    vm.qemu_pid(),
                    stdio,
                    IoTasks::default(),
                );
                self.adopt(Arc::new(container), &req, Some((guard, vm)))
            }
            Role::Alone => {
                let (guard, vm) = self.boot(&req, &bundle).await?;
                let made = self.create_in(&vm, &req, &bundle, Kind::Alone, stdio).await;
                match made {
                    Ok(container) => self.adopt(container, &req, Some((guard, vm))),
                    Err(error) => {
                        // The caller hears of it when everything is gone, files included.
                        vm.stop().await;
                        Err(error)
                    }
                }
            }
            Role::Member { .. } => {
                let vm = self.vm()?;
                let container = self.create_in(&vm, &req, &bundle, Kind::Workload, stdio).await?;
                self.adopt(container, &req, None)
            }
        }
    }

    /// Forgets a container that is not running; with the last one the VM goes down.
    ///
    /// # Errors
    /// It runs.
    pub async fn delete(self: Arc<Self>, container: Arc<Container>) -> Result<ExitInfo, TaskError> {
        let id = container.id();
        let exit = match container.phase() {
            Phase::Stopped(exit) => exit,
            Phase::Created => ExitInfo::now(0),
            phase => {
                return Err(TaskError::Phase {
                    id: id.to_owned(),
                    phase,
                    wanted: "stopped",
                });
            }
        };
        container.io().abort().await;
        if container.kind() != Kind::Sandbox {
            self.delete_in_guest(id).await;
        }
        let last = {
            let mut containers = self.all();
            containers
                .remove(id)
                .ok_or_else(|| TaskError::Unknown { id: id.to_owned() })?;
            containers.is_empty()
        };
        if last {
            self.stop_vm().await;
        }
        self.parts.events.publish(TaskDelete {
            container_id: id.to_owned(),
            pid: container.pid(),
            exit_status: exit.status,
            exited_at: Some(timestamp(exit.at)).into(),
            ..Default::default()
        });
        Ok(exit)
    }

    /// Ends the shim if no container is left; says whether it does.
    pub async fn shutdown(&self) -> bool {
        if !self.all().is_empty() {
            return false;
        }
        self.stop_vm().await;
        self.parts.exit.signal();
        true
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.vm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Container>>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn vm(&self) -> Result<Arc<Vm>, TaskError> {
        match &*self.slot() {
            Slot::Up(vm) => Ok(vm.clone()),
            Slot::Booting => Err(TaskError::NoVm {
                state: "is still booting",
            }),
            Slot::Empty => Err(TaskError::NoVm { state: "is not up" }),
        }
    }

    /// Has the agent forget a container. A VM that is gone has forgotten it already.
    async fn delete_in_guest(&self, id: &str) {
        let Ok(vm) = self.vm() else { return };
        if !matches!(vm.state(), State::Ready) {
            return;
        }
        if let Err(error) = vm.agent().delete_container(id).await {
            warn!(self.parts.log, "the agent did not delete a container"; "container" => id, "error" => %error);
        }
    }

    async fn stop_vm(&self) {
        let vm = match std::mem::replace(&mut *self.slot(), Slot::Empty) {
            Slot::Up(vm) => vm,
            Slot::Empty | Slot::Booting => return,
        };
        vm.stop().await;
    }

    /// Asks the agent for the container and attaches its pipes.
    async fn create_in(
        &self,
        vm: &Arc<Vm>,
        req: &CreateTaskRequest,
        bundle: &Bundle,
        kind: Kind,
        stdio: Stdio,
    ) -> Result<Arc<Container>, TaskError> {
        let request = guest::CreateContainerRequest {
            id: req.id.clone(),
            name: bundle.container_name().to_owned(),
            images: images(&req.rootfs)?,
            spec: Some(translate(&bundle.spec, req.terminal)).into(),
            stdin: !stdio.stdin.is_empty(),
            stdout: !stdio.stdout.is_empty(),
            stderr: !stdio.stderr.is_empty() && !stdio.terminal,
            ..Default::default()
        };
        let pipes = match vm.agent().create_container(&request).await {
            Ok(pipes) => pipes,
            Err(error) => return Err(explain(vm, error).await),
        };
        let io = IoTasks::default();
        let stdin = match attach(vm, &pipes, &stdio, &io).await {
            Ok(stdin) => stdin,
            Err(error) => {
                io.abort().await;
                let _ = vm.agent().delete_container(&req.id).await;
                return Err(error);
            }
        };
        let container = Container::new(&req.id, &req.bundle, kind, vm.qemu_pid(), stdio, io);
        metrics::global().container_created(bundle.container_name());
        Ok(Arc::new(container.with_stdin(stdin)))
    }

    /// Makes a container known, and with it the VM that came up for it.
    fn adopt(
        self: &Arc<Self>,
        container: Arc<Container>,
        req: &CreateTaskRequest,
        booted: Option<(BootGuard<'_>, Arc<Vm>)>,
    ) -> Result<u32, TaskError> {
        let pid = container.pid();
        let created = TaskCreate {
            container_id: req.id.clone(),
            bundle: req.bundle.clone(),
            rootfs: req.rootfs.clone(),
            io: Some(TaskIO {
                stdin: req.stdin.clone(),
                stdout: req.stdout.clone(),
                stderr: req.stderr.clone(),
                terminal: req.terminal,
                ..Default::default()
            })
            .into(),
            pid,
            ..Default::default()
        };
        {
            let mut containers = self.all();
            if containers.contains_key(&req.id) {
                return Err(TaskError::Exists { id: req.id.clone() });
            }
            containers.insert(req.id.clone(), container);
            self.parts.events.publish(created);
        }
        info!(self.parts.log, "container created"; "container" => &req.id, "pid" => pid);
        if let Some((guard, vm)) = booted {
            guard.commit(vm.clone());
            tokio::spawn(self.clone().watch_vm(vm));
        }
        Ok(pid)
    }
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, TaskError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| TaskError::Interrupted)
}

#[cfg(test)]
mod tests;
