//! Who keeps the key of a pod's output, and does with each run of its job what is to be done.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cella_oci::Registry;
use cella_policy::{OutputPolicy, UserPolicy};
use cella_protos::agent;
use cella_seal::Kek;
use slog::{Logger, error, info, warn};
use tokio::sync::oneshot;

use super::{
    OutputEnd, OutputError, OutputMount,
    folder::Folder,
    push::{Opened, Pushed},
    record::{self, Run},
};
use crate::{
    boot::BootInfo,
    stage::{StageLog, StageName},
    workload::{
        WorkloadError,
        keys::Keyring,
        outcome::{Outcome, Promise, promise},
        record::Recorded,
    },
};

/// The output of one pod. The diagram of its states is at [`super`].
pub(crate) struct Desk {
    root: PathBuf,
    init: Arc<BootInfo>,
    policy: OutputPolicy,
    user: (u32, u32),
    /// Key and registry, until the push or the guest's end.
    promise: Promise<Arc<Opened>>,
    outcome: Outcome<Arc<Opened>>,
    boot_record: Recorded,
    state: Mutex<State>,
    runs: AtomicU64,
    stages: StageLog,
    log: Logger,
}

/// What the desk holds of the latest run.
#[derive(Default)]
struct State {
    folder: Option<Folder>,
    started: Option<u64>,
    progress: Progress,
    record: Option<String>,
}

/// As `Status` tells it.
#[derive(Default)]
enum Progress {
    #[default]
    Waiting,
    Writing,
    Pushing,
    Pushed(Pushed),
    Discarded(u32),
    NotPushed(String),
}

impl Desk {
    /// For the policy's output, if it has one. Its folders will be mounted below `root`.
    pub(crate) fn of(
        init: &Arc<BootInfo>,
        root: &Path,
        boot_record: Recorded,
        stages: StageLog,
        log: &Logger,
    ) -> Option<Arc<Self>> {
        let policy = init.policy.output()?.clone();
        // The policy does not validate with another kind of user.
        let UserPolicy::Ids(user) = &init.policy.container(&policy.container)?.user else {
            return None;
        };
        let (promise, outcome) = promise();
        Some(Arc::new(Self {
            root: root.to_owned(),
            user: (user.uid, user.gid),
            init: Arc::clone(init),
            policy,
            promise,
            outcome,
            boot_record,
            state: Mutex::default(),
            runs: AtomicU64::new(0),
            stages,
            log: log.clone(),
        }))
    }

    /// Whose output it is.
    pub(crate) fn container(&self) -> &str {
        &self.policy.container
    }

    /// The registry that it goes to.
    pub(crate) fn registry(&self) -> &str {
        self.policy.registry.as_str()
    }

    /// Takes a copy of its key out of `keys`.
    pub(crate) fn open(&self, registry: Registry, keys: &Keyring) {
        let key = &self.policy.key;
        let kek = keys.find(std::slice::from_ref(key), key.as_str());
        // Every key that the policy names is in the ring; 32 bytes are 32 bytes.
        if let Some(kek) = kek.and_then(|kek| Kek::from_slice(kek.expose()).ok()) {
            self.promise.fulfil(Ok(Arc::new(Opened { registry, kek })));
        }
    }

    /// There is no key, or none any more: it is zeroed, and so is nothing else that anybody could still use.
    pub(crate) fn close(&self, error: WorkloadError) {
        self.promise.fulfil(Err(error));
    }

    /// An empty folder for a run that begins now. Waits for the key: no job works for an output that nobody could seal. The folder of an
    /// earlier run goes.
    pub(crate) async fn folder(&self) -> Result<OutputMount, WorkloadError> {
        let opened = self.outcome.wait().await?;
        let path = self.root.join(self.runs.fetch_add(1, Ordering::Relaxed).to_string());
        opened.check(&self.policy).await?;
        let folder = Folder::make(&path, self.policy.max_bytes, self.user)
            .map_err(|error| WorkloadError::internal("making an output folder", error))?;
        let mut state = self.lock();
        *state = State {
            folder: Some(folder),
            started: self.init.time.now().map(|now| now.as_secs()),
            progress: Progress::Writing,
            record: None,
        };
        Ok(OutputMount {
            source: path,
            destination: PathBuf::from(self.policy.destination.as_str()),
        })
    }

    /// The run has ended with `status`, and nothing of it is alive. Seals and pushes what it has left if that is 0, unless `killed` is
    /// told. The folder is gone when this returns. `refused`: the status that a run has whose output could not be kept.
    pub(crate) async fn finish(&self, status: u32, refused: u32, killed: oneshot::Receiver<()>) -> OutputEnd {
        let (folder, started) = {
            let mut state = self.lock();
            let folder = state.folder.take();
            if folder.is_some() && status == 0 {
                state.progress = Progress::Pushing;
            }
            (folder, state.started)
        };
        let Some(folder) = folder else {
            return OutputEnd::None;
        };
        if status != 0 {
            info!(self.log, "the job's output is discarded"; "output" => %self.policy, "status" => status);
            self.end_run(Progress::Discarded(status), self.make_record(status, None, started));
            return OutputEnd::Discarded;
        }
        let stage = self.stages.begin(StageName::Output, self.policy.to_string());
        let pushed = tokio::select! {
            pushed = self.push(&folder) => pushed,
            Ok(()) = killed => Err(OutputError::Killed),
        };
        drop(folder);
        match stage.finish(pushed.map_err(Told)) {
            Ok((opened, pushed)) => {
                info!(self.log, "the job's output is pushed"; "output" => %self.policy, "artifact" => &pushed.reference);
                let record = self.make_record(0, Some(&pushed), started);
                if let Some(text) = &record {
                    self.push_record(&opened, &pushed, text).await;
                }
                let reference = pushed.reference.clone();
                self.close(WorkloadError::OutputPushed {
                    output: self.policy.to_string(),
                    reference: reference.clone(),
                });
                self.end_run(Progress::Pushed(pushed), record);
                OutputEnd::Pushed(reference)
            }
            Err(told) => {
                error!(self.log, "the job's output is not pushed"; "output" => %self.policy, "error" => %told);
                self.end_run(
                    Progress::NotPushed(told.to_string()),
                    self.make_record(refused, None, started),
                );
                OutputEnd::NotPushed(told.0)
            }
        }
    }

    async fn push(&self, folder: &Folder) -> Result<(Arc<Opened>, Pushed), OutputError> {
        folder.freeze().await?;
        let opened = self.outcome.wait().await?;
        let pushed = opened.push(&self.policy, folder.path()).await?;
        Ok((opened, pushed))
    }

    /// The output is there, with or without its record beside it.
    async fn push_record(&self, opened: &Opened, pushed: &Pushed, text: &str) {
        let push = opened.push_record(&self.policy, pushed, text);
        let reason = match tokio::time::timeout(RECORD_LIMIT, push).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => super::one_line(&error),
            Err(_) => "it takes too long".to_owned(),
        };
        warn!(self.log, "the run's record is not pushed"; "output" => %self.policy, "error" => reason);
    }

    fn make_record(&self, exit_status: u32, pushed: Option<&Pushed>, started: Option<u64>) -> Option<String> {
        let run = Run {
            policy: &self.policy,
            exit_status,
            pushed,
            started,
        };
        record::make(&self.init, self.boot_record.text(), &run, &self.log)
    }

    fn end_run(&self, progress: Progress, record: Option<String>) {
        let mut state = self.lock();
        state.record = record;
        state.progress = progress;
    }

    /// The signed record of the latest run that has ended.
    pub(crate) fn record(&self) -> Option<String> {
        self.lock().record.clone()
    }

    /// For `Status`.
    pub(crate) fn status(&self) -> agent::JobOutput {
        let mut out = agent::JobOutput::new();
        out.name = self.policy.name.clone();
        out.version = self.policy.version;
        out.container = self.policy.container.clone();
        out.repository = format!("{}/{}", self.policy.registry, self.policy.repository);
        let state = self.lock();
        let (word, failure) = match &state.progress {
            Progress::Waiting => ("waiting", String::new()),
            Progress::Writing => ("writing", String::new()),
            Progress::Pushing => ("pushing", String::new()),
            Progress::Discarded(status) => ("discarded", format!("the job ended with status {status}")),
            Progress::NotPushed(reason) => ("failed", reason.clone()),
            Progress::Pushed(pushed) => {
                out.artifact = pushed.reference.clone();
                let files = pushed.files.iter();
                out.files = u64::try_from(pushed.files.len()).unwrap_or(u64::MAX);
                out.bytes = files.fold(0, |sum, file| sum.saturating_add(file.bytes));
                ("pushed", String::new())
            }
        };
        out.state = word.to_owned();
        out.failure = failure;
        out
    }

    /// Ends it: no key, no folder.
    pub(crate) fn wipe(&self) {
        self.close(WorkloadError::ShutDown);
        self.lock().folder = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error with its causes, in one line.
struct Told(OutputError);

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&super::one_line(&self.0))
    }
}

/// From an output that was pushed to its record's push, or to doing without.
const RECORD_LIMIT: Duration = Duration::from_secs(30);
