//! The objects of a file: the workload whose pod is wanted, and what its pod refers to.

use std::collections::BTreeMap;

use super::refusal::PodError;
use super::yaml::Node;

/// A pod, wherever it stands: by itself or as the template of something that makes pods.
#[derive(Debug)]
pub(super) struct Workload<'y> {
    /// `Pod`, `Deployment`, …
    pub(super) kind: String,
    pub(super) name: String,
    /// The pod's metadata, if it has any.
    pub(super) metadata: Option<&'y Node>,
    pub(super) namespace: Option<String>,
    pub(super) spec: &'y Node,
}

impl Workload<'_> {
    /// The pod's name, where it is known before there is one.
    pub(super) fn pod_name(&self) -> Option<&str> {
        (self.kind == POD && !self.name.is_empty()).then_some(&self.name)
    }
}

/// What else is in the file.
#[derive(Debug, Default)]
pub(super) struct Context<'y> {
    /// ConfigMaps by name.
    pub(super) config_maps: BTreeMap<String, &'y Node>,
    /// Names of Services.
    pub(super) services: Vec<String>,
    /// Objects that say nothing about a pod: kind, name, line.
    pub(super) ignored: Vec<(String, String, usize)>,
}

/// Finds the workload of that name (`NAME` or `KIND/NAME`), or the only one.
pub(super) fn find<'y>(documents: &'y [Node], wanted: Option<&str>) -> Result<(Workload<'y>, Context<'y>), PodError> {
    let mut context = Context::default();
    let mut workloads = Vec::new();
    for object in documents {
        collect(object, &mut workloads, &mut context, 0)?;
    }
    let names = || {
        let names = workloads
            .iter()
            .map(|one| format!("{}/{}", one.kind.to_ascii_lowercase(), one.name));
        names.collect::<Vec<_>>().join(", ")
    };
    let found = match (wanted, workloads.len()) {
        (_, 0) => return Err(PodError::NoWorkload),
        (None, 1) => Some(0),
        (None, _) => return Err(PodError::Several { names: names() }),
        (Some(wanted), _) => workloads
            .iter()
            .position(|one| one.name == wanted || format!("{}/{}", one.kind, one.name).eq_ignore_ascii_case(wanted)),
    };
    match found {
        Some(index) => Ok((workloads.swap_remove(index), context)),
        None => Err(PodError::Unknown {
            name: wanted.unwrap_or_default().to_owned(),
            names: names(),
        }),
    }
}

fn collect<'y>(
    object: &'y Node,
    workloads: &mut Vec<Workload<'y>>,
    context: &mut Context<'y>,
    depth: usize,
) -> Result<(), PodError> {
    let Some(kind) = object.get("kind") else {
        // A document of comments alone.
        return Ok(());
    };
    let kind = kind.text()?;
    let of_metadata = |key| object.at(&["metadata", key]).map(Node::word).transpose();
    let name = of_metadata("name")?.unwrap_or_default().to_owned();
    if kind == "List" && depth == 0 {
        for item in object.get("items").map(Node::items).transpose()?.unwrap_or_default() {
            collect(item, workloads, context, 1)?;
        }
        return Ok(());
    }
    let way: &[&str] = match kind {
        POD => &[],
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job" => &["spec", "template"],
        "CronJob" => &["spec", "jobTemplate", "spec", "template"],
        "ConfigMap" => {
            context.config_maps.insert(name, object);
            return Ok(());
        }
        "Service" => {
            context.services.push(name);
            return Ok(());
        }
        other => {
            context.ignored.push((other.to_owned(), name, object.line));
            return Ok(());
        }
    };
    let template = object.at(way).unwrap_or(object);
    let spec = template
        .get("spec")
        .filter(|_| object.at(way).is_some())
        .ok_or_else(|| PodError::missing(object, format!("the pod's spec of {kind} {name:?}")))?;
    workloads.push(Workload {
        kind: kind.to_owned(),
        name,
        metadata: template.get("metadata"),
        namespace: of_metadata("namespace")?.map(str::to_owned),
        spec,
    });
    Ok(())
}

const POD: &str = "Pod";
