//! The users that the images with a given chain of layers name, as containerd's content store tells.
//!
//! containerd labels an image's configuration with the chain of its layers when it has unpacked them, before a container is made
//! from it. So the configurations are found by the label, and with them every `User` that containerd may look up next.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use slog::{Logger, info};

use crate::containerd::{Client, ContainerdError};

/// containerd waits for our answer, and a client for containerd's.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest image configuration that is read, in bytes.
const MAX_CONFIG: usize = 1 << 20;

/// Where to ask.
#[derive(Clone)]
pub(super) struct Lookup {
    socket: PathBuf,
    log: Logger,
}

impl Lookup {
    pub(super) fn new(socket: &Path, log: Logger) -> Self {
        Self {
            socket: socket.to_owned(),
            log,
        }
    }

    /// The `User` of each image on `parent`, in the namespace that `key` names. Never fails: without an answer within a second
    /// there are just no further names.
    pub(super) async fn users(&self, snapshotter: &str, key: &str, parent: &str) -> Vec<String> {
        let (Some(namespace), Some(chain)) = (namespace(key), chain(parent)) else {
            return Vec::new();
        };
        let asked = tokio::time::timeout(PATIENCE, ask(&self.socket, namespace, snapshotter, chain));
        let failure = match asked.await {
            Ok(Ok(users)) => return users,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer within a second".to_owned(),
        };
        info!(self.log, "containerd does not say which users its images name"; "layer" => chain, "why" => failure);
        Vec::new()
    }
}

async fn ask(socket: &Path, namespace: &str, snapshotter: &str, chain: &str) -> Result<Vec<String>, ContainerdError> {
    let mut client = Client::connect(socket, namespace).await?;
    let label = format!("containerd.io/gc.ref.snapshot.{snapshotter}");
    let mut users = Vec::new();
    for digest in client.labelled(&label, chain).await? {
        let blob = client.read(&digest, MAX_CONFIG).await?;
        users.extend(user_of(&blob));
    }
    Ok(users)
}

fn user_of(config: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Image {
        config: Config,
    }
    #[derive(Deserialize)]
    struct Config {
        #[serde(rename = "User", default)]
        user: Option<String>,
    }
    let image: Image = serde_json::from_slice(config).ok()?;
    image.config.user.filter(|user| !user.is_empty())
}

/// containerd's keys are `<namespace>/<number>/<the client's key>`.
fn namespace(key: &str) -> Option<&str> {
    let mut parts = key.splitn(3, '/');
    let namespace = parts.next().filter(|name| !name.is_empty())?;
    parts.nth(1).map(|_| namespace)
}

/// The chain id in a layer's name: the name itself, or the last part of a key.
fn chain(parent: &str) -> Option<&str> {
    let name = parent.rsplit('/').next().unwrap_or(parent);
    let name = name.split('+').next().unwrap_or(name);
    name.starts_with("sha256:").then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_parents_are_taken_apart() {
        assert_eq!(namespace("k8s.io/12/abc"), Some("k8s.io"));
        assert_eq!(namespace("abc"), None);
        assert_eq!(namespace("a/b"), None);
        assert_eq!(chain("sha256:00"), Some("sha256:00"));
        assert_eq!(chain("default/3/sha256:00"), Some("sha256:00"));
        assert_eq!(chain("sha256:00+1234"), Some("sha256:00"));
        assert_eq!(chain("abc"), None);
    }

    #[test]
    fn the_user_of_a_configuration() {
        assert_eq!(user_of(br#"{"config":{"User":"www"}}"#).as_deref(), Some("www"));
        for none in [&br#"{"config":{}}"#[..], br#"{"config":{"User":""}}"#, b"{}", b"x"] {
            assert_eq!(user_of(none), None);
        }
    }

    #[tokio::test]
    async fn without_containerd_there_are_no_names_and_no_failure() {
        let lookup = Lookup::new(Path::new("/nonexistent.sock"), Logger::root(slog::Discard, slog::o!()));
        assert!(lookup.users("cella", "k8s.io/1/x", "sha256:00").await.is_empty());
    }
}
