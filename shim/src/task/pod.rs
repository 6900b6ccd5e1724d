//! A pod: its VM, its containers, and what containerd may do to them.
//!
//! Locks are held for a few instructions, never over an `await`: containerd gives State two seconds, and a start may take
//! minutes. The VM's slot goes Empty → Booting → Up, and back to Empty when a boot fails or is cancelled.

mod boot;
mod exec;
mod guest_events;
mod pids;
mod pipes;
mod process;
mod resources;
mod sandbox;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cella_protos::agent as guest;
use containerd_shim::ExitSignal;
use containerd_shim::protos::events::task::{TaskCreate, TaskDelete, TaskIO};
use containerd_shim::protos::shim::shim::CreateTaskRequest;
use slog::{Logger, debug, info, o, warn};

use self::boot::BootGuard;
use self::pipes::{attach, deliver_rest};
use self::process::explain;
use super::container::Container;
use super::copies::Copies;
use super::error::TaskError;
use super::events::Publisher;
use super::network::Resolver;
use super::process::{Kind, Phase, Process, TerminalSize};
use super::resolver;
use super::stdio::Stdio;
use super::timestamp;
use crate::agent::{ExitInfo, Pipes, ProcessId};
use crate::bundle::{Bundle, Role, oci};
use crate::container_spec::{Neighbours, host_namespaces, images, translate};
use crate::containerd;
use crate::logging::Verbosity;
use crate::metrics;
use crate::options::config_source;
use crate::process::Spawner;
use crate::users;
use crate::vm::{State, Vm};
use crate::volumes::Volumes;

/// What CRI calls a container's image.
const IMAGE_NAME: &str = "io.kubernetes.cri.image-name";
/// How long containerd, which waits for us, may take to say which image a container has.
const CONTAINERD_ANSWERS: Duration = Duration::from_secs(2);

pub use sandbox::{Dns, SandboxState};

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
    volumes: Volumes,
    /// Namespaces of the host that the sandbox was given; containers that are in them are refused.
    host_namespaces: Mutex<Vec<String>>,
}

enum Slot {
    Empty,
    Booting,
    Up(Arc<Vm>),
}

impl Pod {
    /// A pod without containers.
    pub fn new(parts: PodParts) -> Self {
        let volumes = Volumes::new(parts.log.clone());
        Self {
            parts,
            vm: Mutex::new(Slot::Empty),
            containers: Mutex::default(),
            volumes,
            host_namespaces: Mutex::default(),
        }
    }

    /// The container `id`.
    ///
    /// # Errors
    /// There is none.
    pub fn container(&self, id: &str) -> Result<Arc<Container>, TaskError> {
        self.all().get(id).cloned().ok_or_else(|| TaskError::Unknown {
            id: ProcessId::first(id),
        })
    }

    /// The container's own process, or its exec `exec_id`.
    ///
    /// # Errors
    /// There is no such container or exec.
    pub fn process(&self, id: &str, exec_id: &str) -> Result<Arc<Process>, TaskError> {
        let container = self.container(id)?;
        if exec_id.is_empty() {
            Ok(container.process().clone())
        } else {
            container.exec(exec_id)
        }
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
            return Err(TaskError::Exists {
                id: ProcessId::first(&req.id),
            });
        }
        if !req.checkpoint.is_empty() || !req.parent_checkpoint.is_empty() {
            return Err(TaskError::Unsupported {
                what: "starting from a checkpoint",
            });
        }
        let stdio = Stdio::new(&req.stdin, &req.stdout, &req.stderr, req.terminal)?;
        let bundle_dir = req.bundle.clone();
        let bundle = off_thread(move || Bundle::load(Path::new(&bundle_dir))).await??;
        let created = Some(created(&req));
        match bundle.role()? {
            Role::Sandbox => {
                let (bundle, resolver) = with_resolver(bundle).await?;
                let source = config_source(req.options.as_ref())?;
                let (guard, vm) = self.boot(&req.id, source, &bundle, &resolver).await?;
                self.set_host_namespaces(host_namespaces(&bundle.spec));
                let (id, pid) = (ProcessId::first(&req.id), vm.qemu_pid());
                let process = Process::new(id, Kind::Sandbox, pid, stdio, Copies::default());
                let container = Container::new(&req.bundle, process);
                self.adopt(container, created, Some((guard, vm)))
            }
            Role::Alone => {
                let (bundle, resolver) = with_resolver(bundle).await?;
                let source = config_source(req.options.as_ref())?;
                let (guard, vm) = self.boot(&req.id, source, &bundle, &resolver).await?;
                let made = self.create_in(&vm, &req, bundle, Kind::Alone, stdio).await;
                match made {
                    Ok(process) => {
                        let container = Container::new(&req.bundle, process).with_roots(roots(&req));
                        self.adopt(container, created, Some((guard, vm)))
                    }
                    Err(error) => {
                        // The caller hears of it when everything is gone, files included.
                        vm.stop().await;
                        self.volumes.close();
                        Err(error)
                    }
                }
            }
            Role::Member { .. } => {
                let vm = self.vm()?;
                let process = self.create_in(&vm, &req, bundle, Kind::Workload, stdio).await?;
                let container = Container::new(&req.bundle, process).with_roots(roots(&req));
                self.adopt(container, created, None)
            }
        }
    }

    /// Forgets a process that is not running, once its output is delivered; a container with its own process, and with the
    /// last container the VM goes down.
    ///
    /// # Errors
    /// It runs.
    pub async fn delete(self: Arc<Self>, process: Arc<Process>) -> Result<ExitInfo, TaskError> {
        let id = process.id();
        let exit = match process.phase() {
            Phase::Stopped(exit) => exit,
            Phase::Created => ExitInfo::now(0),
            _ => return Err(process.wrong_phase("stopped")),
        };
        deliver_rest(&process).await;
        if process.kind() != Kind::Sandbox {
            self.delete_in_guest(id).await;
        }
        if id.is_exec() {
            return if self.container(&id.container)?.remove_exec(&id.exec) {
                Ok(exit)
            } else {
                Err(TaskError::Unknown { id: id.clone() })
            };
        }
        let (container, last) = {
            let mut containers = self.all();
            let container = containers
                .remove(&id.container)
                .ok_or_else(|| TaskError::Unknown { id: id.clone() })?;
            (container, containers.is_empty())
        };
        for exec in container.execs() {
            exec.io().abort().await;
        }
        self.volumes.forget(&id.container);
        if last {
            self.stop_vm().await;
        }
        if process.is_announced() {
            self.parts.events.publish(TaskDelete {
                container_id: id.container.clone(),
                pid: process.pid(),
                exit_status: exit.status,
                exited_at: Some(timestamp(exit.at)).into(),
                ..Default::default()
            });
        }
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

    /// Has the agent forget a process. A VM that is gone has forgotten it already.
    async fn delete_in_guest(&self, id: &ProcessId) {
        if let Ok(vm) = self.vm() {
            self.delete_in_guest_of(&vm, id).await;
        }
    }

    async fn delete_in_guest_of(&self, vm: &Vm, id: &ProcessId) {
        if !matches!(vm.state(), State::Ready) {
            return;
        }
        if let Err(error) = vm.agent().delete_process(id).await {
            warn!(self.parts.log, "the agent did not delete a process"; "process" => %id, "error" => %error);
        }
    }

    async fn stop_vm(&self) {
        let vm = match std::mem::replace(&mut *self.slot(), Slot::Empty) {
            Slot::Up(vm) => vm,
            Slot::Empty | Slot::Booting => return,
        };
        vm.stop().await;
        self.volumes.close();
    }

    fn set_host_namespaces(&self, of_the_host: Vec<String>) {
        *self.host_namespaces.lock().unwrap_or_else(PoisonError::into_inner) = of_the_host;
    }

    fn neighbours(&self, kind: Kind) -> Neighbours {
        match kind {
            Kind::Alone => Neighbours::None,
            Kind::Workload | Kind::Sandbox | Kind::Exec => Neighbours::Pod {
                of_the_host: self
                    .host_namespaces
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone(),
            },
        }
    }

    /// Asks the agent for the container and attaches its pipes.
    async fn create_in(
        &self,
        vm: &Arc<Vm>,
        req: &CreateTaskRequest,
        bundle: Bundle,
        kind: Kind,
        stdio: Stdio,
    ) -> Result<Process, TaskError> {
        let made = self.create_with_volumes(vm, req, &bundle, kind, stdio).await;
        if made.is_err() {
            self.volumes.forget(&req.id);
        }
        made
    }

    async fn create_with_volumes(
        &self,
        vm: &Arc<Vm>,
        req: &CreateTaskRequest,
        bundle: &Bundle,
        kind: Kind,
        stdio: Stdio,
    ) -> Result<Process, TaskError> {
        let images = self.images(req, bundle).await?;
        let mut spec = translate(&bundle.spec, req.terminal, &self.neighbours(kind));
        spec.user = Some(user(&bundle.spec.process.user, roots(req)).await?).into();
        spec.mounts = self.volumes.prepare(vm.agent(), &req.id, &bundle.spec).await?;
        let [stdin, stdout, stderr] = stdio.wanted();
        let request = guest::CreateContainerRequest {
            id: req.id.clone(),
            name: bundle.container_name().to_owned(),
            images,
            spec: Some(spec).into(),
            stdin,
            stdout,
            stderr,
            ..Default::default()
        };
        let pipes = match vm.agent().create_container(&request).await {
            Ok(pipes) => pipes,
            Err(error) => return Err(explain(vm, error).await),
        };
        let id = ProcessId::first(&req.id);
        let size = terminal_size(&bundle.spec.process);
        let process = self.attached(vm, id, kind, stdio, pipes, size).await?;
        metrics::global().container_created(bundle.container_name());
        Ok(process)
    }

    /// The images that the container may be made from: what containerd says now, then what the snapshotter was told once.
    async fn images(&self, req: &CreateTaskRequest, bundle: &Bundle) -> Result<Vec<String>, TaskError> {
        let (socket, namespace) = (Path::new(&self.parts.containerd), &self.parts.namespace);
        let asked = containerd::candidates(socket, namespace, &req.id, bundle.annotation(IMAGE_NAME));
        let known = match tokio::time::timeout(CONTAINERD_ANSWERS, asked).await {
            Ok(Ok(known)) => known,
            Ok(Err(error)) => {
                debug!(self.parts.log, "containerd names no image"; "container" => &req.id, "error" => %error);
                Vec::new()
            }
            Err(_) => {
                debug!(self.parts.log, "containerd names no image in time"; "container" => &req.id);
                Vec::new()
            }
        };
        Ok(containerd::merge(known, images(&req.rootfs))?)
    }

    /// A process that the agent has made, with its pipes attached; when that fails, the agent forgets it again.
    async fn attached(
        &self,
        vm: &Arc<Vm>,
        id: ProcessId,
        kind: Kind,
        stdio: Stdio,
        pipes: Pipes,
        size: Option<TerminalSize>,
    ) -> Result<Process, TaskError> {
        let io = Copies::new(self.parts.log.new(o!("process" => id.to_string())));
        match attach(vm, &pipes, &stdio, &io).await {
            Ok(stdin) => {
                let process = Process::new(id, kind, vm.qemu_pid(), stdio, io);
                Ok(process.with_stdin(stdin).with_size(size))
            }
            Err(error) => {
                io.abort().await;
                self.delete_in_guest_of(vm, &id).await;
                Err(error)
            }
        }
    }

    /// Makes a container known, and with it the VM that came up for it.
    fn adopt(
        self: &Arc<Self>,
        container: Container,
        created: Option<TaskCreate>,
        booted: Option<(BootGuard<'_>, Arc<Vm>)>,
    ) -> Result<u32, TaskError> {
        let (id, pid) = (container.process().id().clone(), container.process().pid());
        {
            let mut containers = self.all();
            if containers.contains_key(&id.container) {
                return Err(TaskError::Exists { id });
            }
            containers.insert(id.container.clone(), Arc::new(container));
            if let Some(created) = created {
                self.parts.events.publish(TaskCreate { pid, ..created });
            }
        }
        info!(self.parts.log, "process created"; "process" => %id, "pid" => pid);
        if let Some((guard, vm)) = booted {
            guard.commit(vm.clone());
            tokio::spawn(self.clone().watch_guest(vm.clone()));
            tokio::spawn(self.clone().watch_vm(vm));
        }
        Ok(pid)
    }
}

/// Where the container's root stands on the host, in which cella-snapshotter keeps the names of users.
fn roots(req: &CreateTaskRequest) -> Vec<String> {
    req.rootfs.iter().map(|mount| mount.source.clone()).collect()
}

/// A process's user for the agent, by name where its numbers stand for one.
async fn user(user: &oci::User, roots: Vec<String>) -> Result<guest::User, TaskError> {
    let user = user.clone();
    Ok(off_thread(move || users::translate(&user, &roots)).await??)
}

/// The event that says that a container was created, but for its pid.
fn created(req: &CreateTaskRequest) -> TaskCreate {
    TaskCreate {
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
        ..Default::default()
    }
}

/// The bundle, and what its `resolv.conf` says.
async fn with_resolver(bundle: Bundle) -> Result<(Bundle, Resolver), TaskError> {
    off_thread(move || {
        let resolver = resolver::of_bundle(&bundle);
        (bundle, resolver)
    })
    .await
}

/// The size that a process wants its terminal to have from the start.
fn terminal_size(process: &oci::Process) -> Option<TerminalSize> {
    let oci::ConsoleSize { height, width } = process.console_size;
    (height > 0 && width > 0).then_some(TerminalSize {
        columns: width,
        rows: height,
    })
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, TaskError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| TaskError::Interrupted)
}

#[cfg(test)]
mod tests;
