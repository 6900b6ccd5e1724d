//! One container and its state.

use std::{
    fs, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use cella_policy::{
    ContainerPolicy,
    check::{Admission, AdmittedProcess},
};
use slog::{info, warn};
use tokio::sync::{oneshot, watch};

use super::{
    ContainerError, ContainerId, Creation, Limits, Setting, StreamNumbers, Supply,
    cgroup::Cgroup,
    pipes,
    prepare::{self, Parts},
    resources,
};
use crate::{
    launch::{self, Launched, Stdio},
    network::NetworkPlan,
    reaper::{Exit, ExitWatch},
    stage::StageName,
};

/// One container. The diagram of its states is at [`super`].
pub(super) struct Instance {
    setting: Arc<Setting>,
    id: ContainerId,
    policy: ContainerPolicy,
    process: AdmittedProcess,
    readonly_rootfs: bool,
    hostname: String,
    limits: Limits,
    numbers: StreamNumbers,
    state: Mutex<State>,
    /// How it ended, once it has.
    ended: watch::Sender<Option<Exit>>,
}

enum State {
    Created {
        stdio: Stdio,
    },
    /// Waiting for image and models while `cancel` is there, launching when it is gone.
    Starting {
        cancel: Option<oneshot::Sender<()>>,
    },
    Running {
        pid: u32,
        exit: ExitWatch,
        cgroup: Option<Cgroup>,
    },
    Stopped {
        cgroup: Option<Cgroup>,
    },
}

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Made; nothing runs. Starting counts as this, as containerd sees it.
    Created,
    /// Its program runs.
    Running,
    /// Its program has ended, or never began.
    Stopped,
}

impl ContainerState {
    /// As `Status` and containerd call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Stopped => "stopped",
        }
    }
}

/// A container at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The host's name for it.
    pub id: ContainerId,
    /// The policy's name for it.
    pub name: String,
    /// What it is doing.
    pub state: ContainerState,
    /// Its process 1; 0 when it does not run.
    pub pid: u32,
}

impl Instance {
    pub(super) fn create(
        setting: Arc<Setting>,
        creation: Creation<'_>,
    ) -> Result<(Self, StreamNumbers), ContainerError> {
        let Creation {
            id,
            admission,
            pipes: wanted,
            limits,
        } = creation;
        let Admission {
            policy,
            process,
            readonly_rootfs,
            hostname,
            ..
        } = admission;
        setting.make_bundle(&id)?;
        let (stdio, numbers) = pipes::make(wanted, policy.stdio, &setting.streams)
            .map_err(|source| ContainerError::Pipe { id: id.clone(), source })?;
        info!(setting.log, "container created"; "container" => %policy.name, "id" => %id);
        let state = Mutex::new(State::Created { stdio });
        let (ended, _) = watch::channel(None);
        let policy = policy.clone();
        Ok((
            Self {
                setting,
                id,
                policy,
                process,
                readonly_rootfs,
                hostname,
                limits,
                numbers,
                state,
                ended,
            },
            numbers,
        ))
    }

    pub(super) fn id(&self) -> &ContainerId {
        &self.id
    }

    pub(super) fn policy(&self) -> &ContainerPolicy {
        &self.policy
    }

    /// From created to running, or to stopped when that fails.
    pub(super) async fn start(
        self: Arc<Self>,
        supply: Arc<dyn Supply>,
        network: Arc<NetworkPlan>,
    ) -> Result<u32, ContainerError> {
        let (cancel, cancelled) = oneshot::channel();
        let stdio = {
            let mut state = self.lock();
            match &mut *state {
                State::Created { stdio } => {
                    let stdio = std::mem::take(stdio);
                    *state = State::Starting { cancel: Some(cancel) };
                    stdio
                }
                other => return Err(self.not_in(other, "started")),
            }
        };
        let (outcome, cgroup) = match self.make_group() {
            Ok(cgroup) => (
                self.launch(stdio, supply, &network, cgroup.as_ref(), cancelled).await,
                cgroup,
            ),
            Err(error) => (Err(error), None),
        };
        match outcome {
            Ok(launched) => Ok(self.run(launched, cgroup)),
            Err(error) => {
                warn!(self.setting.log, "container not started"; "container" => %self.policy.name, "error" => %error);
                self.stop(
                    Exit {
                        status: FAILED,
                        at: SystemTime::now(),
                    },
                    cgroup,
                );
                Err(error)
            }
        }
    }

    pub(super) async fn wait(&self) -> Exit {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(exit)) => *exit,
            // The sender is ours and alive.
            _ => Exit {
                status: FAILED,
                at: SystemTime::now(),
            },
        }
    }

    pub(super) fn signal(&self, number: u32, all: bool) -> Result<(), ContainerError> {
        if !self.policy.signals.allows(number) {
            return Err(ContainerError::SignalDenied {
                name: self.policy.name.clone(),
                signal: number,
            });
        }
        let undelivered = || ContainerError::Signal {
            id: self.id.clone(),
            signal: number,
        };
        let signal = i32::try_from(number).map_err(|_| undelivered())?;
        let ends = matches!(signal, libc::SIGKILL | libc::SIGTERM);
        let mut state = self.lock();
        match &mut *state {
            State::Running {
                cgroup: Some(cgroup), ..
            } if all => cgroup.signal(signal).map_err(ContainerError::Cgroup),
            State::Running { exit, .. } => {
                // Whoever has ended meanwhile is not running; its exit is about to be published.
                if exit.kill(&self.setting.reaper, signal) || exit.ended().is_some() {
                    Ok(())
                } else {
                    Err(undelivered())
                }
            }
            State::Starting { cancel } if ends => {
                // Without it the launch is under way: a matter of milliseconds, then the caller may try again.
                let cancel = cancel.take();
                match cancel.map(|cancel| cancel.send(())) {
                    Some(Ok(())) => Ok(()),
                    _ => Err(self.not_in(&state, "signalled")),
                }
            }
            State::Created { .. } if ends => {
                *state = State::Stopped { cgroup: None };
                self.ended.send_replace(Some(Exit {
                    status: 128 + number,
                    at: SystemTime::now(),
                }));
                self.numbers.withdraw(&self.setting.streams);
                Ok(())
            }
            other => Err(self.not_in(other, "signalled")),
        }
    }

    /// Ends it whatever it is doing; the policy is not asked.
    pub(super) fn kill(&self) {
        match &mut *self.lock() {
            State::Running { exit, cgroup, .. } => {
                let all = cgroup.as_ref().map(|cgroup| cgroup.signal(libc::SIGKILL));
                if !matches!(all, Some(Ok(()))) {
                    exit.kill(&self.setting.reaper, libc::SIGKILL);
                }
            }
            State::Starting { cancel } => drop(cancel.take().map(|cancel| cancel.send(()))),
            State::Created { .. } | State::Stopped { .. } => {}
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(&*self.lock(), State::Running { .. } | State::Starting { .. })
    }

    pub(super) fn processes(&self) -> Result<Vec<u32>, ContainerError> {
        match &*self.lock() {
            State::Running {
                cgroup: Some(cgroup), ..
            } => cgroup.processes().map_err(ContainerError::Cgroup),
            State::Running { pid, .. } => Ok(vec![*pid]),
            _ => Ok(Vec::new()),
        }
    }

    /// Takes away everything that is left of it.
    pub(super) async fn remove(&self) -> Result<Exit, ContainerError> {
        let cgroup = {
            let mut state = self.lock();
            match &*state {
                State::Created { .. } => {
                    *state = State::Stopped { cgroup: None };
                    None
                }
                State::Stopped { cgroup } => cgroup.clone(),
                other => return Err(self.not_in(other, "deleted")),
            }
        };
        if let Some(cgroup) = cgroup {
            cgroup.remove().await.map_err(ContainerError::Cgroup)?;
        }
        self.numbers.withdraw(&self.setting.streams);
        match fs::remove_dir(self.setting.bundle(&self.id)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(ContainerError::Directory {
                    what: "removing",
                    id: self.id.clone(),
                    source,
                });
            }
            _ => {}
        }
        info!(self.setting.log, "container deleted"; "container" => %self.policy.name, "id" => %self.id);
        Ok(self.ended.borrow().unwrap_or(Exit {
            status: NEVER_RAN,
            at: SystemTime::now(),
        }))
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let (state, pid) = match &*self.lock() {
            State::Created { .. } | State::Starting { .. } => (ContainerState::Created, 0),
            State::Running { pid, .. } => (ContainerState::Running, *pid),
            State::Stopped { .. } => (ContainerState::Stopped, 0),
        };
        Snapshot {
            id: self.id.clone(),
            name: self.policy.name.clone(),
            state,
            pid,
        }
    }

    async fn launch(
        &self,
        stdio: Stdio,
        supply: Arc<dyn Supply>,
        network: &NetworkPlan,
        cgroup: Option<&Cgroup>,
        cancelled: oneshot::Receiver<()>,
    ) -> Result<Launched, ContainerError> {
        let name = self.policy.name.as_str();
        let supplies = async { tokio::try_join!(supply.image(name), supply.models(name)) };
        let (rootfs, models) = tokio::select! {
            supplies = supplies => supplies.map_err(ContainerError::Workload)?,
            Ok(()) = cancelled => return Err(ContainerError::Killed { id: self.id.clone() }),
        };
        let stage = self.setting.stages.begin(StageName::Start, name);
        let parts = Parts {
            id: &self.id,
            policy: &self.policy,
            process: &self.process,
            readonly_rootfs: self.readonly_rootfs,
            hostname: &self.hostname,
            rootfs,
            models,
            network,
            cgroup,
        };
        let launched = match prepare::plan(parts, &self.setting) {
            Ok(plan) => launch::spawn(&self.setting.launcher, &plan, stdio, &self.setting.reaper)
                .await
                .map_err(ContainerError::Launch),
            Err(error) => Err(ContainerError::Plan(error)),
        };
        stage.finish(launched)
    }

    fn make_group(&self) -> Result<Option<Cgroup>, ContainerError> {
        let group = self
            .setting
            .cgroups
            .as_ref()
            .map(|root| root.group(&self.id, &self.limits));
        group.transpose().map_err(ContainerError::Cgroup)
    }

    /// Its group while it runs.
    pub(super) fn group(&self, wanted: &'static str) -> Result<Cgroup, ContainerError> {
        match &*self.lock() {
            State::Running { cgroup, .. } => cgroup
                .clone()
                .ok_or_else(|| ContainerError::NoGroup { id: self.id.clone() }),
            other => Err(self.not_in(other, wanted)),
        }
    }

    /// The program runs: keeps the state up to date until it has ended.
    fn run(self: Arc<Self>, launched: Launched, cgroup: Option<Cgroup>) -> u32 {
        let Launched { pid, exit } = launched;
        if let Some(cgroup) = cgroup.clone() {
            resources::tell_of_memory(&self.setting, &self.id, cgroup);
        }
        info!(self.setting.log, "container started"; "container" => %self.policy.name, "pid" => pid);
        *self.lock() = State::Running {
            pid,
            exit: exit.clone(),
            cgroup,
        };
        tokio::spawn(async move {
            let mut exit = exit;
            let exit = exit.wait().await;
            let cgroup = match &mut *self.lock() {
                State::Running { cgroup, .. } => cgroup.take(),
                _ => None,
            };
            info!(self.setting.log, "container ended"; "container" => %self.policy.name, "status" => exit.status);
            self.stop(exit, cgroup);
        });
        pid
    }

    fn stop(&self, exit: Exit, cgroup: Option<Cgroup>) {
        *self.lock() = State::Stopped { cgroup };
        self.ended.send_replace(Some(exit));
    }

    fn not_in(&self, state: &State, wanted: &'static str) -> ContainerError {
        let state = match state {
            State::Created { .. } => "created",
            State::Starting { .. } => "starting",
            State::Running { .. } => "running",
            State::Stopped { .. } => "stopped",
        };
        ContainerError::State {
            id: self.id.clone(),
            wanted,
            state,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Status of a container whose program could not be started.
const FAILED: u32 = 255;

/// Status of a container that was deleted before it was started, as if it had been killed.
const NEVER_RAN: u32 = 137;
