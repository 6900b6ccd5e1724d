//! The three ways in which containerd runs this program: `start`, the server itself, and `delete`.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use containerd_shim::protos::protobuf::Message;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::publisher::RemotePublisher;
use containerd_shim::{
    Config, DeleteResponse, Error, ExitSignal, Flags, Result, Shim, StartOpts, socket_address, spawn,
};
use slog::{Level, Logger, error, info, o};

#[cfg(feature = "failpoints")]
use crate::bundle::Bundle;
use crate::bundle::grouping;
use crate::cleanup;
use crate::logging::{self, Verbosity};
use crate::metrics;
use crate::options::OPTIONS_TYPE;
use crate::process::Spawner;
use crate::sandbox::SandboxService;
use crate::task::{Pod, PodParts, Publisher, TaskService};
use crate::trace;

/// Variable in which `start` passes the runtime options on to the server.
const OPTIONS: &str = "CELLA_RUNTIME_OPTIONS";
/// Longest options that fit there, in bytes; longer ones are of no use with the Sandbox API.
const MAX_OPTIONS: usize = 64 * 1024;

/// The runtime's name towards containerd.
pub const RUNTIME: &str = "io.containerd.cella.v2";

/// containerd gives Shutdown three seconds; the last event should be through by then.
const LAST_EVENTS: Duration = Duration::from_secs(2);
/// A shim that has had no container for so long ends by itself: its start or its shutdown was lost.
const IDLE: Duration = Duration::from_secs(60);
/// How often it looks. One without containers whose bundle has gone ends at once: containerd had no room to note where it
/// listens, gave it up without a word, and removed the bundle.
const LOOK: Duration = Duration::from_secs(2);

/// File in the bundle with the server's address. Its name is containerd-shim's.
pub(crate) const ADDRESS_FILE: &str = "address";

/// State of one invocation.
pub struct CellaShim {
    flags: Invocation,
    exit: Arc<ExitSignal>,
    pod: OnceLock<Arc<Pod>>,
    verbosity: Verbosity,
    log: Logger,
}

/// What containerd said on the command line.
struct Invocation {
    namespace: String,
    id: String,
    containerd: String,
    bundle: PathBuf,
    /// The server's own socket; empty in other invocations.
    socket: String,
}

/// containerd-shim's configuration for this program: logging, reaping and children are our own.
pub fn shim_config() -> Config {
    Config {
        no_setup_logger: true,
        no_reaper: true,
        no_sub_reaper: true,
        ..Config::default()
    }
}

#[async_trait]
impl Shim for CellaShim {
    type T = TaskService;

    async fn new(_: &str, args: &Flags, _: &mut Config) -> Self {
        let verbosity = Verbosity::new(Level::Info);
        if args.debug {
            verbosity.pin(Level::Debug);
        }
        let log = match args.action.as_str() {
            // containerd reads stdout and stderr of `start` as one: nothing but the address may be there.
            "start" => Logger::root(slog::Discard, o!()),
            "delete" => logging::stderr(verbosity.clone()),
            _ => logging::fifo(Path::new("log"), verbosity.clone()),
        };
        let log = log.new(o!("runtime" => RUNTIME, "namespace" => args.namespace.clone(), "shim" => args.id.clone()));
        if args.action.is_empty() {
            logging::report_panics(log.clone());
            logging::adopt_library_logs(&log);
        }
        let bundle = if args.bundle.is_empty() {
            PathBuf::from(".")
        } else {
            PathBuf::from(&args.bundle)
        };
        let flags = Invocation {
            namespace: args.namespace.clone(),
            id: args.id.clone(),
            containerd: args.address.clone(),
            bundle,
            socket: args.socket.clone(),
        };
        Self {
            flags,
            exit: Arc::default(),
            pod: OnceLock::new(),
            verbosity,
            log,
        }
    }

    /// Starts the server for the pod, or finds the one that is there; gives its address.
    async fn start_shim(&mut self, opts: StartOpts) -> Result<String> {
        let invalid =
            |error: crate::bundle::BundleError| Error::InvalidArgument(crate::task::TaskError::from(error).message());
        // containerd starts this program in the bundle.
        let grouping = grouping(Path::new("."), &opts.id).map_err(invalid)?;
        let owner = grouping == opts.id;
        let options = runtime_options(&opts.extensions);
        let vars = options.as_deref().map(|options| (OPTIONS, options));
        let address = spawn(opts, &grouping, vars.into_iter().collect()).await?;
        if owner {
            // For `delete`, after the server's death, which without it looks at the usual place alone.
            let _ = std::fs::write(ADDRESS_FILE, &address);
        }
        Ok(address)
    }

    /// Removes what a dead shim left behind. Its containers count as killed.
    async fn delete_shim(&mut self) -> Result<DeleteResponse> {
        let Invocation {
            namespace,
            id,
            bundle,
            containerd,
            ..
        } = &self.flags;
        let usual = socket_address(containerd, namespace, id);
        let (bundle, namespace, id, log) = (bundle.clone(), namespace.clone(), id.clone(), self.log.clone());
        let clean_up = move || {
            // On a full disk there was no room to note the address.
            for address in [
                std::fs::read_to_string(bundle.join(ADDRESS_FILE)).unwrap_or_default(),
                usual,
            ] {
                cleanup::remove_dead_socket(&address);
            }
            cleanup::clean_up(&bundle, &namespace, &id, &log)
        };
        let cleaned = tokio::task::spawn_blocking(clean_up).await;
        match cleaned {
            Ok(Ok(())) => {}
            // containerd goes on without the shim whatever is said here; the log is where it matters.
            Ok(Err(error)) => error!(self.log, "cleaning up failed"; "error" => chain(&error)),
            Err(error) => error!(self.log, "cleaning up was interrupted"; "error" => %error),
        }
        Ok(DeleteResponse {
            exit_status: cleanup::EXIT_STATUS,
            exited_at: Some(crate::task::timestamp(SystemTime::now())).into(),
            ..Default::default()
        })
    }

    async fn wait(&mut self) {
        let pod = self.pod.get().cloned();
        tokio::select! {
            () = self.exit.wait() => {}
            () = idle(pod.clone()) => info!(self.log, "no container for a while, the shim ends"),
        }
        if let Some(pod) = pod {
            pod.flush_events(LAST_EVENTS).await;
        }
        // containerd-shim looks for the address in the bundle, which containerd may have removed by now.
        if let Some(path) = self.flags.socket.strip_prefix("unix://") {
            let _ = std::fs::remove_file(path);
        }
    }

    /// Not how this shim is served, see [`crate::server`]: without the Sandbox service.
    async fn create_task_service(&self, publisher: RemotePublisher) -> Self::T {
        match self.services(&publisher.address) {
            Ok((task, _)) => task,
            Err(error) => {
                error!(self.log, "cannot start a thread, the shim ends"; "error" => %error);
                // Nothing exists yet that could leak; containerd reports that the shim has gone.
                std::process::exit(1);
            }
        }
    }
}

impl CellaShim {
    /// The services of one pod, whose events go to the ttrpc socket `events`.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn services(&self, events: &str) -> std::io::Result<(TaskService, SandboxService)> {
        // Its time begins here.
        metrics::global();
        trace::global();
        let spawner = Spawner::start()?;
        let parts = || PodParts {
            containerd: self.flags.containerd.clone(),
            namespace: self.flags.namespace.clone(),
            events: Publisher::start(events, &self.flags.namespace, self.log.clone()),
            exit: self.exit.clone(),
            spawner,
            verbosity: self.verbosity.clone(),
            log: self.log.clone(),
        };
        let pod = self.pod.get_or_init(|| Arc::new(Pod::new(parts())));
        let task = TaskService::new(pod.clone(), self.log.clone());
        #[cfg(feature = "failpoints")]
        let task = match Bundle::load(&self.flags.bundle) {
            Ok(bundle) => task.with_failpoints(&bundle.spec.annotations),
            Err(_) => task,
        };
        let options = std::env::var(OPTIONS).ok().and_then(|text| decode_options(&text));
        let sandbox = SandboxService::new(pod.clone(), options, self.log.clone());
        Ok((task, sandbox))
    }

    /// Where this invocation logs.
    pub fn log(&self) -> &Logger {
        &self.log
    }
}

/// The runtime options among what containerd gave to `start`, in a form for the environment: the Sandbox API does not give
/// them again.
fn runtime_options(extensions: &[Any]) -> Option<String> {
    let options = extensions.iter().find(|any| is_options(any))?;
    let bytes = options
        .write_to_bytes()
        .ok()
        .filter(|bytes| bytes.len() <= MAX_OPTIONS)?;
    Some(STANDARD.encode(bytes))
}

fn decode_options(text: &str) -> Option<Any> {
    let bytes = STANDARD.decode(text).ok()?;
    Any::parse_from_bytes(&bytes).ok().filter(is_options)
}

fn is_options(any: &Any) -> bool {
    any.type_url.rsplit('/').next() == Some(OPTIONS_TYPE)
}

/// Returns when the pod has been idle for a whole period, or is idle and nobody can know it any more.
async fn idle(pod: Option<Arc<Pod>>) {
    let Some(pod) = pod else {
        return std::future::pending().await;
    };
    let mut since = None;
    loop {
        tokio::time::sleep(LOOK).await;
        if !pod.is_idle() {
            since = None;
            continue;
        }
        if is_removed(Path::new(".")) || since.get_or_insert_with(Instant::now).elapsed() >= IDLE {
            return;
        }
    }
}

/// Whether a directory that is still in use has no name any more.
fn is_removed(dir: &Path) -> bool {
    std::fs::metadata(dir).is_ok_and(|metadata| metadata.nlink() == 0)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtime_options_survive_the_environment() {
        let options = Any {
            type_url: OPTIONS_TYPE.into(),
            value: vec![1, 2, 3],
            ..Default::default()
        };
        let other = Any {
            type_url: "x".into(),
            ..Default::default()
        };
        let text = runtime_options(&[other.clone(), options.clone()]).unwrap();
        assert_eq!(decode_options(&text), Some(options));
        assert_eq!(runtime_options(&[other]), None);
        assert_eq!(decode_options("%%%"), None);
    }
}
