//! The service: a Unix socket that the guest's vsock connections arrive at.
//!
//! Whose bytes: the guest's. A request is exactly 64 bytes of report_data; the answer is a u32, little endian, and as many bytes of
//! [`cella_attest::GuestEvidence`] in JSON; 0 says that there is no evidence, and the log says why. One request a connection.
//!
//! ```text
//! listening ── QEMU's id is known ──> measuring ── done ──> serving ── QEMU ends, or a signal ──> ended
//!     │                                   └─ failed ──> refusing (every answer is 0) ── the same ──┘
//!     └─ no QEMU within two minutes, or the process is none ──> ended with an error
//! ```
//! One task owns this sequence. Connections that come while it listens or measures wait, each with a deadline.

mod connection;
mod socket;

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use slog::{Logger, error, info};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    launch::{Guest, Keys},
    process::{Process, ProcessError},
};
use connection::{Platform, Stage};
use socket::Socket;

/// How long QEMU may take to appear.
const START: Duration = Duration::from_secs(120);
/// How often the file with QEMU's process id is looked for.
const LOOK: Duration = Duration::from_millis(50);
/// Connections at a time. More wait in the socket's queue.
const CONNECTIONS: usize = 4;

/// What to serve.
pub(crate) struct Config {
    pub(crate) keys: Keys,
    pub(crate) socket: PathBuf,
    pub(crate) qemu: Qemu,
    pub(crate) firmware: PathBuf,
    pub(crate) cpu: String,
}

/// Where QEMU is found.
pub(crate) enum Qemu {
    /// QEMU writes its process id here.
    PidFile(PathBuf),
    /// It runs already.
    Pid(u32),
}

/// Why the service ended before QEMU did.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ServeError {
    #[error("listening on {}", path.display())]
    Listen {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("accepting a connection")]
    Accept(#[source] io::Error),
    #[error("waiting for signals")]
    Signals(#[source] io::Error),
    #[error("no process id in {} within {} s: QEMU did not start", path.display(), START.as_secs())]
    NoQemu { path: PathBuf },
    #[error("{} holds no process id", path.display())]
    PidFile { path: PathBuf },
    #[error("the process is not one to attest")]
    Process(#[from] ProcessError),
    #[error("watching QEMU")]
    Watch(#[source] io::Error),
}

/// Serves until QEMU ends or a signal comes; both are success.
pub(crate) async fn serve(config: Config, log: &Logger) -> Result<(), ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let Config {
        keys,
        socket,
        qemu,
        firmware,
        cpu,
    } = config;
    let socket = Socket::bind(&socket).map_err(|source| ServeError::Listen { path: socket, source })?;
    info!(log, "simulated platform is listening"; "socket" => %socket.path().display());
    let (stage, stages) = watch::channel(Stage::Measuring);
    let platform = Arc::new(Platform {
        keys,
        stages,
        log: log.clone(),
    });
    // Every branch may be dropped at any point: requests are answered by tasks that end with their set.
    tokio::select! {
        result = follow(qemu, firmware, cpu, stage, log) => result,
        result = accept(&socket, &platform) => result,
        _ = terminate.recv() => ended_by("SIGTERM", log),
        _ = interrupt.recv() => ended_by("SIGINT", log),
    }
}

fn ended_by(signal: &'static str, log: &Logger) -> Result<(), ServeError> {
    info!(log, "ended by a signal"; "signal" => signal);
    Ok(())
}

/// Waits for QEMU, measures it, and returns when it has ended.
async fn follow(
    qemu: Qemu,
    firmware: PathBuf,
    cpu: String,
    stage: watch::Sender<Stage>,
    log: &Logger,
) -> Result<(), ServeError> {
    let pid = match qemu {
        Qemu::Pid(pid) => pid,
        Qemu::PidFile(path) => match timeout(START, wait_for_pid(&path)).await {
            Ok(found) => found?,
            Err(_) => return Err(ServeError::NoQemu { path }),
        },
    };
    let process = Arc::new(Process::open(pid)?);
    let ended = process.watch().map_err(ServeError::Watch)?;
    let measured = tokio::task::spawn_blocking({
        let (process, log) = (process.clone(), log.clone());
        move || Guest::measure(&process, &firmware, &cpu, &log)
    });
    let next = match measured.await {
        Ok(Ok(guest)) => Stage::Serving(Box::new(guest)),
        Ok(Err(cause)) => {
            error!(log, "guest cannot be attested"; "pid" => pid, "error" => format!("{:#}", anyhow::Error::new(cause)));
            Stage::Refusing
        }
        Err(cause) => {
            error!(log, "measuring the guest was aborted"; "pid" => pid, "error" => %cause);
            Stage::Refusing
        }
    };
    stage.send_replace(next);
    ended
        .await
        .map_err(|_| ServeError::Watch(io::ErrorKind::BrokenPipe.into()))?
        .map_err(ServeError::Watch)?;
    info!(log, "QEMU has ended"; "pid" => pid);
    Ok(())
}

/// Looks for the file until it holds a line. QEMU writes it whole, after it has opened what it launches.
async fn wait_for_pid(path: &PathBuf) -> Result<u32, ServeError> {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Ok(text) = fs::read_to_string(path)
            && let Some(line) = text.strip_suffix('\n')
        {
            return line
                .trim()
                .parse()
                .map_err(|_| ServeError::PidFile { path: path.clone() });
        }
    }
}

/// Accepts connections for ever, a few at a time.
async fn accept(socket: &Socket, platform: &Arc<Platform>) -> Result<(), ServeError> {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return Ok(());
        };
        let stream = socket.accept().await.map_err(ServeError::Accept)?;
        let platform = platform.clone();
        connections.spawn(async move {
            platform.answer(stream).await;
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
}
