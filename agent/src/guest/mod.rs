//! Process 1 of the guest, from the first mount to power off.
//!
//! ```text
//! mounts ──▶ hardening ──▶ boot::find_out ──▶ serving ──Shutdown RPC──▶ power off
//!    │            │               └── refused ──▶ saying why, ≤ 10 s ──▶ power off
//!    └────────────┴── failed ──▶ one line on the console ──▶ power off          (a panic anywhere: the same)
//! ```
//! Signals from inside cannot hurt: the kernel drops those that process 1 has no handler for, and it has one for SIGCHLD
//! only.

mod clock;
mod hardening;
mod mounts;
mod power;
pub(crate) mod signal;
mod wipe;

use std::{path::Path, process::ExitCode, sync::Arc};

use cella_policy::Policy;
use nix::unistd::getpid;
use slog::{Logger, error, info};
use tokio::signal::unix::{SignalKind, signal as on_signal};

pub use hardening::HardeningError;
pub use mounts::MountError;

use crate::{
    api::{self, Outcome},
    boot,
    container::{CgroupRoot, Containers, Setting},
    launch::Launcher,
    logging,
    pod::{Ingress, Pod},
    reaper::Reaper,
    stage::{StageLog, StageName},
    stream::Streams,
};

/// The guest's whole life. Does nothing but complain when it is not process 1.
pub fn main() -> ExitCode {
    if getpid().as_raw() != 1 {
        eprintln!("cella-agent is the init process of a Cella guest; started by hand it does nothing");
        return ExitCode::FAILURE;
    }
    power::off_on_panic();
    let ended = prepare().and_then(run);
    if let Err(failure) = ended {
        logging::last_words(&format!("{}; powering off", api::one_line(&*failure)));
    }
    power::off()
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn prepare() -> Result<Logger, Failure> {
    mounts::make()?;
    hardening::apply()?;
    Ok(logging::console())
}

fn run(log: Logger) -> Result<(), Failure> {
    info!(log, "agent starting"; "version" => env!("CARGO_PKG_VERSION"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .on_thread_stop(wipe::own_stack)
        .enable_all()
        .build()?;
    runtime.block_on(serve(log))
}

async fn serve(log: Logger) -> Result<(), Failure> {
    let stages = StageLog::new();
    let stage = stages.begin_at(StageName::Boot, "", 0);
    let reaper = Reaper::new();
    reap(reaper.clone())?;
    let found = tokio::task::spawn_blocking(boot::find_out).await?;
    let outcome = match stage.finish(found) {
        Ok(boot) => {
            info!(log, "initdata verified";
                "sha256" => hex::encode(boot.digests.sha256), "tee" => boot.tee.as_str(),
                "simulated" => boot.evidence.is_simulated());
            tokio::spawn(clock::follow(boot.time.clone(), log.clone()));
            let setting = setting(&boot.policy, &log, &stages, reaper)?;
            Outcome::Ready {
                boot: Arc::new(boot),
                containers: Containers::new(setting),
                stages,
            }
        }
        Err(refusal) => {
            error!(log, "guest refuses to serve"; "reason" => api::one_line(&refusal));
            Outcome::Refused(refusal)
        }
    };
    Ok(api::serve(outcome, log).await?)
}

fn setting(policy: &Policy, log: &Logger, stages: &StageLog, reaper: Reaper) -> Result<Setting, Failure> {
    let meminfo = std::fs::read_to_string("/proc/meminfo")?;
    let total_mib = boot::total_memory(&meminfo).unwrap_or(0) >> 20;
    let program = Path::new("/proc/self/exe");
    let pod = Pod::new("/run/cella/pod".into(), program.to_owned(), reaper.clone());
    Ok(Setting {
        state_dir: "/run/cella/containers".into(),
        launcher: Launcher::new("/proc/self/exe", reaper.clone()),
        cgroups: Some(CgroupRoot::make(Path::new(mounts::CGROUPS))?),
        writable_mib: (total_mib / 4).max(16),
        streams: Streams::new(log.clone()),
        reaper,
        ingress: Ingress::new(policy, pod.events().clone()),
        pod,
        stages: stages.clone(),
        log: log.clone(),
    })
}

/// Reaps on every SIGCHLD, for ever.
fn reap(reaper: Reaper) -> Result<(), Failure> {
    let mut children = on_signal(SignalKind::child())?;
    tokio::spawn(async move {
        while children.recv().await.is_some() {
            reaper.reap();
        }
    });
    Ok(())
}

/// Threads for protocol work; bulk decryption has its own.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get().min(4))
}

const MAX_BLOCKING_THREADS: usize = 32;
