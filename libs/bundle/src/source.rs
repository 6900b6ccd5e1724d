//! What a bind mount of the bundle is, told by the paths that kubelet and containerd give it.
//!
//! Only the form of the path is looked at, not who the kubelet is or where its root lies. A path that has the form of a volume
//! that can be kept is one; every other is refused with the name of what it is, so that the author of the pod knows which of
//! their volumes is meant.

use std::path::{Path, PathBuf};

use cella_policy::VolumeKind;
use sha2::{Digest, Sha256};

/// A bind mount, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Memory of the guest, shared by the pod's containers under this name.
    EmptyDir {
        /// The pod's name for it.
        volume: String,
    },
    /// Files that are copied into the guest.
    Files {
        /// The agent's name for it.
        volume: String,
        /// What kubelet made it from.
        kind: VolumeKind,
        /// Whether it is copied again when it changes. Kubernetes does not do so for a part of a volume.
        follow: bool,
    },
    /// A file that every container gets; the agent makes its own where the policy lets the host say nothing.
    Served {
        /// Which.
        kind: VolumeKind,
    },
    /// Where the container's last words go.
    TerminationLog,
    /// `/dev/shm` of the sandbox; the guest has its own.
    SharedMemory,
    /// A `VOLUME` of the image. The container's own root holds its content already.
    ImageDefined,
}

/// A bind mount of which nothing can be kept from the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// "a csi volume", "a hostPath volume".
    pub what: String,
}

/// What `source`, mounted on `destination`, is.
///
/// # Errors
/// The name of what it is, if it cannot be a volume of a confidential guest.
pub fn classify(source: &str, destination: &str) -> Result<Source, Foreign> {
    let parts: Vec<&str> = source.split('/').filter(|part| !part.is_empty()).collect();
    if parts.contains(&"..") || !source.starts_with('/') {
        return Err(foreign("a hostPath volume"));
    }
    if let Some(found) = of_pod(&parts, source) {
        return found;
    }
    if let Some(found) = of_containerd(&parts) {
        return Ok(found);
    }
    // Other clients of containerd keep these files elsewhere.
    match (destination, parts.last().copied()) {
        ("/etc/hosts", Some("hosts")) => Ok(served(VolumeKind::Hosts)),
        ("/etc/hostname", Some("hostname")) => Ok(served(VolumeKind::Hostname)),
        ("/etc/resolv.conf", Some("resolv.conf")) => Ok(served(VolumeKind::ResolvConf)),
        _ if parts.contains(&"image-volumes") => Err(foreign("an image volume")),
        _ if source.starts_with("/dev/") => Err(foreign("a device of the host")),
        _ => Err(foreign("a hostPath volume")),
    }
}

/// Where kubelet keeps the volume that `source`, a `…/volume-subpaths/<volume>/<container>/<n>`, is a part of.
fn volumes_beside(source: &Path) -> Option<PathBuf> {
    Some(source.ancestors().nth(4)?.join("volumes"))
}

/// The kind by the name of kubelet's plugin, `kubernetes.io~secret`.
fn kind_of_plugin(plugin: &str) -> Option<VolumeKind> {
    Some(match plugin.strip_prefix("kubernetes.io~")? {
        "configmap" => VolumeKind::ConfigMap,
        "secret" => VolumeKind::Secret,
        "projected" => VolumeKind::Projected,
        "downward-api" => VolumeKind::DownwardApi,
        "empty-dir" => VolumeKind::EmptyDir,
        _ => return None,
    })
}

/// What a plugin that is none of ours is called in a pod's YAML.
fn name_of_plugin(plugin: &str) -> String {
    let name = match plugin.split_once('~').map_or(plugin, |(_, name)| name) {
        "local-volume" => "local persistent",
        "host-path" => "hostPath",
        "aws-ebs" | "gce-pd" | "azure-disk" | "azure-file" | "portworx-volume" | "vsphere-volume" => "cloud disk",
        "git-repo" => "gitRepo",
        other => other,
    };
    let article = if name.starts_with(['a', 'e', 'i', 'o', 'u']) || name == "nfs" {
        "an"
    } else {
        "a"
    };
    format!("{article} {} volume", plain(name))
}

/// What follows `…/pods/<uid>/`.
fn below_pod<'a>(parts: &'a [&'a str]) -> Option<&'a [&'a str]> {
    let pods = parts.iter().rposition(|part| *part == "pods")?;
    parts.get(pods + 2..)
}

fn of_pod(parts: &[&str], source: &str) -> Option<Result<Source, Foreign>> {
    Some(match below_pod(parts)? {
        ["etc-hosts"] => Ok(served(VolumeKind::Hosts)),
        ["containers", _, _] => Ok(Source::TerminationLog),
        ["volumes", plugin, volume] => of_plugin(plugin, volume),
        // A volume whose mount point lies below its folder (csi), and what else there may be.
        ["volumes", plugin, ..] | ["volumeDevices", plugin, ..] => Err(Foreign {
            what: name_of_plugin(plugin),
        }),
        ["volume-subpaths", volume, _, _] => of_part(volume, source),
        _ => return None,
    })
}

fn of_plugin(plugin: &str, volume: &str) -> Result<Source, Foreign> {
    let volume = volume.to_owned();
    match kind_of_plugin(plugin) {
        Some(VolumeKind::EmptyDir) => Ok(Source::EmptyDir { volume }),
        Some(kind) => Ok(Source::Files {
            volume,
            kind,
            follow: true,
        }),
        None => Err(Foreign {
            what: name_of_plugin(plugin),
        }),
    }
}

/// A part of a volume; of what kind the volume is, the folders beside it tell.
fn of_part(volume: &str, source: &str) -> Result<Source, Foreign> {
    let plugin = volumes_beside(Path::new(source)).and_then(|volumes| {
        let mut plugins = std::fs::read_dir(volumes).ok()?.flatten();
        let plugin = plugins.find(|plugin| plugin.path().join(volume).symlink_metadata().is_ok())?;
        plugin.file_name().into_string().ok()
    });
    match plugin.as_deref().map(|plugin| (plugin, kind_of_plugin(plugin))) {
        Some((_, Some(VolumeKind::EmptyDir))) => Err(foreign(
            "a subPath of an emptyDir, whose folders are the guest's own, so that the host cannot name them,",
        )),
        Some((_, Some(kind))) => Ok(Source::Files {
            volume: derived_name(volume, source),
            kind,
            follow: false,
        }),
        Some((plugin, None)) => Err(Foreign {
            what: name_of_plugin(plugin),
        }),
        None => Err(foreign("a part of a volume of unknown kind")),
    }
}

/// Files that containerd's CRI plugin makes for a sandbox or a container.
fn of_containerd(parts: &[&str]) -> Option<Source> {
    match parts {
        [.., "sandboxes", _, "hosts"] => Some(served(VolumeKind::Hosts)),
        [.., "sandboxes", _, "hostname"] => Some(served(VolumeKind::Hostname)),
        [.., "sandboxes", _, "resolv.conf"] => Some(served(VolumeKind::ResolvConf)),
        [.., "sandboxes", _, "shm"] => Some(Source::SharedMemory),
        [.., root, "containers", _, "volumes", _] if root.starts_with("io.containerd.") => Some(Source::ImageDefined),
        _ => None,
    }
}

/// A name for what `source` names. Kubernetes' names of volumes have no dot, so it is nobody else's.
pub fn derived_name(prefix: &str, source: &str) -> String {
    let hash = hex::encode(Sha256::digest(source));
    let prefix: String = prefix.chars().take(40).collect();
    format!("{prefix}.{}", hash.get(..16).unwrap_or(&hash))
}

/// At most 64 characters that can stand in an error.
fn plain(name: &str) -> String {
    let clean = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    name.chars().map(clean).take(64).collect()
}

fn served(kind: VolumeKind) -> Source {
    Source::Served { kind }
}

fn foreign(what: &str) -> Foreign {
    Foreign { what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "/var/lib/kubelet/pods/6f9e9a2c-1111-2222-3333-444455556666";

    fn of(source: &str) -> Result<Source, Foreign> {
        classify(source, "/data")
    }

    #[test]
    fn kubelets_volumes_are_known_under_any_root() {
        for root in [POD.to_owned(), POD.replace("/var/lib/kubelet", "/opt/k/pods/x")] {
            for (plugin, kind) in [
                ("configmap", VolumeKind::ConfigMap),
                ("secret", VolumeKind::Secret),
                ("projected", VolumeKind::Projected),
                ("downward-api", VolumeKind::DownwardApi),
            ] {
                let expected = Source::Files {
                    volume: "cfg".into(),
                    kind,
                    follow: true,
                };
                assert_eq!(of(&format!("{root}/volumes/kubernetes.io~{plugin}/cfg")), Ok(expected));
            }
            assert_eq!(
                of(&format!("{root}/volumes/kubernetes.io~empty-dir/scratch")),
                Ok(Source::EmptyDir {
                    volume: "scratch".into()
                })
            );
            assert_eq!(of(&format!("{root}/etc-hosts")), Ok(served(VolumeKind::Hosts)));
            assert_eq!(
                of(&format!("{root}/containers/app/0a1b2c3d")),
                Ok(Source::TerminationLog)
            );
        }
    }

    #[test]
    fn containerds_own_files_are_known() {
        let cri = "/run/containerd/io.containerd.grpc.v1.cri/sandboxes/abc";
        assert_eq!(of(&format!("{cri}/hosts")), Ok(served(VolumeKind::Hosts)));
        assert_eq!(of(&format!("{cri}/hostname")), Ok(served(VolumeKind::Hostname)));
        assert_eq!(of(&format!("{cri}/resolv.conf")), Ok(served(VolumeKind::ResolvConf)));
        assert_eq!(of(&format!("{cri}/shm")), Ok(Source::SharedMemory));
        assert_eq!(
            of("/var/lib/containerd/io.containerd.grpc.v1.cri/containers/abc/volumes/0011"),
            Ok(Source::ImageDefined)
        );
        let other = "/var/lib/nerdctl/1935db59/etchosts/default/abc/hosts";
        assert_eq!(classify(other, "/etc/hosts"), Ok(served(VolumeKind::Hosts)));
        assert!(of(other).is_err(), "elsewhere it is a file of the host");
    }

    #[test]
    fn what_cannot_be_kept_is_called_by_its_name() {
        let what = |source: &str| of(source).unwrap_err().what;
        assert_eq!(
            what(&format!("{POD}/volumes/kubernetes.io~csi/pvc-1/mount")),
            "a csi volume"
        );
        assert_eq!(what(&format!("{POD}/volumes/kubernetes.io~nfs/n")), "an nfs volume");
        assert_eq!(
            what(&format!("{POD}/volumes/kubernetes.io~local-volume/l")),
            "a local persistent volume"
        );
        assert_eq!(what(&format!("{POD}/volumes/other.io~iscsi/l")), "an iscsi volume");
        assert_eq!(what("/srv/x"), "a hostPath volume");
        assert_eq!(what("relative"), "a hostPath volume");
        assert_eq!(what("/dev/nvidia0"), "a device of the host");
        assert_eq!(
            what(&format!("{POD}/volumes/kubernetes.io~secret/../../etc-hosts")),
            "a hostPath volume"
        );
        assert_eq!(
            what("/run/containerd/io.containerd.cri.v1.images/image-volumes/abc/sha256:1"),
            "an image volume"
        );
        // A deeper path is not the volume.
        assert_eq!(
            what(&format!("{POD}/volumes/kubernetes.io~secret/s/file")),
            "a secret volume"
        );
    }

    #[test]
    fn a_part_of_a_volume_has_the_kind_of_the_whole() {
        let root = tempfile::tempdir().unwrap();
        let pod = root.path().join("pods/uid");
        for (plugin, volume) in [("configmap", "cfg"), ("empty-dir", "scratch"), ("csi", "disk")] {
            std::fs::create_dir_all(pod.join(format!("volumes/kubernetes.io~{plugin}/{volume}"))).unwrap();
        }
        let part = |volume: &str| of(&format!("{}/volume-subpaths/{volume}/app/0", pod.display()));
        match part("cfg").unwrap() {
            Source::Files { volume, kind, follow } => {
                assert_eq!((kind, follow), (VolumeKind::ConfigMap, false));
                assert!(volume.starts_with("cfg."), "{volume}");
            }
            other => panic!("{other:?}"),
        }
        assert!(part("scratch").unwrap_err().what.contains("subPath of an emptyDir"));
        assert_eq!(part("disk").unwrap_err().what, "a csi volume");
        assert!(part("gone").unwrap_err().what.contains("unknown kind"));
    }
}
