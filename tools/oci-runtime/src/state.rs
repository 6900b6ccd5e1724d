//! A container's folder: its state as a file, and the way to its keeper.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

/// The state of the runtime specification.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State {
    pub(crate) oci_version: String,
    pub(crate) id: String,
    pub(crate) status: Status,
    /// The program's process, or the keeper's before the start: the program has none then.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) pid: u32,
    pub(crate) bundle: PathBuf,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Created,
    Running,
    Stopped,
}

/// A container's folder below `--root`.
#[derive(Clone, Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn make(root: &Path, id: &str) -> anyhow::Result<Self> {
        let folder = Self::named(root, id)?;
        fs::create_dir_all(root).with_context(|| format!("making {}", root.display()))?;
        fs::create_dir(&folder.0).with_context(|| format!("making container {id:?}"))?;
        Ok(folder)
    }

    pub(crate) fn find(root: &Path, id: &str) -> anyhow::Result<Self> {
        let folder = Self::named(root, id)?;
        ensure!(folder.0.is_dir(), "container {id:?} does not exist");
        Ok(folder)
    }

    fn named(root: &Path, id: &str) -> anyhow::Result<Self> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        ensure!(
            id.starts_with(|c: char| c.is_ascii_alphanumeric()) && id.chars().all(plain),
            "{id:?} is no container's name"
        );
        Ok(Self(root.join(id)))
    }

    pub(crate) fn root(&self) -> &Path {
        self.0.parent().unwrap_or(&self.0)
    }

    /// Where the launcher makes the container's file systems.
    pub(crate) fn mounts(&self) -> PathBuf {
        self.0.join("mounts")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("keeper")
    }

    /// Where the keeper tells that the container is there.
    pub(crate) fn ready(&self) -> PathBuf {
        self.0.join("ready")
    }

    pub(crate) fn state(&self) -> anyhow::Result<State> {
        let path = self.0.join("state.json");
        let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// At once or not at all, since others read it at any time.
    pub(crate) fn set_state(&self, state: &State) -> anyhow::Result<()> {
        let (new, path) = (self.0.join("state.new"), self.0.join("state.json"));
        fs::write(&new, serde_json::to_vec(state)?)?;
        fs::rename(&new, &path).with_context(|| format!("writing {}", path.display()))
    }

    /// Has the keeper do something.
    pub(crate) fn ask(&self, what: &str) -> anyhow::Result<()> {
        let mut keeper = UnixStream::connect(self.socket()).context("reaching the container's keeper")?;
        writeln!(keeper, "{what}")?;
        let mut answer = String::new();
        BufReader::new(keeper).read_line(&mut answer)?;
        match answer.trim_end() {
            "ok" => Ok(()),
            "" => bail!("the keeper ended"),
            other => bail!("{other}"),
        }
    }

    pub(crate) fn remove(&self) {
        // What is left is of no use to anybody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `9`, `KILL` or `SIGKILL`.
pub(crate) fn signal(text: &str) -> Option<i32> {
    let named = || {
        let name = format!("SIG{}", text.to_ascii_uppercase().trim_start_matches("SIG"));
        name.parse::<Signal>().ok().map(|signal| signal as i32)
    };
    text.parse().ok().or_else(named)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        assert_eq!(
            [signal("9"), signal("KILL"), signal("SIGTERM")],
            [Some(9), Some(9), Some(15)]
        );
        assert_eq!(signal("NOTHING"), None);
    }

    #[test]
    fn a_name_stays_below_the_root() {
        for bad in ["", "..", "a/b", "-x"] {
            assert!(Folder::named(Path::new("/r"), bad).is_err(), "{bad:?}");
        }
        assert!(Folder::named(Path::new("/r"), "a-1.b_c").is_ok());
    }
}
