//! A container's environment, as the kubelet will make it: each variable exactly, or by a pattern where the cluster decides.

use super::objects::{Context, Workload};
use super::refusal::PodError;
use super::yaml::Node;
use super::{Accepted, field};

/// What is known of a variable before there is a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    /// Its value.
    Exactly(String),
    /// The form of its value.
    Form(&'static str),
}

/// The variables that the pod itself names, later ones over earlier ones.
#[derive(Debug, Default)]
pub(super) struct Environment {
    variables: Vec<(String, Known)>,
}

impl Environment {
    /// Reads `env` and `envFrom` of a container.
    pub(super) fn read(
        container: &Node,
        place: &str,
        workload: &Workload<'_>,
        context: &Context<'_>,
        accepted: &mut Accepted,
    ) -> Result<Self, PodError> {
        let mut environment = Self::default();
        for source in container
            .get("envFrom")
            .map(Node::items)
            .transpose()?
            .unwrap_or_default()
        {
            environment.all_of(source, place, context)?;
        }
        let variables = container.get("env").map(Node::items).transpose()?.unwrap_or_default();
        for variable in variables {
            let name = variable
                .get("name")
                .ok_or_else(|| PodError::missing(variable, format!("{place} env: name")))?;
            let name = name.text()?;
            let at = format!("{place} env {name}");
            let known = match (variable.get("value"), variable.get("valueFrom")) {
                (None, None) => Known::Exactly(String::new()),
                (Some(value), _) => environment.expand(value.text()?),
                (None, Some(source)) => value_from(source, &at, name, workload, context, accepted)?,
            };
            environment.set(name, known);
        }
        Ok(environment)
    }

    /// A text with `$(NAME)` in it, as the kubelet expands it. What refers to the unknown is of unknown form; what is not
    /// defined stays as it stands.
    pub(super) fn expand(&self, text: &str) -> Known {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            let (before, after) = rest.split_at(at);
            out.push_str(before);
            let after = after.get(1..).unwrap_or_default();
            if let Some(escaped) = after.strip_prefix('$') {
                out.push('$');
                rest = escaped;
                continue;
            }
            let reference = after.strip_prefix('(').and_then(|inner| inner.split_once(')'));
            match reference.map(|(name, rest)| (self.get(name), name, rest)) {
                Some((Some(Known::Exactly(value)), _, behind)) => {
                    out.push_str(value);
                    rest = behind;
                }
                Some((Some(Known::Form(_)), ..)) => return Known::Form(TEXT),
                Some((None, name, behind)) => {
                    out.push_str(&format!("$({name})"));
                    rest = behind;
                }
                None => {
                    out.push('$');
                    rest = after;
                }
            }
        }
        out.push_str(rest);
        Known::Exactly(out)
    }

    /// `NAME=value` of what is known exactly, and patterns for the rest.
    pub(super) fn split(&self) -> (Vec<String>, Vec<String>) {
        let (mut exact, mut patterns) = (Vec::new(), Vec::new());
        for (name, known) in &self.variables {
            match known {
                Known::Exactly(value) => exact.push(format!("{name}={value}")),
                Known::Form(form) => patterns.push(format!("{name}=<{form}>")),
            }
        }
        (exact, patterns)
    }

    fn get(&self, name: &str) -> Option<&Known> {
        self.variables
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, known)| known)
    }

    fn set(&mut self, name: &str, known: Known) {
        match self.variables.iter_mut().find(|(other, _)| other == name) {
            Some((_, slot)) => *slot = known,
            None => self.variables.push((name.to_owned(), known)),
        }
    }

    /// `envFrom`: every key of a ConfigMap that is in the file.
    fn all_of(&mut self, source: &Node, place: &str, context: &Context<'_>) -> Result<(), PodError> {
        let prefix = source.get("prefix").map(Node::text).transpose()?.unwrap_or_default();
        if let Some(secret) = source.get("secretRef") {
            return Err(secret_refused(secret, format!("{place} envFrom.secretRef")));
        }
        let Some(reference) = source.get("configMapRef") else {
            return Err(PodError::missing(source, format!("{place} envFrom: configMapRef")));
        };
        let name = field(reference, "name", place)?.text()?;
        let Some(data) = context.config_maps.get(name).map(|map| map.get("data")) else {
            return Err(PodError::secret_for_nobody(
                reference,
                format!("{place} envFrom.configMapRef {name:?}"),
                "its names and values are not in this file; put the ConfigMap into it, and they are pinned",
            ));
        };
        for (key, value) in data.map(Node::entries).transpose()?.unwrap_or_default() {
            self.set(&format!("{prefix}{key}"), Known::Exactly(value.text()?.to_owned()));
        }
        Ok(())
    }
}

fn value_from(
    source: &Node,
    at: &str,
    name: &str,
    workload: &Workload<'_>,
    context: &Context<'_>,
    accepted: &mut Accepted,
) -> Result<Known, PodError> {
    if let Some(secret) = source.get("secretKeyRef") {
        return Err(secret_refused(secret, format!("{at} valueFrom.secretKeyRef")));
    }
    if let Some(reference) = source.get("configMapKeyRef") {
        let (map, key) = (
            field(reference, "name", at)?.text()?,
            field(reference, "key", at)?.text()?,
        );
        let value = context
            .config_maps
            .get(map)
            .and_then(|object| object.at(&["data", key]));
        return match value {
            Some(value) => Ok(Known::Exactly(value.text()?.to_owned())),
            None if accepted.takes(&format!("env/{name}")) => Ok(Known::Form(TEXT)),
            None => Err(PodError::HostsChoice {
                line: reference.line,
                field: format!("{at} valueFrom.configMapKeyRef"),
                why: format!("ConfigMap {map:?} with key {key:?} is not in this file, where it would be pinned"),
                accept: format!("env/{name}"),
            }),
        };
    }
    if let Some(reference) = source.get("fieldRef") {
        return downward(field(reference, "fieldPath", at)?, at, workload);
    }
    if source.get("resourceFieldRef").is_some() {
        return Ok(Known::Form("integer"));
    }
    Err(PodError::missing(
        source,
        format!("{at} valueFrom: a source that is known here"),
    ))
}

/// The downward API: what the pod's own YAML says, or the form of what the cluster will say.
fn downward(path: &Node, at: &str, workload: &Workload<'_>) -> Result<Known, PodError> {
    let text = path.text()?;
    let exactly_or = |value: Option<&str>, form| match value {
        Some(value) => Known::Exactly(value.to_owned()),
        None => Known::Form(form),
    };
    Ok(match text {
        "metadata.name" => exactly_or(workload.pod_name(), HOST_NAME),
        "metadata.namespace" => exactly_or(workload.namespace.as_deref(), HOST_NAME),
        "metadata.uid" => Known::Form("uid"),
        "spec.nodeName" | "spec.serviceAccountName" => Known::Form(HOST_NAME),
        "status.hostIP" | "status.podIP" => Known::Form("ip"),
        "status.hostIPs" | "status.podIPs" => Known::Form("ips"),
        _ => {
            let of_map = |top: &str| text.strip_prefix(top)?.strip_prefix("['")?.strip_suffix("']");
            let label = of_map("metadata.labels").map(|key| ("labels", key));
            let Some((table, key)) = label.or(of_map("metadata.annotations").map(|key| ("annotations", key))) else {
                return Err(PodError::value(
                    path,
                    format!("{at} fieldPath"),
                    text,
                    "a field of the downward API",
                ));
            };
            let value = workload.metadata.and_then(|metadata| metadata.at(&[table, key]));
            exactly_or(value.map(Node::text).transpose()?, TEXT)
        }
    })
}

fn secret_refused(node: &Node, field: String) -> PodError {
    PodError::secret_for_nobody(
        node,
        field,
        "a Kubernetes Secret is the cluster's to read and to change; take secrets from the key broker",
    )
}

/// Names of variables by service: `DB_SERVICE_HOST` and so on begin with this.
pub(super) fn service_prefix(service: &str) -> String {
    service.to_ascii_uppercase().replace('-', "_")
}

const TEXT: &str = "text";
const HOST_NAME: &str = "host-name";
