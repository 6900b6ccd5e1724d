//! From a container that may start to a process that runs: everything it needs is waited for, then planned, then launched.

use cella_policy::check::AdmittedProcess;

use super::Instance;
use crate::{
    container::{
        ContainerError, Supply,
        prepare::{self, Parts},
        process::{Beginning, Process},
    },
    launch::{ExecPlan, LaunchError, Launched, MountPlan, Order},
    network::NetworkPlan,
    stage::StageName,
};

impl Instance {
    pub(super) async fn launch(
        &self,
        beginning: Beginning,
        supply: &dyn Supply,
        network: &NetworkPlan,
    ) -> Result<Launched, ContainerError> {
        let name = self.policy.name.as_str();
        let supplies = async { tokio::try_join!(supply.image(name), supply.models(name), supply.output(name)) };
        let (rootfs, models, output) = tokio::select! {
            supplies = supplies => supplies.map_err(ContainerError::Workload)?,
            Ok(()) = beginning.cancelled => return Err(self.killed(&self.first)),
        };
        let _ = self.image_user.set(rootfs.user.clone());
        let ground = self.setting.pod.common_ground().map_err(ContainerError::Pod)?;
        let process_namespace = match self.shared_pid {
            true => Some(
                self.setting
                    .pod
                    .process_namespace()
                    .await
                    .map_err(ContainerError::Pod)?,
            ),
            false => None,
        };
        let output = output.map(|output| MountPlan::Volume {
            source: output.source,
            destination: output.destination,
            read_only: false,
        });
        let volumes: Vec<MountPlan> = self.volumes.iter().cloned().chain(output).collect();
        let stage = self.setting.stages.begin(StageName::Start, name);
        let parts = Parts {
            id: &self.id,
            policy: &self.policy,
            process: &self.process,
            rights: &self.rights,
            readonly_rootfs: self.readonly_rootfs,
            hostname: &self.hostname,
            terminal: beginning.terminal,
            rootfs,
            models,
            network,
            cgroup: self.cgroup.as_ref(),
            ground,
            process_namespace,
            volumes: &volumes,
            masks: &self.masks,
            devices: &self.devices,
        };
        let launched = match prepare::plan(parts, &self.setting) {
            Ok(plan) => {
                let order = Order::Container(Box::new(plan));
                self.setting
                    .launcher
                    .spawn(&order, beginning.stdio, None)
                    .await
                    .map_err(ContainerError::Launch)
            }
            Err(error) => Err(ContainerError::Plan(error)),
        };
        stage.finish(launched)
    }

    pub(super) async fn launch_exec(
        &self,
        admitted: &AdmittedProcess,
        process: &Process,
        mut beginning: Beginning,
    ) -> Result<Launched, ContainerError> {
        let host = self.first.handle("given another process")?;
        let image_user = self.image_user.get().map(String::as_str).unwrap_or_default();
        let plan =
            prepare::process(admitted, image_user, &self.rights, beginning.terminal).map_err(ContainerError::Plan)?;
        let order = Order::Exec(Box::new(ExecPlan {
            cgroup: self.cgroup.as_ref().map(|cgroup| cgroup.path().to_owned()),
            process: plan,
        }));
        let launch = self.setting.launcher.spawn(&order, beginning.stdio, Some(&host));
        let launched = launch.await.map_err(|error| match error {
            // Its container ended under it: that is what happened, not a failure of ours.
            LaunchError::Step(_) | LaunchError::Died if !self.is_alive() => self.first.refuse("given another process"),
            other => ContainerError::Launch(other),
        })?;
        if beginning.cancelled.try_recv().is_ok() {
            launched.exit.kill(&self.setting.reaper, libc::SIGKILL);
            return Err(self.killed(process));
        }
        Ok(launched)
    }
}
