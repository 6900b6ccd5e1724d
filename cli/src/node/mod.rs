//! The pods of this node, as the shims' run directories tell of them.
//!
//! The directories belong to root and to the shims; what is in them may still be half made, of another version, or hold what a
//! guest wrote. Everything is read with a bound, nothing is followed or believed, and one bad directory hides no other.

mod scrape;
mod state;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use self::scrape::{ScrapeError, ask, scrape};
pub(crate) use self::state::{Phase, State, StateError};
use crate::files::{self, MAX_TEXT};

/// Where the run directories are.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct NodeArgs {
    /// Parent of the run directories, in place of the configuration's run-dir.
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// The shim's configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/cella/config.toml")]
    config: PathBuf,
}

/// A run directory.
#[derive(Debug)]
pub(crate) struct Pod {
    /// Where.
    pub(crate) dir: PathBuf,
    /// Its name, made printable.
    pub(crate) dir_name: String,
    /// What its state file says.
    pub(crate) state: Result<State, StateError>,
}

impl NodeArgs {
    /// The parent of the run directories.
    pub(crate) fn run_dir(&self) -> PathBuf {
        let configured = || {
            let text = files::read_text(&self.config, MAX_TEXT).ok()?;
            let table: toml::Table = text.parse().ok()?;
            table.get("run-dir")?.as_str().map(PathBuf::from)
        };
        // A configuration that is not there or does not parse is the doctor's business.
        self.run_dir
            .clone()
            .or_else(configured)
            .unwrap_or_else(|| PathBuf::from(DEFAULT_RUN_DIR))
    }

    /// Every pod, in the order of the directories' names.
    pub(crate) fn pods(&self) -> Result<Vec<Pod>, NodeError> {
        pods(&self.run_dir())
    }

    /// The pod that `name` means: by id or the beginning of one, by pod name or namespace/name, by directory.
    pub(crate) fn pod(&self, name: &str) -> Result<Pod, NodeError> {
        let pods = self.pods()?;
        choose(pods, name)
    }
}

impl Pod {
    /// Which of its programs run, by the state file.
    pub(crate) fn phase(&self) -> Phase {
        match &self.state {
            Ok(state) => state.phase(),
            Err(StateError::Missing) => Phase::Incomplete,
            Err(_) => Phase::Unreadable,
        }
    }

    fn read(dir: PathBuf, name: &str) -> Self {
        Self {
            state: State::read(&dir),
            dir_name: crate::terminal::escaped(name, MAX_NAME),
            dir,
        }
    }
}

fn pods(parent: &Path) -> Result<Vec<Pod>, NodeError> {
    let failed = |source| NodeError::RunDir {
        path: parent.to_owned(),
        source,
    };
    let entries = match fs::read_dir(parent) {
        Ok(entries) => entries,
        // No pod has ever run.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed(source)),
    };
    let mut names = Vec::new();
    for entry in entries.take(MAX_PODS) {
        let entry = entry.map_err(failed)?;
        // Links are not followed.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names.push(entry.file_name());
        }
    }
    names.sort();
    let pod = |name: &std::ffi::OsString| Pod::read(parent.join(name), &name.to_string_lossy());
    Ok(names.iter().map(pod).collect())
}

fn choose(pods: Vec<Pod>, name: &str) -> Result<Pod, NodeError> {
    // What is exact wins over what only begins so.
    for matches in [is_exactly, begins_with] {
        let mut found: Vec<&Pod> = pods.iter().filter(|pod| matches(pod, name)).collect();
        match (found.pop(), found.is_empty()) {
            (None, _) => {}
            (Some(pod), true) => return Ok(Pod::read(pod.dir.clone(), &pod.dir_name)),
            (Some(pod), false) => {
                found.push(pod);
                return Err(NodeError::Ambiguous {
                    name: name.to_owned(),
                    dirs: found
                        .iter()
                        .map(|pod| pod.dir_name.clone())
                        .collect::<Vec<_>>()
                        .join(", "),
                });
            }
        }
    }
    Err(NodeError::Unknown { name: name.to_owned() })
}

fn is_exactly(pod: &Pod, name: &str) -> bool {
    let Ok(state) = &pod.state else {
        return pod.dir_name == name;
    };
    let whole = format!("{}/{}", state.pod_namespace, state.pod_name);
    pod.dir_name == name
        || state.id == name
        || (!state.pod_name.is_empty() && (state.pod_name == name || whole == name))
}

fn begins_with(pod: &Pod, name: &str) -> bool {
    !name.is_empty()
        && (pod.dir_name.starts_with(name) || pod.state.as_ref().is_ok_and(|state| state.id.starts_with(name)))
}

/// Why there are no pods to speak of.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum NodeError {
    /// The parent directory.
    #[error("reading {}; are you root, and is this the shim's run-dir?", path.display())]
    RunDir { path: PathBuf, source: io::Error },
    /// No such pod.
    #[error("no pod {name:?} on this node; `cellactl ps` shows those that are here")]
    Unknown { name: String },
    /// Several.
    #[error("{name:?} may mean any of {dirs}")]
    Ambiguous { name: String, dirs: String },
}

/// The shim's own default.
const DEFAULT_RUN_DIR: &str = "/run/cella";
/// Most directories that are looked at.
const MAX_PODS: usize = 4096;
/// Longest name that is shown, in characters.
const MAX_NAME: usize = 64;

#[cfg(test)]
pub(crate) mod tests;
