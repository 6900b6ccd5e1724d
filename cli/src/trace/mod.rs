//! `cellactl trace`: a pod's way from containerd's request to running containers, as a trace for Chrome, Perfetto and Speedscope.
//!
//! The shim tells its steps by its own clock, the guest its stages by the guest's. Both are asked once; the moment at which each says
//! what its clock shows lies between the question and the answer, so their distance is known to half of that time, which the trace
//! names. A guest's clock that runs faster or slower than the host's shows as stages that end outside of the host's steps.

mod chrome;
mod picture;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use cella_protos::agent::{StatusRequest, StatusResponse};
use serde::Deserialize;

use self::chrome::{Clock, Span};
use crate::files::{self, FileError};
use crate::node::{self, NodeArgs, NodeError, ScrapeError};
use crate::status::{ConnectError, agent_of};

/// `cellactl trace`.
#[derive(Debug, clap::Args)]
pub(crate) struct TraceArgs {
    /// The pod on this node: its name, namespace/name, sandbox id or the beginning of it.
    pod: String,
    #[command(flatten)]
    node: NodeArgs,
    /// Writes the trace to a file, for chrome://tracing or <https://ui.perfetto.dev>, and prints a summary instead.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Draws it, the critical path outlined, into a file (SVG), and prints a summary instead.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

/// Asks shim and guest.
pub(crate) async fn run(args: &TraceArgs) -> Result<String, TraceError> {
    let pod = args.node.pod(&args.pod)?;
    let asked = Instant::now();
    let answer = node::ask(&pod.dir, "/trace").await?;
    let host = Host::parse(&answer, Clock::read(asked))?;
    let agent = agent_of(&pod).await?;
    let asked = Instant::now();
    let context = ttrpc::context::with_duration(TIMEOUT);
    let status = agent.status(context, &StatusRequest::new()).await;
    let status = status.map_err(|source| TraceError::Agent {
        source: Box::new(source),
    })?;
    let clock = Clock::read(asked);
    let trace = chrome::Trace {
        pod: pod.dir_name,
        host: host.spans,
        host_clock: host.clock,
        guest: guest_spans(&status),
        guest_clock: clock.showing(status.now_us),
    };
    let json = trace.render();
    if let Some(path) = &args.out {
        files::write(path, json.as_bytes())?;
    }
    if let Some(path) = &args.picture {
        files::write(path, picture::render(&trace).as_bytes())?;
    }
    if args.out.is_none() && args.picture.is_none() {
        return Ok(json);
    }
    Ok(trace.summary())
}

/// What a shim says.
struct Host {
    clock: Clock,
    spans: Vec<Span>,
}

#[derive(Deserialize)]
struct HostAnswer {
    now_us: u64,
    spans: Vec<HostSpan>,
}

#[derive(Deserialize)]
struct HostSpan {
    name: String,
    subject: String,
    start_us: u64,
    end_us: Option<u64>,
}

impl Host {
    fn parse(answer: &str, read: Clock) -> Result<Self, TraceError> {
        let answer: HostAnswer = serde_json::from_str(answer).map_err(|source| TraceError::Form { source })?;
        let spans = answer.spans.into_iter().take(MAX_SPANS).map(|span| Span {
            name: span.name,
            subject: span.subject,
            start_us: span.start_us,
            end_us: span.end_us,
            failure: String::new(),
        });
        Ok(Self {
            clock: read.showing(answer.now_us),
            spans: spans.collect(),
        })
    }
}

fn guest_spans(status: &StatusResponse) -> Vec<Span> {
    let spans = status.stages.iter().take(MAX_SPANS).map(|stage| Span {
        name: stage.name.clone(),
        subject: stage.subject.clone(),
        start_us: stage.start_us,
        end_us: (stage.end_us != 0).then_some(stage.end_us),
        failure: stage.failure.clone(),
    });
    spans.collect()
}

/// Why there is no trace.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TraceError {
    /// No such pod.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The shim does not answer, or is of a version without traces.
    #[error("the pod's shim tells no steps")]
    Shim(#[from] ScrapeError),
    /// Something else answers there.
    #[error("the shim's answer is not a list of steps")]
    Form { source: serde_json::Error },
    /// The way to the agent.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The agent itself.
    #[error("the agent does not answer")]
    Agent { source: Box<ttrpc::Error> },
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
}

const TIMEOUT: Duration = Duration::from_secs(10);
/// Spans of either side that are looked at.
const MAX_SPANS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shims_answer_is_read_and_anything_else_refused() {
        let clock = || Clock::read(Instant::now());
        let text = r#"{"now_us": 10, "spans": [{"name": "qemu", "subject": "", "start_us": 1, "end_us": null}]}"#;
        let host = Host::parse(text, clock()).unwrap();
        assert_eq!(host.spans.len(), 1);
        assert_eq!(host.spans[0].end_us, None);
        for bad in [
            "",
            "[]",
            r#"{"now_us": -1, "spans": []}"#,
            r#"{"now_us": 1, "spans": [{"name": 1}]}"#,
        ] {
            assert!(
                matches!(Host::parse(bad, clock()), Err(TraceError::Form { .. })),
                "{bad}"
            );
        }
    }
}
