//! A container's processes, as containerd is told of them.
//!
//! Every pid is QEMU's: a number of the guest's would name another process on the host. What tells the processes apart is the
//! exec id, in the form in which runc's shim gives it; what they started themselves has none.

use containerd_shim::protos::api::ProcessInfo;
use containerd_shim::protos::protobuf::Message;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::shim::oci::ProcessDetails;
use slog::debug;

use super::super::container::Container;
use super::super::process::{Kind, Phase, Process};
use super::Pod;

impl Pod {
    /// The container's own process, each exec that runs, and one more for each further process that the guest counts. From the
    /// shim's memory alone where the guest does not answer at once: containerd takes a shim without processes for a leaked one.
    pub async fn pids(&self, container: &Container) -> Vec<ProcessInfo> {
        let count = self.count_in_guest(container).await;
        let mut processes = known(container);
        let further = ProcessInfo {
            pid: container.process().pid(),
            ..Default::default()
        };
        processes.resize(processes.len().max(count), further);
        processes
    }

    async fn count_in_guest(&self, container: &Container) -> usize {
        let process = container.process();
        if process.kind() == Kind::Sandbox || process.phase() != Phase::Running {
            return 0;
        }
        let Ok(vm) = self.vm() else { return 0 };
        let counted = vm.agent().count_processes(container.id()).await;
        counted.unwrap_or_else(|error| {
            debug!(self.parts.log, "the agent counts no processes"; "container" => container.id(), "error" => %error);
            0
        })
    }
}

fn known(container: &Container) -> Vec<ProcessInfo> {
    let execs = container.execs();
    let running = execs
        .iter()
        .filter(|exec| matches!(exec.phase(), Phase::Running | Phase::Exiting));
    std::iter::once(container.process())
        .chain(running)
        .map(|process| ProcessInfo {
            pid: process.pid(),
            info: details(process).into(),
            ..Default::default()
        })
        .collect()
}

fn details(process: &Process) -> Option<Any> {
    let exec_id = &process.id().exec;
    let details = ProcessDetails {
        exec_id: exec_id.clone(),
        ..Default::default()
    };
    let value = details.write_to_bytes().ok().filter(|_| !exec_id.is_empty())?;
    Some(Any {
        type_url: "containerd.runc.v1.ProcessDetails".to_owned(),
        value,
        ..Default::default()
    })
}
