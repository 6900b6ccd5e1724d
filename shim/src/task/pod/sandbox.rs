//! A pod whose sandbox containerd manages through the Sandbox API: the VM is no task then, and has no events.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use containerd_shim::protos::protobuf::well_known_types::any::Any;

use super::super::container::Container;
use super::super::copies::Copies;
use super::super::error::TaskError;
use super::super::process::{Kind, Phase, Process};
use super::super::resolver;
use super::super::stdio::Stdio;
use super::Pod;
use crate::agent::{ExitInfo, ProcessId};
use crate::bundle::Bundle;
use crate::container_spec::host_namespaces;
use crate::options::ConfigSource;

/// SIGKILL.
const KILL: u32 = 9;

/// DNS settings of a pod, in lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// Addresses.
    pub servers: Vec<String>,
    /// Search domains.
    pub search: Vec<String>,
    /// As `resolv.conf` has them.
    pub options: Vec<String>,
}

/// How a sandbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SandboxState {
    /// QEMU's process.
    pub pid: u32,
    /// By the host's clock.
    pub created_at: SystemTime,
    /// Its end; none while it lives.
    pub exit: Option<ExitInfo>,
}

impl Pod {
    /// Brings up the VM for the sandbox `id`, which `bundle` describes. Cancelling undoes it.
    ///
    /// # Errors
    /// See [`TaskError`]. Whatever had been started is gone.
    pub async fn create_sandbox(
        self: &Arc<Self>,
        id: &str,
        source: ConfigSource,
        bundle: &Bundle,
        dns: &Dns,
    ) -> Result<u32, TaskError> {
        if self.container(id).is_ok() {
            return Err(TaskError::Exists {
                id: ProcessId::first(id),
            });
        }
        let resolver = resolver::of_lists(&dns.servers, &dns.search, &dns.options);
        let (guard, vm) = self.boot(id, source, bundle, &resolver).await?;
        self.set_host_namespaces(host_namespaces(&bundle.spec));
        let process = Process::new(
            ProcessId::first(id),
            Kind::Sandbox,
            vm.qemu_pid(),
            Stdio::default(),
            Copies::default(),
        );
        let dir = bundle.dir.display().to_string();
        let container = Container::new(&dir, process.unannounced());
        self.adopt(container, None, Some((guard, vm)))
    }

    /// How the sandbox `id` is.
    ///
    /// # Errors
    /// There is none.
    pub fn sandbox_state(&self, id: &str) -> Result<SandboxState, TaskError> {
        let container = self.sandbox(id)?;
        let exit = match container.process().phase() {
            Phase::Stopped(exit) => Some(exit),
            _ => None,
        };
        Ok(SandboxState {
            pid: container.process().pid(),
            created_at: container.created_at(),
            exit,
        })
    }

    /// Takes the sandbox's VM down and waits for its end, for up to `patience`.
    ///
    /// # Errors
    /// There is none, or it takes longer.
    pub async fn stop_sandbox(&self, id: &str, patience: Duration) -> Result<(), TaskError> {
        let container = self.sandbox(id)?;
        let process = container.process();
        if matches!(process.phase(), Phase::Exiting | Phase::Stopped(_)) {
            return Ok(());
        }
        self.take_down(process, KILL)?;
        match tokio::time::timeout(patience, process.exited()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(TaskError::NoVm {
                state: "has not gone down in time",
            }),
        }
    }

    /// Waits for the sandbox's end.
    ///
    /// # Errors
    /// There is none.
    pub async fn wait_sandbox(&self, id: &str) -> Result<ExitInfo, TaskError> {
        let container = self.sandbox(id)?;
        Ok(container.process().exited().await)
    }

    /// What the whole pod uses, in containerd's form.
    ///
    /// # Errors
    /// There is no such sandbox; the agent's refusals.
    pub async fn sandbox_stats(&self, id: &str) -> Result<Any, TaskError> {
        let container = self.sandbox(id)?;
        self.stats(&container).await
    }

    /// Ends the VM, forgets every container and ends the shim, whatever is left.
    pub async fn shutdown_sandbox(&self) {
        self.stop_vm().await;
        let containers = std::mem::take(&mut *self.all());
        for container in containers.values() {
            for exec in container.execs() {
                exec.io().abort().await;
            }
            container.process().io().abort().await;
        }
        self.parts.exit.signal();
    }

    fn sandbox(&self, id: &str) -> Result<Arc<Container>, TaskError> {
        let container = self.container(id)?;
        if container.process().kind() == Kind::Sandbox {
            Ok(container)
        } else {
            Err(TaskError::Unknown {
                id: ProcessId::first(id),
            })
        }
    }
}
