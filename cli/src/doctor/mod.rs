//! `cellactl doctor`: whether this node can run Cella's pods, and what to do where it cannot.
//!
//! One line a check: `ok`, `warning` (it works, or will not matter for this configuration, but look at it) or `failed` (pods
//! will not start), with the remedy below it. Nothing is changed; the one trial that makes something, of the kernel's traffic
//! control, does so in a network namespace of its own. Each check is a small struct behind [`Check`] and sees the machine only
//! through [`Host`], so that tests can show it any machine.

mod containerd;
mod facts;
mod guest;
mod host;
mod kernel;
mod limits;
mod network;
mod platform;
mod programs;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde_json::json;

use self::facts::Facts;
use self::host::Host;

/// `cellactl doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// The shim's configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/cella/config.toml")]
    config: PathBuf,
    /// containerd's configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/containerd/config.toml")]
    containerd_config: PathBuf,
    /// Published digests of the guest image, as `cellactl doctor --json` shows them or `sha256sum vmlinuz initrd cmdline` prints.
    #[arg(long, value_name = "FILE")]
    reference: Option<PathBuf>,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// One question about the node.
trait Check {
    /// What it is about, in a word or two.
    fn name(&self) -> &'static str;
    /// Looks.
    fn run(&self, host: &Host, facts: &Facts) -> Finding;
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    level: Level,
    /// What was seen.
    what: String,
    /// What to do; empty where nothing is.
    remedy: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Ok,
    Warning,
    Failed,
}

impl Finding {
    fn ok(what: impl Into<String>) -> Self {
        Self::of(Level::Ok, what, "")
    }

    fn warning(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::of(Level::Warning, what, remedy)
    }

    fn failed(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::of(Level::Failed, what, remedy)
    }

    fn of(level: Level, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            level,
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// Every check, in the order in which a node is set up.
fn checks(reference: Option<PathBuf>) -> Vec<Box<dyn Check>> {
    vec![
        Box::new(programs::Shim),
        Box::new(programs::ShimConfig),
        Box::new(platform::Kvm),
        Box::new(platform::Tee),
        Box::new(platform::Firmware),
        Box::new(programs::QemuVersion),
        Box::new(programs::QemuObjects),
        Box::new(guest::Image),
        Box::new(guest::Digest { reference }),
        Box::new(kernel::Vsock),
        Box::new(kernel::Tun),
        Box::new(network::TrafficControl),
        Box::new(kernel::VhostNet),
        Box::new(containerd::Version),
        Box::new(containerd::Runtimes),
        Box::new(containerd::ProxyPlugin),
        Box::new(containerd::SnapshotAnnotations),
        Box::new(containerd::SnapshotterAnswers),
        Box::new(containerd::OomScore),
        Box::new(limits::Cgroups),
        Box::new(limits::RunDir),
        Box::new(limits::Memory),
        Box::new(limits::Disk),
    ]
}

/// Prints the findings. An error when one has failed, so that the exit status says so.
pub(crate) fn run(args: &DoctorArgs) -> Result<String, DoctorError> {
    let host = Host::real();
    let whole = |path: &Path| std::path::absolute(path).map_err(|source| DoctorError::Path { source });
    let facts = Facts::gather(&host, &whole(&args.config)?, &whole(&args.containerd_config)?);
    let reference = args.reference.as_deref().map(whole).transpose()?;
    let findings: Vec<_> = checks(reference)
        .iter()
        .map(|check| (check.name(), check.run(&host, &facts)))
        .collect();
    let text = if args.json {
        to_json(&findings)
    } else {
        to_text(&findings)
    };
    let failed = findings
        .iter()
        .filter(|(_, finding)| finding.level == Level::Failed)
        .count();
    if failed == 0 {
        return Ok(text);
    }
    let mut out = io::stdout().lock();
    // Without a reader the exit status is all there is.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    Err(DoctorError::Failed { failed })
}

fn to_text(findings: &[(&'static str, Finding)]) -> String {
    let width = findings.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for (name, finding) in findings {
        let what = crate::terminal::escaped(&finding.what, MAX_TEXT);
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{:<8} {name:<width$}  {what}", finding.level.as_str());
        if !finding.remedy.is_empty() {
            let _ = writeln!(out, "{:8} {:<width$}  → {}", "", "", finding.remedy);
        }
    }
    out
}

fn to_json(findings: &[(&'static str, Finding)]) -> String {
    let list: Vec<_> = findings
        .iter()
        .map(|(name, finding)| {
            json!({ "check": name, "level": finding.level.as_str(), "what": finding.what, "remedy": finding.remedy })
        })
        .collect();
    format!("{:#}\n", json!(list))
}

/// Why the exit status is not 0.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DoctorError {
    /// The node cannot run pods.
    #[error("{failed} of the checks failed")]
    Failed { failed: usize },
    /// Relative to nowhere.
    #[error("the working directory is gone")]
    Path { source: io::Error },
}

const MAX_TEXT: usize = 400;

#[cfg(test)]
mod tests;
