//! `securityContext` of the pod and of a container, the container's first.

use super::pod::list;
use super::refusal::PodError;
use super::yaml::Node;

/// Whom a container runs as and what it may, as far as its YAML says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Security {
    pub(super) user: Option<u32>,
    pub(super) group: Option<u32>,
    /// `supplementalGroups` and `fsGroup`.
    pub(super) groups: Vec<u32>,
    pub(super) not_root: bool,
    pub(super) add: Vec<String>,
    pub(super) drop: Vec<String>,
    pub(super) readonly_rootfs: bool,
    /// `allowPrivilegeEscalation: true`, said in as many words.
    pub(super) new_privileges: bool,
    /// A filter of the node's on top of the agent's.
    pub(super) host_seccomp: bool,
}

pub(super) fn read(container: &Node, pod: Option<&Node>, place: &str) -> Result<Security, PodError> {
    let own = container.get("securityContext");
    let of_own = |field: &str| own.and_then(|own| own.get(field));
    let either = |field: &str| of_own(field).or_else(|| pod.and_then(|pod| pod.get(field)));
    let at = |field: &str| format!("{place} securityContext.{field}");
    if let Some(privileged) = of_own("privileged")
        && privileged.truth()?
    {
        let why =
            "nothing in the guest would be kept from a container with every power; name the capabilities that it needs";
        return Err(PodError::secret_for_nobody(privileged, at("privileged"), why));
    }
    if let Some(mount) = of_own("procMount")
        && mount.text()? != "Default"
    {
        let why = "the guest's own paths would not be hidden";
        return Err(PodError::secret_for_nobody(mount, at("procMount"), why));
    }
    for field in ["windowsOptions"] {
        if let Some(node) = either(field) {
            return Err(PodError::value(node, at(field), field, "nothing: guests are Linux"));
        }
    }
    let id = |field: &str| -> Result<Option<u32>, PodError> {
        let Some(node) = either(field) else { return Ok(None) };
        let id = u32::try_from(node.number()?).ok().filter(|id| *id < u32::MAX);
        let wrong = || PodError::value(node, at(field), node.word().unwrap_or(""), "0 to 4294967294");
        id.map(Some).ok_or_else(wrong)
    };
    let mut groups = Vec::new();
    if let Some(pod) = pod {
        for group in list(pod, "supplementalGroups")? {
            groups.push(u32::try_from(group.number()?).unwrap_or(u32::MAX));
        }
    }
    groups.extend(id("fsGroup")?);
    let truth = |node: Option<&Node>| node.map(Node::truth).transpose();
    let capabilities = of_own("capabilities");
    Ok(Security {
        user: id("runAsUser")?,
        group: id("runAsGroup")?,
        groups,
        not_root: truth(either("runAsNonRoot"))?.unwrap_or(false),
        add: names(capabilities, "add", &at("capabilities.add"))?,
        drop: names(capabilities, "drop", &at("capabilities.drop"))?,
        readonly_rootfs: truth(of_own("readOnlyRootFilesystem"))?.unwrap_or(false),
        new_privileges: truth(of_own("allowPrivilegeEscalation"))?.unwrap_or(false),
        host_seccomp: match either("seccompProfile") {
            Some(profile) => profile.get("type").map(Node::text).transpose()? == Some("Localhost"),
            None => false,
        },
    })
}

fn names(capabilities: Option<&Node>, key: &str, at: &str) -> Result<Vec<String>, PodError> {
    let Some(list) = capabilities.and_then(|capabilities| capabilities.get(key)) else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for node in list.items()? {
        let name = node.text()?;
        let bare = name.strip_prefix("CAP_").unwrap_or(name);
        if bare == "ALL" && key == "add" {
            let why =
                "nothing in the guest would be kept from a container with every capability; name those that it needs";
            return Err(PodError::secret_for_nobody(node, at, why));
        }
        names.push(bare.to_owned());
    }
    Ok(names)
}
