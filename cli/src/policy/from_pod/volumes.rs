//! A pod's volumes: which the guest has in its own memory, which come from the host, and which cannot be kept from it.

use std::collections::BTreeMap;

use super::objects::Context;
use super::pod::list;
use super::refusal::PodError;
use super::yaml::Node;
use super::{Accepted, field};

/// A volume of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Volume {
    /// As the policy calls it.
    pub(super) kind: &'static str,
    /// Files that it must have, where the file says: path and content.
    pub(super) files: Option<Vec<(String, String)>>,
}

/// The pod's volumes by name.
pub(super) fn read(
    spec: &Node,
    context: &Context<'_>,
    accepted: &mut Accepted,
) -> Result<BTreeMap<String, Volume>, PodError> {
    let mut volumes = BTreeMap::new();
    for node in list(spec, "volumes")? {
        let name = field(node, "name", "volumes")?.text()?;
        volumes.insert(name.to_owned(), one(node, name, context, accepted)?);
    }
    Ok(volumes)
}

fn one(node: &Node, name: &str, context: &Context<'_>, accepted: &mut Accepted) -> Result<Volume, PodError> {
    let at = |kind: &str| format!("volume {name:?} {kind}");
    let mut sources = node.entries()?.iter().filter(|(key, _)| key != "name");
    // Kubernetes: a volume without a source is an emptyDir.
    let Some((kind, source)) = sources.next() else {
        return Ok(EMPTY_DIR);
    };
    let chosen = |why: &str, accepted: &mut Accepted, kind: &'static str| {
        if accepted.takes(&format!("volume/{name}")) {
            return Ok(Volume { kind, files: None });
        }
        Err(PodError::HostsChoice {
            line: source.line,
            field: at(kind),
            why: why.to_owned(),
            accept: format!("volume/{name}"),
        })
    };
    match kind.as_str() {
        "emptyDir" => empty_dir(source, &at("emptyDir")),
        "configMap" => match config_map(source, context)? {
            Some(files) => Ok(Volume {
                kind: "config-map",
                files: Some(files),
            }),
            None => chosen(
                "the ConfigMap is not in this file, where it would be pinned",
                accepted,
                "config-map",
            ),
        },
        "secret" => chosen(
            "the host reads the Secret, and can put another in its place",
            accepted,
            "secret",
        ),
        "projected" => chosen("the host writes its files, tokens among them", accepted, "projected"),
        "downwardAPI" => chosen("the host writes its files", accepted, "downward-api"),
        "hostPath" => Err(PodError::secret_for_nobody(
            source,
            at(kind),
            "it is a folder of the host",
        )),
        "image" => Err(PodError::secret_for_nobody(
            source,
            at(kind),
            "the host would mount the image; models are sealed artifacts that the agent mounts",
        )),
        other => Err(PodError::secret_for_nobody(
            source,
            at(other),
            "the guest would have to mount a file system that the host can read and change",
        )),
    }
}

fn empty_dir(source: &Node, at: &str) -> Result<Volume, PodError> {
    if let Some(medium) = source.get("medium") {
        let text = medium.text()?;
        if !["", "Memory"].contains(&text) {
            return Err(PodError::value(medium, format!("{at} medium"), text, "\"\" or Memory"));
        }
    }
    Ok(EMPTY_DIR)
}

/// The files of a ConfigMap that is in this file; `None` where it is not, or where files of it are binary.
fn config_map(source: &Node, context: &Context<'_>) -> Result<Option<Vec<(String, String)>>, PodError> {
    let name = field(source, "name", "configMap")?.text()?;
    let Some(map) = context.config_maps.get(name) else {
        return Ok(None);
    };
    if map.get("binaryData").is_some() {
        return Ok(None);
    }
    let data = map.get("data").map(Node::entries).transpose()?.unwrap_or_default();
    let content = |key: &str| data.iter().find(|(name, _)| name == key).map(|(_, value)| value);
    let mut files = Vec::new();
    match source.get("items") {
        None => {
            for (key, value) in data {
                files.push((key.clone(), value.text()?.to_owned()));
            }
        }
        Some(items) => {
            for item in items.items()? {
                let (key, path) = (
                    field(item, "key", "configMap items")?,
                    field(item, "path", "configMap items")?,
                );
                let value = content(key.text()?).ok_or_else(|| {
                    PodError::value(key, "configMap items key", key.text().unwrap_or(""), "a key of it")
                })?;
                files.push((path.text()?.to_owned(), value.text()?.to_owned()));
            }
        }
    }
    Ok(Some(files))
}

const EMPTY_DIR: Volume = Volume {
    kind: "empty-dir",
    files: None,
};
