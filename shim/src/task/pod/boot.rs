//! Bringing up the VM that a pod's first container asks for.

use std::sync::Arc;

use slog::{Logger, o, warn};

use super::super::error::TaskError;
use super::super::network::{self, Resolver};
use super::process::explain;
use super::{Pod, Slot, off_thread};
use crate::bundle::Bundle;
use crate::config::{Accel, Config, Tee};
use crate::initdata::{self, Initdata};
use crate::metrics;
use crate::options::ConfigSource;
use crate::trace;
use crate::vm::{LaunchRequest, RunDirKey, Vm, sizing};

/// A VM that came up for a container that is not there yet. Dropped without [`BootGuard::commit`], the slot is
/// free again.
pub(super) struct BootGuard<'a>(&'a Pod);

impl Drop for BootGuard<'_> {
    fn drop(&mut self) {
        let mut slot = self.0.slot();
        if matches!(*slot, Slot::Booting) {
            *slot = Slot::Empty;
        }
    }
}

impl BootGuard<'_> {
    pub(super) fn commit(self, vm: Arc<Vm>) {
        *self.0.slot() = Slot::Up(vm);
    }
}

impl Pod {
    /// Brings the VM up and its network, for the container or sandbox `id`.
    pub(super) async fn boot(
        &self,
        id: &str,
        source: ConfigSource,
        bundle: &Bundle,
        resolver: &Resolver,
    ) -> Result<(BootGuard<'_>, Arc<Vm>), TaskError> {
        {
            let mut slot = self.slot();
            match *slot {
                Slot::Empty => *slot = Slot::Booting,
                Slot::Booting => {
                    return Err(TaskError::NoVm {
                        state: "is still booting",
                    });
                }
                Slot::Up(_) => return Err(TaskError::NoVm { state: "is up already" }),
            }
        }
        let guard = BootGuard(self);
        metrics::global().launch_begins();
        let log = &self.parts.log;
        let step = trace::global().step("configuration", "");
        let config = sizing::sized(off_thread(move || Config::load(&source)).await??, bundle)?;
        self.parts.verbosity.set_from_config(config.log_level);
        let annotation = bundle.annotation(initdata::ANNOTATION).map(str::to_owned);
        let default = config.default_initdata.clone();
        let initdata = off_thread(move || Initdata::of_pod(annotation.as_deref(), default.as_deref())).await??;
        let network = network::choose(bundle)?;
        drop(step);
        warn_about(&config, log);
        let key = RunDirKey {
            containerd: self.parts.containerd.clone(),
            namespace: self.parts.namespace.clone(),
            id: id.to_owned(),
        };
        let launch = LaunchRequest {
            config: &config,
            key,
            pod: bundle.pod_name(),
            bundle: &bundle.dir,
            initdata: &initdata,
            network,
            spawner: &self.parts.spawner,
        };
        let vm = Arc::new(Vm::launch(launch, log).await?);
        let mut description = network::describe(vm.network(), resolver, &bundle.spec.hostname);
        description.sysctl = bundle.spec.linux.sysctl.clone().into_iter().collect();
        description.certificates = config.tee.certificates().to_vec();
        let configured = {
            let _step = trace::global().step("configure-network", "");
            vm.agent().configure_network(&description).await
        };
        if let Err(error) = configured {
            let error = explain(&vm, error).await;
            vm.stop().await;
            return Err(error);
        }
        metrics::global().launch_ends();
        Ok((guard, vm))
    }
}

fn warn_about(config: &Config, log: &Logger) {
    let log = log.new(o!("accel" => config.accel.to_string()));
    if matches!(config.tee, Tee::Sim(_)) {
        warn!(log, "simulated TEE: this guest is NOT protected from this host"; "tee" => config.tee.name());
    }
    if config.accel == Accel::Tcg {
        warn!(log, "no KVM: the guest's instructions are translated, which is slow");
    }
}
