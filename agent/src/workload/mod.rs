//! What a pod runs on: keys, images and models, each complete and verified before anybody gets it.
//!
//! ```text
//!            ┌─▶ attest once ─▶ keys ──────────┐
//!  network ──┼─▶ image: manifest ─▶ config ────┼─▶ layers ────▶ root file system
//!            └─▶ model: manifest ─▶ memory ────┴─▶ segments ──▶ locked, read-only files
//! ```
//! All three start at once; images and models wait for keys where they need them. Models are loaded one after the other,
//! each with all processors. What is wanted, from where and with which keys is the measured policy's word alone. All
//! bytes come from peers that are not trusted: they are bounded and authenticated before they are used, and whatever
//! fails leaves no file, no plaintext and no key behind.
//!
//! One task owns all of it (`supervisor`); callers wait for its outcomes. What a job leaves is another matter (`output`): it begins when all
//! of this is there.

mod error;
mod image;
mod keys;
mod memory;
mod model;
mod outcome;
mod output;
mod proc;
mod record;
mod registries;
mod status;
mod store;
mod supervisor;

#[cfg(test)]
mod testkit;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use cella_protos::agent::StatusResponse;
use slog::Logger;
use tokio::{sync::oneshot, task::JoinHandle};

pub use error::{Blame, Cause, FileFault, LayerFault, Subject, WorkloadError};
pub use image::Rootfs;
pub use model::ModelMount;
pub use output::{OutputEnd, OutputError, OutputMount};

pub(crate) use output::one_line;

use self::{
    model::LoadedModel,
    outcome::Outcome,
    output::Desk,
    supervisor::{Facts, Supervisor},
};
use crate::{boot::BootInfo, stage::StageLog};

/// Where images and models are kept, in memory.
const ROOT: &str = "/run/cella";

/// The pod's keys, images and models. Clones share them.
#[derive(Clone)]
pub struct Workload {
    shared: Arc<Shared>,
}

struct Shared {
    init: Arc<BootInfo>,
    /// By container.
    images: BTreeMap<String, Outcome<Rootfs>>,
    /// By name.
    models: BTreeMap<String, Outcome<Arc<LoadedModel>>>,
    facts: Facts,
    output: Option<Arc<Desk>>,
    /// The supervisor and what stops it, until [`Workload::wipe`] does.
    task: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

impl Workload {
    /// Starts attestation and pulls. Returns at once. The network must be configured.
    ///
    /// Must be called within a tokio runtime.
    pub fn start(init: Arc<BootInfo>, stages: StageLog, log: Logger) -> Self {
        Self::start_in(Path::new(ROOT), init, stages, log)
    }

    /// [`Workload::start`] with the memory file systems below `root`.
    fn start_in(root: &Path, init: Arc<BootInfo>, stages: StageLog, log: Logger) -> Self {
        let facts = Facts::default();
        let output = Desk::of(
            &init,
            &root.join("output"),
            facts.recorded.clone(),
            stages.clone(),
            &log,
        );
        let supervisor =
            Supervisor::new(root, Arc::clone(&init), stages, facts.clone(), log).with_output(output.clone());
        let (images, models) = supervisor.outcomes();
        let (stop, stopped) = oneshot::channel();
        let task = Mutex::new(Some((stop, tokio::spawn(supervisor.run(stopped)))));
        Self {
            shared: Arc::new(Shared {
                init,
                images,
                models,
                facts,
                output,
                task,
            }),
        }
    }

    /// Waits for the root file system of `container`: complete and verified.
    ///
    /// # Errors
    /// Why it will never be there; everybody who asks gets the same answer.
    pub async fn image(&self, container: &str) -> Result<Rootfs, WorkloadError> {
        self.shared
            .images
            .get(container)
            .ok_or_else(|| unknown(container))?
            .wait()
            .await
    }

    /// Waits for all models that the policy mounts into `container`: complete, verified and locked.
    ///
    /// # Errors
    /// Why one of them will never be there; everybody who asks gets the same answer.
    pub async fn models(&self, container: &str) -> Result<Vec<ModelMount>, WorkloadError> {
        let policy = self
            .shared
            .init
            .policy
            .container(container)
            .ok_or_else(|| unknown(container))?;
        let mut mounts = Vec::with_capacity(policy.mounts.len());
        for mount in &policy.mounts {
            // The policy does not validate with a mount of a model that it does not have.
            let model = self
                .shared
                .models
                .get(&mount.model)
                .ok_or_else(|| unknown(container))?
                .wait()
                .await?;
            let destination = PathBuf::from(mount.destination.as_str());
            mounts.push(ModelMount {
                source: model.directory.clone(),
                destination,
            });
        }
        Ok(mounts)
    }

    /// An empty folder for what `container` leaves, if the policy keeps that, as soon as there is the key to seal it with.
    ///
    /// # Errors
    /// Why nothing that is left there could be kept.
    pub async fn output(&self, container: &str) -> Result<Option<OutputMount>, WorkloadError> {
        match self.desk(container) {
            Some(desk) => desk.folder().await.map(Some),
            None => Ok(None),
        }
    }

    /// `container` has ended with `status`, and nothing of it is alive. Seals and pushes its output, if it has one and that is 0, unless
    /// `killed` is told meanwhile. `refused`: the status for the record of a run whose output could not be kept.
    pub async fn finish(&self, container: &str, status: u32, refused: u32, killed: oneshot::Receiver<()>) -> OutputEnd {
        match self.desk(container) {
            Some(desk) => desk.finish(status, refused, killed).await,
            None => OutputEnd::None,
        }
    }

    fn desk(&self, container: &str) -> Option<&Desk> {
        self.shared
            .output
            .as_deref()
            .filter(|desk| desk.container() == container)
    }

    /// Adds evidence and models to the answer of `Status`, with figures of this moment. Reads /proc: some milliseconds.
    pub fn status(&self, out: &mut StatusResponse) {
        if let Some(summary) = self.shared.facts.attested.summary() {
            out.evidence = status::evidence(summary);
        }
        let loaded: Vec<_> = self.shared.models.values().filter_map(Outcome::now).collect();
        out.models = status::models(loaded.iter().map(AsRef::as_ref));
        out.output = self.shared.output.as_ref().map(|desk| desk.status()).into();
    }

    /// The signed boot record, once everything that the policy names is there. A policy without keys has none: it attests to
    /// nobody.
    pub fn record(&self) -> Option<String> {
        self.shared.facts.recorded.text()
    }

    /// The signed record of the latest run of the job whose output is kept. Rests on [`Workload::record`].
    pub fn run_record(&self) -> Option<String> {
        self.shared.output.as_ref()?.record()
    }

    /// Ends all pulls, zeroes keys and model memory. Whoever waits gets [`WorkloadError::ShutDown`]. Containers must have
    /// ended: they see zeros from now on. A thread that is opening a segment at this moment zeroes it when it has.
    pub async fn wipe(&self) {
        let task = self.shared.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((stop, task)) = task else { return };
        // Neither fails but when the supervisor has ended, and then there is nothing left to wipe.
        let _ = stop.send(());
        let _ = task.await;
    }
}

fn unknown(container: &str) -> WorkloadError {
    WorkloadError::UnknownContainer {
        container: error::printable(container, 64),
    }
}

#[cfg(test)]
mod tests;
