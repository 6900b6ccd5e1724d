//! `GET /metrics`, and `GET /trace`, on a Unix socket: one request a connection, few connections, nothing that a client can make last.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slog::{Logger, debug};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::counters::Metrics;
use super::guest::GuestFacts;
use super::page::{Kind, Page, seconds};
use crate::agent::Agent;
use crate::trace;

/// Name of the socket in the run directory.
const SOCKET: &str = "metrics.sock";
/// Longest request head.
const MAX_HEAD: usize = 4096;
/// Connections that are answered at once; others wait.
const CONNECTIONS: usize = 4;
/// For one connection, all of it.
const CONNECTION: Duration = Duration::from_secs(2);
/// For the agent's answer; what it said last is shown where it does not come.
const AGENT: Duration = Duration::from_millis(500);
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Metrics,
    Trace,
}

/// What is known of the VM before it boots.
#[derive(Clone, Debug)]
pub struct VmFacts {
    /// "snp", "sim".
    pub tee: &'static str,
    /// "kvm", "tcg".
    pub accel: String,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Guest memory.
    pub memory_mib: u32,
}

/// No socket.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {path}")]
pub struct ServerError {
    /// The socket.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// The listener; dropping it ends it. The file is the run directory's to remove.
pub struct Server {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    metrics: &'static Metrics,
    facts: VmFacts,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    qemu_pid: Option<u32>,
    agent: Option<Agent>,
    guest: GuestFacts,
}

impl Server {
    /// Listens in `dir`.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn start(dir: &Path, metrics: &'static Metrics, facts: VmFacts, log: Logger) -> Result<Self, ServerError> {
        let path = dir.join(SOCKET);
        // The directory is private; the mode is for whoever moves it.
        let listener = UnixListener::bind(&path).and_then(|listener| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            Ok(listener)
        });
        let listener = listener.map_err(|source| ServerError { path, source })?;
        let shared = Arc::new(Shared {
            metrics,
            facts,
            known: Mutex::default(),
        });
        let task = tokio::spawn(accept(listener, shared.clone(), log));
        Ok(Self { shared, task })
    }

    /// For whoever learns more about the VM.
    pub fn handle(&self) -> Handle {
        Handle(self.shared.clone())
    }
}

/// Tells a [`Server`] what has come up.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

impl Handle {
    /// QEMU runs.
    pub fn qemu(&self, pid: u32) {
        self.0.known().qemu_pid = Some(pid);
    }

    /// The agent answers.
    pub fn agent(&self, agent: Agent) {
        self.0.known().agent = Some(agent);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: UnixListener, shared: Arc<Shared>, log: Logger) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: not a reason to spin.
                debug!(log, "no connection for metrics"; "error" => %error);
                tokio::time::sleep(CONNECTION).await;
                continue;
            }
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            // A client that is late or gone has itself to blame.
            let _ = timeout(CONNECTION, shared.answer(stream)).await;
            drop(slot);
        });
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, mut stream: UnixStream) -> io::Result<()> {
        let mut head = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < MAX_HEAD {
            let mut part = [0; 512];
            match stream.read(&mut part).await? {
                0 => break,
                read => head.extend_from_slice(part.get(..read).unwrap_or_default()),
            }
        }
        let (status, form, body) = match route(&head) {
            Ok(Route::Metrics) => ("200 OK", PROMETHEUS, self.page().await),
            Ok(Route::Trace) => ("200 OK", "application/json", trace::global().render()),
            Err(status) => (status, PROMETHEUS, format!("{status}\n")),
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {form}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    }

    async fn page(&self) -> String {
        let (agent, qemu_pid) = {
            let known = self.known();
            (known.agent.clone(), known.qemu_pid)
        };
        let fresh = match agent {
            Some(agent) => agent.status(AGENT).await.ok(),
            None => None,
        };
        let is_up = fresh.is_some();
        let guest = {
            let mut known = self.known();
            if let Some(status) = fresh {
                known.guest = GuestFacts::of(&status);
            }
            known.guest.clone()
        };
        let mut page = Page::default();
        self.facts.render(&mut page);
        host(&mut page, qemu_pid);
        self.metrics.render(&mut page);
        page.family(
            "cella_guest_up",
            Kind::Gauge,
            "Whether the agent answered this scrape; without an answer, what it said last is shown.",
        )
        .sample(&[], u8::from(is_up));
        guest.render(&mut page);
        page.finish()
    }
}

impl VmFacts {
    fn render(&self, page: &mut Page) {
        let labels = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("tee", self.tee),
            ("accel", &self.accel),
        ];
        page.family("cella_shim_info", Kind::Gauge, "What the shim runs, as labels.")
            .sample(&labels, 1);
        page.family("cella_vm_vcpus", Kind::Gauge, "Virtual CPUs, fixed.")
            .sample(&[], self.vcpus);
        page.family("cella_vm_memory_bytes", Kind::Gauge, "Guest memory, fixed.")
            .sample(&[], u64::from(self.memory_mib) << 20);
    }
}

/// What `/proc` says of QEMU and of the shim.
fn host(page: &mut Page, qemu_pid: Option<u32>) {
    let resident = |pid: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib * 1024)
    };
    let qemu = qemu_pid.map(|pid| pid.to_string());
    page.family(
        "cella_vm_resident_memory_bytes",
        Kind::Gauge,
        "Memory of this host that QEMU holds, the guest's included.",
    );
    if let Some(bytes) = qemu.as_deref().and_then(resident) {
        page.sample(&[], bytes);
    }
    page.family(
        "cella_vm_cpu_seconds_total",
        Kind::Counter,
        "CPU time that QEMU has used.",
    );
    if let Some(used) = qemu.as_deref().and_then(cpu_time) {
        page.sample(&[], seconds(used));
    }
    page.family(
        "cella_shim_resident_memory_bytes",
        Kind::Gauge,
        "Memory of this host that the shim holds.",
    );
    if let Some(bytes) = resident("self") {
        page.sample(&[], bytes);
    }
}

/// User and system time: fields 14 and 15 of `/proc/<pid>/stat`, in ticks of 10 ms (USER_HZ, which x86 fixes at 100).
fn cpu_time(pid: &str) -> Option<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = text.rsplit_once(") ")?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let total = ticks()?.saturating_add(ticks()?);
    Some(Duration::from_millis(total.saturating_mul(10)))
}

/// What a request head asks for; the error is the answer's status.
fn route(head: &[u8]) -> Result<Route, &'static str> {
    if !head.windows(4).any(|end| end == b"\r\n\r\n") {
        return Err("400 Bad Request");
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(b"GET"), Some(b"/metrics"), Some(b"HTTP/1.1" | b"HTTP/1.0"), None) => Ok(Route::Metrics),
        (Some(b"GET"), Some(b"/trace"), Some(b"HTTP/1.1" | b"HTTP/1.0"), None) => Ok(Route::Trace),
        (Some(b"GET"), Some(_), Some(b"HTTP/1.1" | b"HTTP/1.0"), None) => Err("404 Not Found"),
        (Some(_), Some(_), Some(b"HTTP/1.1" | b"HTTP/1.0"), None) => Err("405 Method Not Allowed"),
        _ => Err("400 Bad Request"),
    }
}

#[cfg(test)]
mod tests;
