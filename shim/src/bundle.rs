//! A containerd bundle: `config.json` and what its annotations say about the pod.
//!
//! The file is the host's word about the workload. It is read with a bound, translated and sent to the agent, which decides.

pub use cella_bundle::oci;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::untrusted::printable;
use crate::vm::PodName;

/// Longest `config.json` that is read, in bytes: what fits into one ttrpc frame.
const MAX_SPEC: u64 = 4 << 20;

const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";
const CONTAINER_NAME: &str = "io.kubernetes.cri.container-name";

const SANDBOX_NAME: &str = "io.kubernetes.cri.sandbox-name";
const SANDBOX_NAMESPACE: &str = "io.kubernetes.cri.sandbox-namespace";
/// Longest name of a pod that is kept, in bytes: Kubernetes' own bound.
const MAX_NAME: usize = 253;

/// Most containers or sandboxes have an id of 64 hex digits; containerd itself allows 76 characters.
const MAX_ID: usize = 128;

/// The bundle of one `Create` request.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The bundle's directory.
    pub dir: PathBuf,
    /// Its `config.json`, as far as the shim reads it.
    pub spec: oci::Spec,
}

/// What a container is to its VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Alone in its VM, which lives and dies with it (`ctr run`).
    Alone,
    /// A CRI sandbox: it is the VM, and runs nothing in the guest.
    Sandbox,
    /// A container of the CRI sandbox with this id.
    Member {
        /// The sandbox's id.
        sandbox: String,
    },
}

/// A network namespace as the OCI specification names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkNamespace<'a> {
    /// The host's: none is named.
    Host,
    /// One of its own that nobody has made yet.
    New,
    /// One that exists, CNI's.
    At(&'a Path),
}

/// A bundle that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// `config.json` is missing or unreadable.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Longer than any real specification.
    #[error("{path} is longer than {MAX_SPEC} bytes")]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// Not an OCI runtime specification.
    #[error("{path} is not an OCI runtime specification")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// An annotation with a meaning that is not known.
    #[error("annotation {key} is {value:?}, expected \"sandbox\" or \"container\"")]
    ContainerType {
        /// The annotation.
        key: &'static str,
        /// Its value, made printable.
        value: String,
    },
    /// A CRI container that does not say whose.
    #[error("annotation io.kubernetes.cri.sandbox-id is missing, empty or longer than {MAX_ID} characters")]
    SandboxId,
}

impl Bundle {
    /// Reads `config.json` in `dir`. Blocking, at most 4 MiB.
    ///
    /// # Errors
    /// A missing, too long or malformed file.
    pub fn load(dir: &Path) -> Result<Self, BundleError> {
        use std::io::Read;
        let path = dir.join("config.json");
        let mut bytes = Vec::new();
        let read = std::fs::File::open(&path).and_then(|file| file.take(MAX_SPEC + 1).read_to_end(&mut bytes));
        let length = read.map_err(|source| BundleError::Read {
            path: path.clone(),
            source,
        })?;
        if u64::try_from(length).unwrap_or(u64::MAX) > MAX_SPEC {
            return Err(BundleError::TooLong { path });
        }
        let spec = serde_json::from_slice(&bytes).map_err(|source| BundleError::Parse { path, source })?;
        Ok(Self {
            dir: dir.to_owned(),
            spec,
        })
    }

    /// The value of an annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.spec.annotations.get(key).map(String::as_str)
    }

    /// What the container is to its VM, by CRI's annotations.
    ///
    /// # Errors
    /// An unknown container type, or no sandbox id.
    pub fn role(&self) -> Result<Role, BundleError> {
        role(&self.spec.annotations)
    }

    /// CRI's name for the container, by which the policy may know it; empty outside of CRI.
    pub fn container_name(&self) -> &str {
        self.annotation(CONTAINER_NAME).unwrap_or_default()
    }

    /// CRI's name for the pod, for people; empty outside of CRI.
    pub fn pod_name(&self) -> PodName {
        let text = |key| printable(self.annotation(key).unwrap_or_default(), MAX_NAME);
        PodName {
            namespace: text(SANDBOX_NAMESPACE),
            name: text(SANDBOX_NAME),
        }
    }

    /// Which network namespace containerd wants the container to have.
    pub fn network_namespace(&self) -> NetworkNamespace<'_> {
        let mut namespaces = self.spec.linux.namespaces.iter();
        match namespaces.find(|namespace| namespace.kind == "network") {
            None => NetworkNamespace::Host,
            Some(namespace) if namespace.path.is_empty() => NetworkNamespace::New,
            Some(namespace) => NetworkNamespace::At(Path::new(&namespace.path)),
        }
    }
}

fn role(annotations: &BTreeMap<String, String>) -> Result<Role, BundleError> {
    let sandbox = annotations
        .get(SANDBOX_ID)
        .filter(|id| !id.is_empty() && id.len() <= MAX_ID);
    match annotations.get(CONTAINER_TYPE).map(String::as_str) {
        None => Ok(Role::Alone),
        Some("sandbox") => Ok(Role::Sandbox),
        Some("container") => Ok(Role::Member {
            sandbox: sandbox.cloned().ok_or(BundleError::SandboxId)?,
        }),
        Some(other) => Err(BundleError::ContainerType {
            key: CONTAINER_TYPE,
            value: crate::untrusted::printable(other, 64),
        }),
    }
}

/// The name under which containers share a shim: the sandbox's id under CRI, else the container's own. A bundle without a
/// specification is a sandbox of the Sandbox API.
///
/// # Errors
/// See [`Bundle::load`] and [`Bundle::role`]. Blocking.
pub fn grouping(dir: &Path, id: &str) -> Result<String, BundleError> {
    let role = match Bundle::load(dir) {
        Ok(bundle) => bundle.role()?,
        Err(BundleError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Role::Sandbox,
        Err(error) => return Err(error),
    };
    Ok(match role {
        Role::Member { sandbox } => sandbox,
        Role::Alone | Role::Sandbox => id.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotated(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn roles_follow_the_annotations() {
        assert_eq!(role(&annotated(&[])).unwrap(), Role::Alone);
        assert_eq!(
            role(&annotated(&[(CONTAINER_TYPE, "sandbox"), (SANDBOX_ID, "s")])).unwrap(),
            Role::Sandbox
        );
        let member = Role::Member { sandbox: "s".into() };
        assert_eq!(
            role(&annotated(&[(CONTAINER_TYPE, "container"), (SANDBOX_ID, "s")])).unwrap(),
            member
        );
        assert!(matches!(
            role(&annotated(&[(CONTAINER_TYPE, "pause")])),
            Err(BundleError::ContainerType { .. })
        ));
        assert!(matches!(
            role(&annotated(&[(CONTAINER_TYPE, "container")])),
            Err(BundleError::SandboxId)
        ));
    }

    #[test]
    fn load_is_bounded_and_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Bundle::load(dir.path()), Err(BundleError::Read { .. })));
        let path = dir.path().join("config.json");
        std::fs::write(&path, "{\"annotations\": 3}").unwrap();
        assert!(matches!(Bundle::load(dir.path()), Err(BundleError::Parse { .. })));
        std::fs::write(&path, vec![b' '; (4 << 20) + 1]).unwrap();
        assert!(matches!(Bundle::load(dir.path()), Err(BundleError::TooLong { .. })));
        std::fs::write(
            &path,
            "{\"annotations\": null, \"linux\": {\"namespaces\": [{\"type\": \"network\", \"path\": \"/x\"}]}}",
        )
        .unwrap();
        let bundle = Bundle::load(dir.path()).unwrap();
        assert_eq!(bundle.network_namespace(), NetworkNamespace::At(Path::new("/x")));
        for (namespaces, expected) in [
            ("null", NetworkNamespace::Host),
            ("[{\"type\": \"network\"}]", NetworkNamespace::New),
        ] {
            std::fs::write(&path, format!("{{\"linux\": {{\"namespaces\": {namespaces}}}}}")).unwrap();
            assert_eq!(Bundle::load(dir.path()).unwrap().network_namespace(), expected);
        }
        assert_eq!(bundle.container_name(), "");
    }

    #[test]
    fn members_are_with_their_sandbox_and_a_sandbox_needs_no_specification() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(grouping(dir.path(), "me").unwrap(), "me");
        let path = dir.path().join("config.json");
        std::fs::write(&path, "{}").unwrap();
        assert_eq!(grouping(dir.path(), "me").unwrap(), "me");
        let member = r#"{"annotations": {"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "s"}}"#;
        std::fs::write(&path, member).unwrap();
        assert_eq!(grouping(dir.path(), "me").unwrap(), "s");
    }
}
