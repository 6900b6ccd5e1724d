//! The task that owns a pod's keys, images and models.
//!
//! ```text
//!  new ──run──▶ settled: room, registries, stores ──▶ pulling ──all ended──▶ holding ──stopped──▶ wiped
//!                   └── not settled: everything fails with the reason ──────────▲
//! ```
//! *pulling*: attestation, images and models run side by side; each result goes to its [`Outcome`] as soon as it is known.
//! *holding*: keys are gone; images and locked models stay until the task is stopped. *wiped*: every outcome is
//! [`WorkloadError::ShutDown`], which drops, and so zeroes, every model.

use std::{
    collections::BTreeMap,
    future::pending,
    path::{Path, PathBuf},
    sync::Arc,
};

use cella_policy::{ContainerPolicy, DigestRef};
use slog::{Logger, error, info};
use tokio::{sync::oneshot, task::JoinSet};

use super::{
    error::{Subject, WorkloadError},
    image::{Budget, ImagePull, ImageRules, Rootfs},
    keys::{self, Attested, Keyring},
    memory::{self, MemoryPlan},
    model::{LoadedModel, ModelPull, processors},
    outcome::{Outcome, Promise, promise},
    output::Desk,
    record::{self, Recorded},
    registries::Registries,
    store::Store,
};
use crate::{
    boot::BootInfo,
    stage::{StageLog, StageName},
};

/// Outcomes by container and by model.
type Outcomes = (
    BTreeMap<String, Outcome<Rootfs>>,
    BTreeMap<String, Outcome<Arc<LoadedModel>>>,
);

/// Everything that a pod's workload takes.
pub(crate) struct Supervisor {
    root: PathBuf,
    init: Arc<BootInfo>,
    stages: StageLog,
    attested: Attested,
    recorded: Recorded,
    given: Given,
    output: Option<Arc<Desk>>,
    log: Logger,
}

/// What the supervisor finds out, for those who ask.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// By the key broker.
    pub(crate) attested: Attested,
    /// When everything is there.
    pub(crate) recorded: Recorded,
}

/// What was promised. Taken back when it is dropped.
struct Given {
    images: Vec<ImageCell>,
    models: Vec<ModelCell>,
}

/// One image, for all containers that use it in the same way.
struct ImageCell {
    image: DigestRef,
    rules: ImageRules,
    containers: Vec<String>,
    promise: Arc<Promise<Rootfs>>,
    outcome: Outcome<Rootfs>,
}

struct ModelCell {
    name: String,
    promise: Arc<Promise<Arc<LoadedModel>>>,
    outcome: Outcome<Arc<LoadedModel>>,
}

/// What pulls need and what is settled before the first of them.
struct Settled {
    registries: Registries,
    images: Arc<Store>,
    models: Arc<Store>,
    budget: Arc<Budget>,
}

impl Supervisor {
    /// A workload whose memory file systems will lie below `root`. Does nothing yet.
    pub(crate) fn new(root: &Path, init: Arc<BootInfo>, stages: StageLog, facts: Facts, log: Logger) -> Self {
        let given = Given::of(&init);
        let Facts { attested, recorded } = facts;
        Self {
            root: root.to_owned(),
            init,
            stages,
            attested,
            recorded,
            given,
            output: None,
            log,
        }
    }

    /// The same, with a desk that waits for its key.
    pub(crate) fn with_output(self, output: Option<Arc<Desk>>) -> Self {
        Self { output, ..self }
    }

    /// What callers wait on.
    pub(crate) fn outcomes(&self) -> Outcomes {
        let images = self.given.images.iter();
        let images = images.flat_map(|cell| cell.containers.iter().map(|name| (name.clone(), cell.outcome.clone())));
        let models = self
            .given
            .models
            .iter()
            .map(|cell| (cell.name.clone(), cell.outcome.clone()));
        (images.collect(), models.collect())
    }

    /// Runs until `stop` is used or dropped.
    pub(crate) async fn run(self, stop: oneshot::Receiver<()>) {
        let settled = self.settle();
        let mut pulls = JoinSet::new();
        tokio::select! {
            () = self.work(&settled, &mut pulls) => {}
            _ = stop => {}
        }
        pulls.shutdown().await;
        if let Some(desk) = &self.output {
            desk.wipe();
        }
        // Models are zeroed before the file systems that they lie in are given up.
        drop(self);
        drop(settled);
    }

    /// Everything but the end: does not return.
    async fn work(&self, settled: &Result<Settled, WorkloadError>, pulls: &mut JoinSet<()>) {
        let settled = match settled {
            Ok(settled) => settled,
            Err(error) => {
                error!(self.log, "nothing can be pulled"; "error" => %error);
                self.given.fail(error);
                self.close_output(error);
                return pending().await;
            }
        };
        let (promised, keys) = promise::<Arc<Keyring>>();
        self.start_pulls(settled, &keys, pulls);
        let fetched = keys::fetch(&self.init, &self.stages, &self.attested).await;
        match &fetched {
            Ok(keyring) => info!(self.log, "keys ready"; "keys" => ?keyring),
            Err(error) => error!(self.log, "no keys"; "error" => %error),
        }
        self.open_output(settled, &fetched);
        promised.fulfil(fetched.map(Arc::new));
        while pulls.join_next().await.is_some() {}
        self.record();
        // With the last owner go the keys.
        promised.fulfil(Err(WorkloadError::ShutDown));
        pending().await
    }

    /// Gives the output's key to whom it is for; he keeps it longer than the ring is there.
    fn open_output(&self, settled: &Settled, keys: &Result<Keyring, WorkloadError>) {
        let Some(desk) = &self.output else { return };
        match (keys, settled.registries.own(desk.registry())) {
            (Ok(keys), Ok(registry)) => desk.open(registry, keys),
            (Err(error), _) => desk.close(error.clone()),
            (_, Err(error)) => desk.close(error),
        }
    }

    fn close_output(&self, error: &WorkloadError) {
        if let Some(desk) = &self.output {
            desk.close(error.clone());
        }
    }

    /// Makes the boot record, if everything that the policy names is there.
    fn record(&self) {
        let models = self.given.models.iter().map(|cell| cell.outcome.now());
        let images = self.given.images.iter().all(|cell| cell.outcome.now().is_some());
        let (Some(models), true, Some(summary)) = (models.collect::<Option<Vec<_>>>(), images, self.attested.summary())
        else {
            return;
        };
        match record::make(&self.init, summary, &models) {
            Ok(Some(text)) => {
                info!(self.log, "boot record made"; "bytes" => text.len());
                self.recorded.keep(text);
            }
            Ok(None) => {}
            // A number that JSON readers do not agree on, such as a model's version above 2^53: the pod runs without a record.
            Err(error) => error!(self.log, "no boot record"; "error" => %error),
        }
    }

    /// Divides memory, sets up clients and mounts stores. Nothing is dialled, and a model that cannot fit ends it here.
    fn settle(&self) -> Result<Settled, WorkloadError> {
        let free = memory::free().map_err(|error| WorkloadError::internal("reading /proc/meminfo", error))?;
        let plan =
            MemoryPlan::new(self.init.policy.sealed(), self.init.policy.output(), free).inspect_err(|error| {
                if let WorkloadError::ModelMemory { model, .. } = error {
                    self.stages.begin(StageName::Model, model).failed(error);
                }
            })?;
        let registries = Registries::of(&self.init.policy, &self.init.time, &self.log)?;
        let mounted = |error| WorkloadError::internal("mounting memory", error);
        let images = Store::for_images(&self.root.join("images"), plan.images).map_err(mounted)?;
        let models = Store::for_models(&self.root.join("models"), plan.free).map_err(mounted)?;
        Ok(Settled {
            registries,
            images: Arc::new(images),
            models: Arc::new(models),
            budget: Arc::new(Budget::new(plan.images)),
        })
    }

    /// Starts all pulls: one task an image, one task for all models.
    fn start_pulls(&self, settled: &Settled, keys: &Outcome<Arc<Keyring>>, pulls: &mut JoinSet<()>) {
        for cell in &self.given.images {
            let Some(container) = cell
                .containers
                .first()
                .and_then(|name| self.init.policy.container(name))
            else {
                continue;
            };
            let (pull, keys) = (self.image_pull(container, settled), keys.clone());
            let job = Job {
                stage: StageName::Image,
                subject: Subject::Image(cell.image.to_string()),
                promise: Arc::clone(&cell.promise),
                stages: self.stages.clone(),
                log: self.log.clone(),
            };
            pulls.spawn(async move { job.run(async { pull?.run(keys).await }).await });
        }
        let mut models = Vec::with_capacity(self.given.models.len());
        for cell in &self.given.models {
            let job = Job {
                stage: StageName::Model,
                subject: Subject::Model(cell.name.clone()),
                promise: Arc::clone(&cell.promise),
                stages: self.stages.clone(),
                log: self.log.clone(),
            };
            models.push((job, self.model_pull(cell, settled)));
        }
        let keys = keys.clone();
        pulls.spawn(async move {
            for (job, pull) in models {
                job.run(async { pull?.run(keys.clone()).await }).await;
            }
        });
    }

    fn image_pull(&self, container: &ContainerPolicy, settled: &Settled) -> Result<ImagePull, WorkloadError> {
        let (store, budget) = (Arc::clone(&settled.images), Arc::clone(&settled.budget));
        ImagePull::new(container, &settled.registries, store, budget, processors(), &self.log)
    }

    fn model_pull(&self, cell: &ModelCell, settled: &Settled) -> Result<ModelPull, WorkloadError> {
        // Made from this policy a moment ago.
        let policy = self.init.policy.sealed_as(&cell.name);
        let policy = policy.ok_or_else(|| WorkloadError::UnknownContainer {
            container: cell.name.clone(),
        })?;
        let pull = ModelPull::new(
            policy,
            &settled.registries,
            Arc::clone(&settled.models),
            processors(),
            &self.log,
        )?;
        let is_dataset = self.init.policy.model(&cell.name).is_none();
        Ok(if is_dataset { pull.for_dataset() } else { pull })
    }
}

impl Given {
    fn of(init: &BootInfo) -> Self {
        let mut images: Vec<ImageCell> = Vec::new();
        for container in init.policy.containers() {
            let rules = ImageRules::of(container);
            match images
                .iter_mut()
                .find(|cell| cell.image == container.image && cell.rules == rules)
            {
                Some(cell) => cell.containers.push(container.name.clone()),
                None => {
                    let (promise, outcome) = promise();
                    let containers = vec![container.name.clone()];
                    let image = container.image.clone();
                    images.push(ImageCell {
                        image,
                        rules,
                        containers,
                        promise: Arc::new(promise),
                        outcome,
                    });
                }
            }
        }
        let models = init.policy.sealed().map(|model| {
            let (promise, outcome) = promise();
            ModelCell {
                name: model.name.clone(),
                promise: Arc::new(promise),
                outcome,
            }
        });
        Self {
            images,
            models: models.collect(),
        }
    }

    fn fail(&self, error: &WorkloadError) {
        self.images
            .iter()
            .for_each(|cell| cell.promise.fulfil(Err(error.clone())));
        self.models
            .iter()
            .for_each(|cell| cell.promise.fulfil(Err(error.clone())));
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        self.fail(&WorkloadError::ShutDown);
    }
}

/// One pull: who is told about it.
struct Job<T> {
    stage: StageName,
    subject: Subject,
    promise: Arc<Promise<T>>,
    stages: StageLog,
    log: Logger,
}

impl<T> Job<T> {
    async fn run(self, pull: impl Future<Output = Result<T, WorkloadError>>) {
        let (Subject::Image(name) | Subject::Model(name) | Subject::Output(name)) = &self.subject;
        let stage = self.stages.begin(self.stage, name);
        let result = stage.finish(pull.await);
        if let Err(error) = &result {
            error!(self.log, "pull failed"; "subject" => %self.subject, "error" => %error);
        }
        self.promise.fulfil(result);
    }
}
