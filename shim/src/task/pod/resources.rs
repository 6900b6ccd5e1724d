//! A container's processes as a whole: frozen, limited, measured.

use containerd_shim::protos::events::task::{TaskPaused, TaskResumed};
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use slog::info;

use super::super::container::Container;
use super::super::error::TaskError;
use super::super::process::{Kind, Phase};
use super::super::stats;
use super::Pod;
use super::process::explain;
use crate::bundle::oci;
use crate::container_spec::resources;

/// Longest resources message, in bytes.
const MAX_RESOURCES: usize = 256 * 1024;

impl Pod {
    /// Freezes a container's processes.
    ///
    /// # Errors
    /// It does not run, or is paused already; the agent's refusals.
    pub async fn pause(&self, container: &Container) -> Result<(), TaskError> {
        self.freeze(container, true).await?;
        self.parts.events.publish(TaskPaused {
            container_id: container.id().to_owned(),
            ..Default::default()
        });
        Ok(())
    }

    /// Thaws a container's processes.
    ///
    /// # Errors
    /// It is not paused; the agent's refusals.
    pub async fn resume(&self, container: &Container) -> Result<(), TaskError> {
        self.freeze(container, false).await?;
        self.parts.events.publish(TaskResumed {
            container_id: container.id().to_owned(),
            ..Default::default()
        });
        Ok(())
    }

    /// Replaces a container's limits by those of an OCI `linux.resources` in JSON.
    ///
    /// # Errors
    /// It has ended, the resources do not decode; the agent's refusals.
    pub async fn update(&self, container: &Container, given: Option<&Any>) -> Result<(), TaskError> {
        let parsed = resources_of(given)?;
        in_the_guest(container, "resizing a running VM")?;
        if matches!(container.process().phase(), Phase::Exiting | Phase::Stopped(_)) {
            return Err(container.process().wrong_phase("running"));
        }
        let vm = self.vm()?;
        match vm.agent().update_container(container.id(), resources(&parsed)).await {
            Ok(()) => {
                info!(self.parts.log, "limits replaced"; "container" => container.id());
                Ok(())
            }
            Err(error) => Err(explain(&vm, error).await),
        }
    }

    /// What a container uses, in containerd's form; of a sandbox: the whole pod.
    ///
    /// # Errors
    /// It has ended; the agent's refusals.
    pub async fn stats(&self, container: &Container) -> Result<Any, TaskError> {
        if matches!(container.process().phase(), Phase::Exiting | Phase::Stopped(_)) {
            return Err(container.process().wrong_phase("running"));
        }
        let id = match container.process().kind() {
            Kind::Sandbox => "",
            Kind::Workload | Kind::Alone | Kind::Exec => container.id(),
        };
        let vm = self.vm()?;
        match vm.agent().container_stats(id).await {
            Ok(told) => stats::metrics(&told),
            Err(error) => Err(explain(&vm, error).await),
        }
    }

    async fn freeze(&self, container: &Container, frozen: bool) -> Result<(), TaskError> {
        in_the_guest(container, "pausing a sandbox")?;
        if container.process().phase() != Phase::Running {
            return Err(container.process().wrong_phase("running"));
        }
        if container.is_paused() == frozen {
            return Err(TaskError::Paused {
                id: container.id().to_owned(),
                is: if frozen { "paused" } else { "not paused" },
            });
        }
        let vm = self.vm()?;
        match vm.agent().freeze_container(container.id(), frozen).await {
            Ok(()) => {
                container.set_paused(frozen);
                Ok(())
            }
            Err(error) => Err(explain(&vm, error).await),
        }
    }
}

fn in_the_guest(container: &Container, what: &'static str) -> Result<(), TaskError> {
    match container.process().kind() {
        Kind::Sandbox => Err(TaskError::Unsupported { what }),
        Kind::Workload | Kind::Alone | Kind::Exec => Ok(()),
    }
}

fn resources_of(given: Option<&Any>) -> Result<oci::Resources, TaskError> {
    const WHAT: &str = "the resources";
    let url = given.map(|any| any.type_url.as_str()).unwrap_or_default();
    let any = given
        .filter(|_| url.rsplit('/').next() == Some("LinuxResources"))
        .ok_or_else(|| TaskError::Type {
            what: WHAT,
            type_url: crate::untrusted::printable(url, 128),
        })?;
    if any.value.len() > MAX_RESOURCES {
        return Err(TaskError::TooLong {
            what: WHAT,
            max: MAX_RESOURCES,
        });
    }
    serde_json::from_slice(&any.value).map_err(|source| TaskError::Malformed { what: WHAT, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_json_in_an_any() {
        let any = |type_url: &str, value: &str| Any {
            type_url: type_url.into(),
            value: value.into(),
            ..Default::default()
        };
        let url = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
        let parsed = resources_of(Some(&any(url, r#"{"memory": {"limit": 7}, "cpu": null}"#))).unwrap();
        assert_eq!(resources(&parsed).memory_limit_bytes, 7);
        assert!(matches!(resources_of(None), Err(TaskError::Type { .. })));
        assert!(matches!(
            resources_of(Some(&any("x/Windows", "{}"))),
            Err(TaskError::Type { .. })
        ));
        assert!(matches!(
            resources_of(Some(&any(url, "[[["))),
            Err(TaskError::Malformed { .. })
        ));
    }
}
