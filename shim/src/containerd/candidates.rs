//! The images that a container may be made from, by manifest digest.
//!
//! cella-snapshotter names the images that a *layer* was asked for. containerd asks once: a tag that has moved to a manifest with
//! the same plain layers, as after an image was encrypted again, is not asked for again. containerd itself knows what the tag
//! stands for now, so its word comes first. Which candidate runs is decided in the guest, by the policy's digest.

use std::path::Path;

use serde::Deserialize;

use super::{Client, ContainerdError, Descriptor};
use crate::container_spec::{ImageError, MAX_IMAGES};
use crate::snapshotter::image::ImageName;

/// Longest index that is read, in bytes.
const MAX_INDEX: usize = 4 << 20;

/// The image of `container` by containerd's records, `repository@digest`; with what it was called in the pod, where that is
/// another. At most two, the pod's first.
///
/// # Errors
/// See [`ContainerdError`]. The caller bounds the time: containerd may be waiting for the caller.
pub async fn candidates(
    socket: &Path,
    namespace: &str,
    container: &str,
    called: Option<&str>,
) -> Result<Vec<String>, ContainerdError> {
    let mut client = Client::connect(socket, namespace).await?;
    let own = client.image_of(container).await?;
    let called = called.map(full_name).filter(|name| !name.is_empty() && *name != own);
    let mut found: Vec<String> = Vec::new();
    for name in called.into_iter().chain((!own.is_empty()).then_some(own)) {
        match digest_of(&mut client, &name).await {
            Ok(Some(image)) if !found.contains(&image) => found.push(image),
            Ok(_) => {}
            // What a pod calls its image need not be a name in containerd.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// `first`, then what the snapshotter offers, each once and at most [`MAX_IMAGES`].
///
/// # Errors
/// The snapshotter's, unless there is a candidate without it and it just offers none.
pub fn merge(first: Vec<String>, offered: Result<Vec<String>, ImageError>) -> Result<Vec<String>, ImageError> {
    let offered = match offered {
        Err(ImageError::None) if !first.is_empty() => Vec::new(),
        offered => offered?,
    };
    let mut all = first;
    for image in offered {
        if !all.contains(&image) {
            all.push(image);
        }
    }
    all.truncate(MAX_IMAGES);
    Ok(all)
}

async fn digest_of(client: &mut Client, name: &str) -> Result<Option<String>, ContainerdError> {
    let target = client.target_of(name).await?;
    let digest = if is_index(&target) {
        let index = client.read(&target.digest, MAX_INDEX).await?;
        let index: Index = serde_json::from_slice(&index).map_err(|_| ContainerdError::Invalid {
            call: "Content.Read",
            what: "not an image index",
        })?;
        index.manifest_for_this_machine()
    } else {
        Some(target.digest)
    };
    Ok(digest
        .and_then(|digest| ImageName::new(name, &digest).ok())
        .map(String::from))
}

fn is_index(target: &Descriptor) -> bool {
    matches!(
        target.media_type.as_str(),
        "application/vnd.oci.image.index.v1+json" | "application/vnd.docker.distribution.manifest.list.v2+json"
    )
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    digest: String,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

impl Index {
    fn manifest_for_this_machine(self) -> Option<String> {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let fits = |entry: &Entry| {
            let platform = entry.platform.as_ref();
            platform.is_some_and(|platform| platform.os == "linux" && platform.architecture == architecture)
        };
        match self.manifests.iter().position(fits) {
            Some(position) => self.manifests.into_iter().nth(position),
            // An index of one that says nothing of platforms.
            None if self.manifests.len() == 1 => self.manifests.into_iter().find(|entry| entry.platform.is_none()),
            None => None,
        }
        .map(|entry| entry.digest)
    }
}

/// A reference as containerd stores it: `busybox` is `docker.io/library/busybox:latest`.
fn full_name(reference: &str) -> String {
    let (host, path) = match reference.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path.to_owned()),
        Some(_) => ("docker.io", reference.to_owned()),
        None if reference.is_empty() || reference.starts_with("sha256:") => return String::new(),
        None => ("docker.io", format!("library/{reference}")),
    };
    if path.contains([':', '@']) {
        format!("{host}/{path}")
    } else {
        format!("{host}/{path}:latest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_containerd_does() {
        for (short, full) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("team/app", "docker.io/team/app:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("127.0.0.1:5000/app:1", "127.0.0.1:5000/app:1"),
            ("registry.k8s.io/pause@sha256:00", "registry.k8s.io/pause@sha256:00"),
            ("sha256:00", ""),
            ("", ""),
        ] {
            assert_eq!(full_name(short), full);
        }
    }

    #[test]
    fn containerds_word_comes_first_and_nothing_twice() {
        let list = |all: &[&str]| all.iter().map(|image| (*image).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            merge(list(&["new"]), Ok(list(&["old", "new"]))).unwrap(),
            ["new", "old"]
        );
        assert_eq!(merge(list(&["new"]), Err(ImageError::None)).unwrap(), ["new"]);
        assert_eq!(merge(list(&[]), Ok(list(&["old"]))).unwrap(), ["old"]);
        assert_eq!(merge(list(&[]), Err(ImageError::None)), Err(ImageError::None));
        assert_eq!(
            merge(list(&["new"]), Err(ImageError::TooMany)),
            Err(ImageError::TooMany)
        );
        let many: Vec<_> = (0..MAX_IMAGES).map(|n| n.to_string()).collect();
        assert_eq!(merge(list(&["new"]), Ok(many)).unwrap().len(), MAX_IMAGES);
    }

    #[test]
    fn an_index_gives_the_manifest_of_this_machine() {
        let pick = |json: &str| serde_json::from_str::<Index>(json).unwrap().manifest_for_this_machine();
        let entry = |digest: &str, os: &str, architecture: &str| {
            format!(r#"{{"digest":"{digest}","platform":{{"os":"{os}","architecture":"{architecture}"}}}}"#)
        };
        let all = [
            entry("a", "windows", "amd64"),
            entry("b", "linux", "s390x"),
            entry("c", "linux", "amd64"),
            entry("d", "linux", "arm64"),
            entry("e", "unknown", "unknown"),
        ];
        let expected = if cfg!(target_arch = "aarch64") { "d" } else { "c" };
        assert_eq!(
            pick(&format!(r#"{{"manifests":[{}]}}"#, all.join(","))).as_deref(),
            Some(expected)
        );
        assert_eq!(pick(r#"{"manifests":[{"digest":"x"}]}"#).as_deref(), Some("x"));
        assert_eq!(pick(r#"{"manifests":[{"digest":"x"},{"digest":"y"}]}"#), None);
        assert_eq!(pick("{}"), None);
    }
}
