//! The files: those of `deploy/`, which this program carries with it.

use std::path::{Path, PathBuf};

use super::InstallError;
use super::imports;
use super::target::Target;

/// A file as it should be.
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) text: String,
    /// Only where there is none yet.
    pub(super) is_first_draft: bool,
    /// Somebody else's file, in which something is added.
    pub(super) is_patch: bool,
}

/// Every file, for programs below `prefix`.
pub(super) fn files(prefix: &Path, target: &Target) -> Result<Vec<File>, InstallError> {
    let ours = |path: &str, text: &str| File {
        path: PathBuf::from(path),
        text: text.replace("@PREFIX@", &prefix.display().to_string()),
        is_first_draft: false,
        is_patch: false,
    };
    let main = target.read(Path::new(CONTAINERD))?;
    Ok(vec![
        File {
            is_first_draft: true,
            ..ours("/etc/cella/config.toml", CONFIG)
        },
        ours("/etc/cella/runtimeclass.yaml", RUNTIME_CLASS),
        ours("/etc/systemd/system/cella-snapshotter.service", UNIT),
        ours(imports::DROP_IN, DROP_IN),
        File {
            path: PathBuf::from(CONTAINERD),
            text: imports::added(main.as_deref())?,
            is_first_draft: false,
            is_patch: true,
        },
    ])
}

/// What is left to do after an install.
pub(super) const NEXT: &str = "next, as root:
  systemctl daemon-reload
  systemctl enable --now cella-snapshotter
  systemctl restart containerd
  cellactl doctor
and once for the cluster: kubectl apply -f /etc/cella/runtimeclass.yaml
";
/// And after an uninstall.
pub(super) const AFTER: &str = "next, as root:
  systemctl disable --now cella-snapshotter; systemctl daemon-reload
  systemctl restart containerd
";

const CONTAINERD: &str = "/etc/containerd/config.toml";
const CONFIG: &str = include_str!("../../../deploy/config.toml");
const RUNTIME_CLASS: &str = include_str!("../../../deploy/runtimeclass.yaml");
const UNIT: &str = include_str!("../../../deploy/cella-snapshotter.service");
const DROP_IN: &str = include_str!("../../../deploy/containerd-cella.toml");
