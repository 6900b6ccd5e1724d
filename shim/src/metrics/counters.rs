//! What the shim itself counts and times.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ttrpc::Code;

use super::page::{Kind, Page, seconds};

/// Most different keys of a map: names and topics come from peers.
const MAX_KEYS: usize = 128;

/// This process's counters; time begins with the first use, at the shim's start.
pub fn global() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);
    &METRICS
}

/// Counters of one pod.
pub struct Metrics {
    begun: Instant,
    stdio: [AtomicU64; 3],
    inner: Mutex<Inner>,
}

/// What has its own byte counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are what they are called")]
pub enum Pipe {
    Stdin,
    Stdout,
    Stderr,
}

/// A stage that the host times. The names are those of NVIDIA's reference architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// From containerd's Create to a VM with a network.
    SandboxLaunch,
    /// From the shim's start to the first running container.
    PodReady,
}

#[derive(Default)]
struct Inner {
    stages: BTreeMap<Stage, Duration>,
    launch_begun: Option<Instant>,
    names: BTreeSet<String>,
    created: u64,
    running: u64,
    restarts: u64,
    exits: BTreeMap<&'static str, u64>,
    topics: BTreeMap<String, u64>,
    guest_events: BTreeMap<&'static str, u64>,
    refusals: BTreeMap<(&'static str, i32), u64>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            stdio: Default::default(),
            inner: Mutex::default(),
        }
    }

    /// The launch of the VM begins.
    pub fn launch_begins(&self) {
        self.inner().launch_begun = Some(Instant::now());
    }

    /// The VM is up and has its network.
    pub fn launch_ends(&self) {
        let mut inner = self.inner();
        if let Some(begun) = inner.launch_begun {
            inner.stages.insert(Stage::SandboxLaunch, begun.elapsed());
        }
    }

    /// A container was created; `name` is CRI's, "" where there is none. The second one of a name is a restart.
    pub fn container_created(&self, name: &str) {
        let mut inner = self.inner();
        inner.created += 1;
        if name.is_empty() || inner.names.contains(name) {
            inner.restarts += u64::from(!name.is_empty());
        } else if inner.names.len() < MAX_KEYS {
            inner.names.insert(name.to_owned());
        }
    }

    /// A container's process runs.
    pub fn container_started(&self) {
        let mut inner = self.inner();
        inner.running += 1;
        let since = self.begun.elapsed();
        inner.stages.entry(Stage::PodReady).or_insert(since);
    }

    /// A container has ended; `was_running` says whether its process ever ran.
    pub fn container_ended(&self, status: u32, was_running: bool) {
        let mut inner = self.inner();
        inner.running = inner.running.saturating_sub(u64::from(was_running));
        let how = match status {
            _ if !was_running => "not-started",
            0 => "success",
            137 => "killed",
            129.. => "signal",
            _ => "failure",
        };
        *inner.exits.entry(how).or_default() += 1;
    }

    /// An event was queued for containerd.
    pub fn task_event(&self, topic: &str) {
        count(&mut self.inner().topics, topic);
    }

    /// The agent reported an event.
    pub fn guest_event(&self, kind: &str) {
        let kind = match kind {
            "oom" => "oom",
            "denied" => "denied",
            "ingress" => "ingress",
            "output" => "output",
            "artifact" => "artifact",
            _ => "other",
        };
        *self.inner().guest_events.entry(kind).or_default() += 1;
    }

    /// A request of containerd's failed.
    pub fn refused(&self, call: &'static str, code: Code) {
        *self.inner().refusals.entry((call, code as i32)).or_default() += 1;
    }

    /// Bytes went through a container's pipe.
    pub fn stdio(&self, pipe: Pipe, bytes: usize) {
        self.counter(pipe)
            .fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
    }

    /// Bytes that went through a pipe so far.
    pub fn stdio_bytes(&self, pipe: Pipe) -> u64 {
        self.counter(pipe).load(Ordering::Relaxed)
    }

    fn counter(&self, pipe: Pipe) -> &AtomicU64 {
        let [stdin, stdout, stderr] = &self.stdio;
        match pipe {
            Pipe::Stdin => stdin,
            Pipe::Stdout => stdout,
            Pipe::Stderr => stderr,
        }
    }

    pub(super) fn render(&self, page: &mut Page) {
        let inner = self.inner();
        page.family(
            "cella_stage_duration_seconds",
            Kind::Gauge,
            "How long a stage took by the host's clock: sandbox-launch from Create to a VM with a network, pod-schedule-to-ready from \
             the shim's start to the first running container.",
        );
        for (stage, took) in &inner.stages {
            page.sample(&[("stage", stage.as_str())], seconds(*took));
        }
        page.family(
            "cella_containers_running",
            Kind::Gauge,
            "Containers whose process runs.",
        )
        .sample(&[], inner.running);
        page.family(
            "cella_containers_created_total",
            Kind::Counter,
            "Containers that were created.",
        )
        .sample(&[], inner.created);
        page.family(
            "cella_container_restarts_total",
            Kind::Counter,
            "Containers that were created again under a name that the pod had before.",
        )
        .sample(&[], inner.restarts);
        page.family(
            "cella_container_exits_total",
            Kind::Counter,
            "Ends of containers by outcome.",
        );
        for (outcome, ends) in &inner.exits {
            page.sample(&[("outcome", outcome)], ends);
        }
        page.family(
            "cella_execs_total",
            Kind::Counter,
            "Further processes that were started in containers.",
        )
        .sample(&[], inner.topics.get(EXEC_STARTED).copied().unwrap_or(0));
        page.family(
            "cella_task_events_total",
            Kind::Counter,
            "Events for containerd by topic.",
        );
        for (topic, events) in &inner.topics {
            page.sample(&[("topic", topic)], events);
        }
        page.family(
            "cella_refusals_total",
            Kind::Counter,
            "Failed requests of containerd by call and gRPC code; a denial by the pod's policy is PERMISSION_DENIED.",
        );
        for ((call, code), times) in &inner.refusals {
            let code = <Code as protobuf::Enum>::from_i32(*code).unwrap_or(Code::UNKNOWN);
            page.sample(&[("call", call), ("code", &format!("{code:?}"))], times);
        }
        page.family(
            "cella_guest_events_total",
            Kind::Counter,
            "The agent's events by kind. The guest's word.",
        );
        for (kind, events) in &inner.guest_events {
            page.sample(&[("kind", kind)], events);
        }
        drop(inner);
        page.family(
            "cella_stdio_bytes_total",
            Kind::Counter,
            "Bytes through containers' pipes.",
        );
        for (pipe, name) in [
            (Pipe::Stdin, "stdin"),
            (Pipe::Stdout, "stdout"),
            (Pipe::Stderr, "stderr"),
        ] {
            page.sample(&[("pipe", name)], self.stdio_bytes(pipe));
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stage {
    fn as_str(self) -> &'static str {
        match self {
            Self::SandboxLaunch => "sandbox-launch",
            Self::PodReady => "pod-schedule-to-ready",
        }
    }
}

const EXEC_STARTED: &str = "/tasks/exec-started";

fn count(map: &mut BTreeMap<String, u64>, key: &str) {
    if let Some(times) = map.get_mut(key) {
        *times += 1;
    } else if map.len() < MAX_KEYS {
        map.insert(key.to_owned(), 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(metrics: &Metrics) -> String {
        let mut page = Page::default();
        metrics.render(&mut page);
        page.finish()
    }

    #[test]
    fn the_second_container_of_a_name_is_a_restart() {
        let metrics = Metrics::new();
        for name in ["a", "b", "a", "", ""] {
            metrics.container_created(name);
        }
        let text = rendered(&metrics);
        assert!(text.contains("\ncella_containers_created_total 5\n"), "{text}");
        assert!(text.contains("\ncella_container_restarts_total 1\n"), "{text}");
    }

    #[test]
    fn ends_are_counted_by_outcome_and_running_never_goes_below_zero() {
        let metrics = Metrics::new();
        metrics.container_started();
        for (status, was_running) in [(0, true), (1, true), (137, true), (143, true), (255, false)] {
            metrics.container_ended(status, was_running);
        }
        let text = rendered(&metrics);
        for outcome in ["success", "failure", "killed", "signal", "not-started"] {
            let line = format!("cella_container_exits_total{{outcome=\"{outcome}\"}} 1\n");
            assert!(text.contains(&line), "{text}");
        }
        assert!(text.contains("\ncella_containers_running 0\n"), "{text}");
    }

    #[test]
    fn refusals_have_call_and_code_and_stages_are_there_once_they_are_over() {
        let metrics = Metrics::new();
        metrics.launch_begins();
        assert!(!rendered(&metrics).contains("stage=\"sandbox-launch\""));
        metrics.launch_ends();
        metrics.container_started();
        metrics.refused("Create", Code::PERMISSION_DENIED);
        metrics.task_event(EXEC_STARTED);
        metrics.stdio(Pipe::Stdout, 7);
        let text = rendered(&metrics);
        for line in [
            "cella_refusals_total{call=\"Create\",code=\"PERMISSION_DENIED\"} 1\n",
            "cella_execs_total 1\n",
            "cella_stdio_bytes_total{pipe=\"stdout\"} 7\n",
            "cella_stage_duration_seconds{stage=\"sandbox-launch\"} 0.",
            "cella_stage_duration_seconds{stage=\"pod-schedule-to-ready\"} 0.",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn peers_cannot_make_it_grow_without_bound() {
        let metrics = Metrics::new();
        for n in 0..1000 {
            metrics.task_event(&format!("/t/{n}"));
            metrics.container_created(&format!("c{n}"));
            metrics.guest_event(&format!("k{n}"));
        }
        let text = rendered(&metrics);
        assert_eq!(text.matches("cella_task_events_total{").count(), MAX_KEYS);
        assert!(text.contains("cella_guest_events_total{kind=\"other\"} 1000\n"));
    }
}
