//! One container: its first process, the further ones in it, and what they share.

mod launch;
mod output;

use std::{
    collections::BTreeMap,
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use cella_policy::{
    ContainerPolicy, Rule,
    check::{Admission, AdmittedProcess, check_signal},
};
use slog::{info, warn};

use super::{
    ContainerError, ContainerId, Creation, Ended, ExecCreation, ExecId, ProcessId, Setting, StreamNumbers, Supply,
    cgroup::Cgroup,
    pipes,
    prepare::Rights,
    process::{Process, ProcessState},
    resources,
    standing::Standing,
    volumes,
};
use crate::{
    launch::{MaskPlan, MountPlan},
    network::NetworkPlan,
    volume::LastWords,
};
use output::GiveUp;

/// One container.
pub(super) struct Instance {
    setting: Arc<Setting>,
    id: ContainerId,
    policy: ContainerPolicy,
    process: AdmittedProcess,
    rights: Rights,
    readonly_rootfs: bool,
    hostname: String,
    shared_pid: bool,
    volumes: Vec<MountPlan>,
    masks: MaskPlan,
    devices: Vec<PathBuf>,
    /// Where its programs leave their last words, if they may.
    last_words: Option<LastWords>,
    /// Whom the image runs as, once there is an image.
    image_user: OnceLock<String>,
    cgroup: Option<Cgroup>,
    standing: Standing,
    /// For the push of its output.
    give_up: GiveUp,
    /// Why its output was not kept.
    reason: Mutex<Option<String>>,
    first: Arc<Process>,
    execs: Mutex<BTreeMap<ExecId, Arc<Exec>>>,
}

/// A further process.
struct Exec {
    admitted: AdmittedProcess,
    process: Arc<Process>,
}

/// A container at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The host's name for it.
    pub id: ContainerId,
    /// The policy's name for it.
    pub name: String,
    /// What it is doing.
    pub state: ProcessState,
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
            host_seccomp,
            pipes: wanted,
            limits,
        } = creation;
        let Admission {
            policy,
            process,
            readonly_rootfs,
            hostname,
            volumes,
            privileged,
            shared_pid,
            masked,
            masked_paths,
            readonly_paths,
            devices,
            agent_seccomp,
            ..
        } = admission;
        let rights = Rights {
            privileged,
            ambient: matches!(policy.capabilities, Rule::Only(_)) && !privileged,
            agent_seccomp,
            host_seccomp,
        };
        let (volumes, last_words) = volumes::sources(&setting.pod, &id, &volumes)?;
        setting.make_bundle(&id)?;
        let group = setting.cgroups.as_ref().map(|root| root.group(&id, &limits));
        let cgroup = group.transpose().map_err(ContainerError::Cgroup)?;
        let first = id.first_process();
        let outlet = setting.outlet(policy, &first);
        let pipes = pipes::make(wanted, process.terminal, &outlet, &setting.streams);
        let pipes = pipes.map_err(|source| ContainerError::Pipe {
            process: first.clone(),
            source,
        })?;
        let numbers = pipes.numbers;
        info!(setting.log, "container created"; "container" => %policy.name, "id" => %id);
        let instance = Self {
            first: Arc::new(Process::new(Arc::clone(&setting), first, pipes)),
            standing: Standing::new(&policy.name, &setting.ingress),
            give_up: GiveUp::default(),
            reason: Mutex::default(),
            setting,
            id,
            policy: policy.clone(),
            process,
            rights,
            readonly_rootfs,
            hostname,
            shared_pid,
            volumes,
            masks: MaskPlan {
                nothing: !masked,
                writable: privileged,
                masked: masked_paths.into_iter().map(PathBuf::from).collect(),
                readonly: readonly_paths.into_iter().map(PathBuf::from).collect(),
            },
            devices: devices.into_iter().map(PathBuf::from).collect(),
            last_words,
            image_user: OnceLock::new(),
            cgroup,
            execs: Mutex::default(),
        };
        Ok((instance, numbers))
    }

    pub(super) fn id(&self) -> &ContainerId {
        &self.id
    }

    pub(super) fn policy(&self) -> &ContainerPolicy {
        &self.policy
    }

    /// A process by its id; `None` = the first.
    pub(super) fn process(&self, exec: Option<&ExecId>) -> Result<Arc<Process>, ContainerError> {
        match exec {
            None => Ok(Arc::clone(&self.first)),
            Some(exec) => self.exec(exec).map(|exec| Arc::clone(&exec.process)),
        }
    }

    /// Makes a further process's pipes; [`Self::start_exec`] runs it.
    pub(super) fn add_exec(&self, creation: ExecCreation) -> Result<StreamNumbers, ContainerError> {
        let ExecCreation {
            exec,
            process: admitted,
            pipes: wanted,
        } = creation;
        let id = ProcessId {
            container: self.id.clone(),
            exec: Some(exec.clone()),
        };
        let mut execs = self.execs();
        // Under this lock, under which the end of the container takes them away.
        if self.first.state() != ProcessState::Running {
            return Err(self.first.refuse("given another process"));
        }
        if execs.contains_key(&exec) {
            return Err(ContainerError::Exists { process: id });
        }
        if execs.len() >= MAX_EXECS {
            return Err(ContainerError::TooMany {
                container: self.id.clone(),
                limit: MAX_EXECS,
            });
        }
        let outlet = self.setting.outlet(&self.policy, &id);
        let pipes = pipes::make(wanted, admitted.terminal, &outlet, &self.setting.streams);
        let pipes = pipes.map_err(|source| ContainerError::Pipe {
            process: id.clone(),
            source,
        })?;
        let numbers = pipes.numbers;
        let process = Arc::new(Process::new(Arc::clone(&self.setting), id, pipes));
        execs.insert(exec, Arc::new(Exec { admitted, process }));
        Ok(numbers)
    }

    /// Starts the first process: from created to running, or to stopped when that fails.
    pub(super) async fn start(
        self: Arc<Self>,
        supply: Arc<dyn Supply>,
        network: Arc<NetworkPlan>,
    ) -> Result<u32, ContainerError> {
        self.standing.check_start().map_err(ContainerError::Denied)?;
        let beginning = self.first.begin()?;
        let killed = self.give_up.arm();
        match self.launch(beginning, &*supply, &network).await {
            Ok(launched) => {
                let pid = launched.pid;
                info!(self.setting.log, "container started"; "container" => %self.policy.name, "pid" => pid);
                if let Some(cgroup) = self.cgroup.clone() {
                    resources::tell_of_memory(&self.setting, &self.id, cgroup);
                }
                let instance = Arc::clone(&self);
                // Before anybody can hear of its end.
                self.standing.started();
                Ok(self.first.run(launched, move |exit| async move {
                    let ended = instance.ended(exit, &*supply, killed).await;
                    info!(instance.setting.log, "container ended";
                        "container" => %instance.policy.name, "status" => ended.exit.status);
                    instance.standing.ended(ended.exit.status);
                    ended
                }))
            }
            Err(error) => {
                warn!(self.setting.log, "container not started"; "container" => %self.policy.name, "error" => %error);
                self.first.fail();
                Err(error)
            }
        }
    }

    /// Starts a further process.
    pub(super) async fn start_exec(self: Arc<Self>, id: ExecId) -> Result<u32, ContainerError> {
        let exec = self.exec(&id)?;
        let process = &exec.process;
        self.standing.check_exec(&self.policy).map_err(ContainerError::Denied)?;
        let beginning = process.begin()?;
        let kills = self.oom_kills();
        match self.launch_exec(&exec.admitted, process, beginning).await {
            Ok(launched) => {
                let instance = Arc::clone(&self);
                Ok(process.run(launched, move |exit| async move {
                    Ended {
                        exit,
                        out_of_memory: instance.oom_kills() > kills,
                    }
                }))
            }
            Err(error) => {
                warn!(self.setting.log, "process not started"; "process" => %process.id(), "error" => %error);
                process.fail();
                Err(error)
            }
        }
    }

    /// Sends a signal to one process, or to all of the container's.
    pub(super) fn signal(&self, exec: Option<&ExecId>, number: u32, all: bool) -> Result<(), ContainerError> {
        check_signal(&self.policy, number).map_err(ContainerError::Denied)?;
        let process = self.process(exec)?;
        if exec.is_none() && number == KILL {
            self.give_up.now();
        }
        match (&self.cgroup, i32::try_from(number)) {
            (Some(cgroup), Ok(number)) if all && exec.is_none() && process.pid().is_some() => {
                cgroup.signal(number).map_err(ContainerError::Cgroup)
            }
            _ => process.signal(number),
        }
    }

    /// Ends it whatever it is doing; the policy is not asked.
    pub(super) fn kill(&self) {
        self.give_up.now();
        self.first.kill();
        if self.first.pid().is_some() {
            self.end_rest();
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.first.is_alive()
    }

    /// Whether nothing of it runs any more: it counts no longer among those alive.
    pub(super) fn has_ended(&self) -> bool {
        self.first.state() == ProcessState::Stopped
    }

    pub(super) async fn wait(&self) -> Ended {
        self.first.wait().await
    }

    pub(super) fn processes(&self) -> Result<Vec<u32>, ContainerError> {
        match (&self.cgroup, self.first.pid()) {
            (_, None) => Ok(Vec::new()),
            (Some(cgroup), Some(_)) => cgroup.processes().map_err(ContainerError::Cgroup),
            (None, Some(pid)) => {
                let execs = self.execs();
                let others = execs.values().filter_map(|exec| exec.process.pid());
                Ok([pid].into_iter().chain(others).collect())
            }
        }
    }

    /// Forgets a further process that does not run.
    pub(super) fn remove_exec(&self, id: &ExecId) -> Result<Ended, ContainerError> {
        let mut execs = self.execs();
        let exec = execs.get(id).ok_or_else(|| self.unknown(id))?;
        let ended = exec.process.retire()?;
        execs.remove(id);
        Ok(ended)
    }

    /// Takes away everything that is left of it. Of several callers one does, unless that fails. Not to be cancelled.
    pub(super) async fn remove(&self) -> Result<Ended, ContainerError> {
        let ended = self.first.retire()?;
        let removed = self.remove_rest().await;
        if removed.is_err() {
            self.first.reinstate();
        }
        removed.map(|()| ended)
    }

    async fn remove_rest(&self) -> Result<(), ContainerError> {
        // Without the first process none of these runs: the wait is for the agent to hear of it.
        let execs = std::mem::take(&mut *self.execs());
        for exec in execs.into_values() {
            exec.process.kill();
            if exec.process.is_alive() {
                exec.process.wait().await;
            }
            exec.process.retire()?;
        }
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove().await.map_err(ContainerError::Cgroup)?;
        }
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
        Ok(())
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            id: self.id.clone(),
            name: self.policy.name.clone(),
            state: self.first.state(),
            pid: self.first.pid().unwrap_or(0),
        }
    }

    fn killed(&self, process: &Process) -> ContainerError {
        ContainerError::Killed {
            process: process.id().clone(),
        }
    }

    /// Why its output was not kept, or what its programs have left to be told, where the policy lets anything out.
    pub(super) fn last_words(&self) -> Vec<u8> {
        if let Some(reason) = self.reason.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            return reason.clone().into_bytes();
        }
        match &self.last_words {
            Some(words) if self.policy.stdio.tells_last_words() => words.read(),
            _ => Vec::new(),
        }
    }

    /// Its processes are stopped, or go on.
    pub(super) fn note_paused(&self, paused: bool) {
        self.standing.paused(paused);
    }

    /// Its group while it runs.
    pub(super) fn running_group(&self, wanted: &'static str) -> Result<Cgroup, ContainerError> {
        if self.first.state() != ProcessState::Running {
            return Err(self.first.refuse(wanted));
        }
        self.group(wanted)
    }

    /// Its group from its creation to its end.
    pub(super) fn group(&self, wanted: &'static str) -> Result<Cgroup, ContainerError> {
        if self.has_ended() {
            return Err(self.first.refuse(wanted));
        }
        let group = self.cgroup.clone();
        group.ok_or_else(|| ContainerError::NoGroup { id: self.id.clone() })
    }

    /// Ends whatever runs besides the first process; its process namespace has done so already, unless it is shared.
    fn end_rest(&self) {
        if let Some(Err(error)) = self.cgroup.as_ref().map(|cgroup| cgroup.signal(libc::SIGKILL)) {
            warn!(self.setting.log, "killing a container failed"; "container" => %self.policy.name, "error" => %error);
        }
    }

    fn oom_kills(&self) -> u64 {
        self.cgroup.as_ref().map_or(0, Cgroup::oom_kills)
    }

    fn exec(&self, id: &ExecId) -> Result<Arc<Exec>, ContainerError> {
        self.execs().get(id).cloned().ok_or_else(|| self.unknown(id))
    }

    fn unknown(&self, id: &ExecId) -> ContainerError {
        ContainerError::Unknown {
            process: ProcessId {
                container: self.id.clone(),
                exec: Some(id.clone()),
            },
        }
    }

    fn execs(&self) -> MutexGuard<'_, BTreeMap<ExecId, Arc<Exec>>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// SIGKILL.
const KILL: u32 = 9;

/// Processes of ExecProcess in one container that are not deleted yet.
const MAX_EXECS: usize = 512;
