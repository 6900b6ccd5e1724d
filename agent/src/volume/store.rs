//! The volumes that a pod has, below one directory of the agent's.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cella_policy::{Sha256Digest, VolumeKind, check::check_files};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{
    Content, VolumeError, VolumeName,
    content::{MAX_TOTAL_BYTES, MAX_VOLUMES},
    writer,
};
use crate::untrusted::shown;

/// The pod's volumes. Clones share them; with the last one they go.
#[derive(Clone, Debug)]
pub struct Volumes {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    volumes: Mutex<BTreeMap<VolumeName, Volume>>,
}

#[derive(Debug)]
struct Volume {
    kind: VolumeKind,
    /// What it holds now; the bytes of an empty-dir are its containers'.
    content: Content,
    generation: u64,
    /// What its files must be, since a container has mounted it by a policy that says so; empty = any.
    pinned: BTreeMap<String, Sha256Digest>,
}

/// What a container binds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeSource {
    /// A directory or a file of the agent's.
    pub path: PathBuf,
    /// Whether containers may write to it.
    pub writable: bool,
}

impl Volumes {
    /// Without volumes; they will lie below `dir`, which is made with the first.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            shared: Arc::new(Shared {
                dir,
                volumes: Mutex::default(),
            }),
        }
    }

    /// Makes a volume, or replaces its content. The same content again changes nothing. Blocks for milliseconds.
    pub fn put(&self, name: &VolumeName, kind: VolumeKind, content: Content) -> Result<(), VolumeError> {
        let mut volumes = self.lock();
        let others: u64 = volumes
            .iter()
            .filter(|(other, _)| *other != name)
            .map(|(_, volume)| volume.content.bytes())
            .sum();
        let bytes = others.saturating_add(content.bytes());
        if bytes > MAX_TOTAL_BYTES {
            return Err(VolumeError::TooLarge { bytes });
        }
        let path = self.shared.dir.join(name.as_str());
        let Some(volume) = volumes.get_mut(name) else {
            if volumes.len() >= MAX_VOLUMES {
                return Err(VolumeError::TooManyVolumes);
            }
            let made = self.make(&path, &content);
            if made.is_err() {
                take_away(&path);
            }
            made?;
            let volume = Volume {
                kind,
                content,
                generation: 1,
                pinned: BTreeMap::new(),
            };
            volumes.insert(name.clone(), volume);
            return Ok(());
        };
        if volume.kind != kind || std::mem::discriminant(&volume.content) != std::mem::discriminant(&content) {
            return Err(VolumeError::Exists {
                name: shown(name.as_str()),
                kind: volume.kind,
            });
        }
        if volume.content == content {
            return Ok(());
        }
        check_files(name.as_str(), &volume.pinned, &content.digests()).map_err(VolumeError::Denied)?;
        match &content {
            Content::Memory { .. } => {
                return Err(VolumeError::Form {
                    kind,
                    rule: "keeps the size that it was made with",
                });
            }
            Content::Tree(files) => {
                // A generation that failed half way is not used again.
                volume.generation = volume.generation.saturating_add(1);
                writer::write(&path, volume.generation, files)?;
            }
            Content::File(file) => writer::write_single(&path.join(SINGLE), file)?,
        }
        volume.content = content;
        Ok(())
    }

    /// What a container binds for the volume of that name and kind.
    pub fn source(&self, name: &str, kind: VolumeKind) -> Result<VolumeSource, VolumeError> {
        let unknown = || VolumeError::Unknown {
            name: shown(name),
            kind,
        };
        let name: VolumeName = name.parse().map_err(|_| unknown())?;
        let volumes = self.lock();
        let volume = volumes
            .get(&name)
            .filter(|volume| volume.kind == kind)
            .ok_or_else(unknown)?;
        let dir = self.shared.dir.join(name.as_str());
        Ok(match volume.content {
            Content::Memory { .. } => VolumeSource {
                path: dir,
                writable: true,
            },
            Content::Tree(_) => VolumeSource {
                path: dir,
                writable: false,
            },
            Content::File(_) => VolumeSource {
                path: dir.join(SINGLE),
                writable: matches!(kind, VolumeKind::Hosts | VolumeKind::Hostname | VolumeKind::ResolvConf),
            },
        })
    }

    /// The same where the policy says what its files are: they are, and nothing else is put into it from now on.
    pub fn pinned_source(
        &self,
        name: &str,
        kind: VolumeKind,
        files: &BTreeMap<String, Sha256Digest>,
    ) -> Result<VolumeSource, VolumeError> {
        if !files.is_empty() {
            let known: Option<VolumeName> = name.parse().ok();
            let mut volumes = self.lock();
            if let Some(volume) = known.and_then(|name| volumes.get_mut(&name)) {
                check_files(name, files, &volume.content.digests()).map_err(VolumeError::Denied)?;
                volume.pinned.clone_from(files);
            }
        }
        self.source(name, kind)
    }

    /// What the volume of that name is; `None` when there is none.
    pub fn kind(&self, name: &str) -> Option<VolumeKind> {
        let name: VolumeName = name.parse().ok()?;
        self.lock().get(&name).map(|volume| volume.kind)
    }

    /// Takes all of them away.
    pub fn clear(&self) {
        clear(&self.shared.dir, &mut self.lock());
    }

    fn make(&self, path: &Path, content: &Content) -> Result<(), VolumeError> {
        fs::create_dir_all(&self.shared.dir).map_err(VolumeError::io("making", &self.shared.dir))?;
        writer::make_dir(path)?;
        match content {
            Content::Memory { size_limit } => mount_memory(path, *size_limit),
            Content::Tree(files) => writer::write(path, 1, files),
            Content::File(file) => writer::write_single(&path.join(SINGLE), file),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<VolumeName, Volume>> {
        self.shared.volumes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        clear(
            &self.dir,
            self.volumes.get_mut().unwrap_or_else(PoisonError::into_inner),
        );
    }
}

fn clear(dir: &Path, volumes: &mut BTreeMap<VolumeName, Volume>) {
    for name in std::mem::take(volumes).into_keys() {
        take_away(&dir.join(name.as_str()));
    }
    // Not there when there never was a volume.
    let _ = fs::remove_dir(dir);
}

/// A tmpfs that anybody may write to, as kubelet makes an emptyDir.
fn mount_memory(path: &Path, size_limit: Option<u64>) -> Result<(), VolumeError> {
    let mut options = "mode=0777".to_owned();
    if let Some(bytes) = size_limit {
        options += &format!(",size={bytes}");
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options.as_str()))
        .map_err(|errno| VolumeError::io("mounting", path)(errno.into()))
}

/// Unmounts and removes; what cannot be goes with the machine.
fn take_away(path: &Path) {
    while umount2(path, MntFlags::MNT_DETACH).is_ok() {}
    let _: io::Result<()> = fs::remove_dir_all(path);
}

/// Name of the file of a volume that is one file, in the volume's directory.
const SINGLE: &str = "file";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::content::tests::request;

    fn put(volumes: &Volumes, name: &str, kind: &str, files: &[(&str, &str)]) -> Result<(), VolumeError> {
        let (kind, mut content) = Content::parse(request(kind, files)).unwrap();
        // Tests need not be root to own files.
        let own = fs::metadata("/proc/self").unwrap();
        let owner = (
            std::os::unix::fs::MetadataExt::uid(&own),
            std::os::unix::fs::MetadataExt::gid(&own),
        );
        match &mut content {
            Content::Tree(files) => files.values_mut().for_each(|file| (file.uid, file.gid) = owner),
            Content::File(file) => (file.uid, file.gid) = owner,
            Content::Memory { .. } => {}
        }
        volumes.put(&name.parse().unwrap(), kind, content)
    }

    #[test]
    fn files_come_change_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("volumes");
        let volumes = Volumes::new(home.clone());
        put(&volumes, "cm", "config-map", &[("a", "1")]).unwrap();
        put(&volumes, "hosts", "hosts", &[("", "127.0.0.1 localhost\n")]).unwrap();
        let source = volumes.source("cm", VolumeKind::ConfigMap).unwrap();
        assert!(!source.writable);
        assert_eq!(fs::read_to_string(source.path.join("a")).unwrap(), "1");
        put(&volumes, "cm", "config-map", &[("a", "2")]).unwrap();
        put(&volumes, "cm", "config-map", &[("a", "2")]).unwrap();
        assert_eq!(fs::read_to_string(source.path.join("a")).unwrap(), "2");
        assert_eq!(fs::read_link(source.path.join("..data")).unwrap(), Path::new("..2"));

        let hosts = volumes.source("hosts", VolumeKind::Hosts).unwrap();
        assert_eq!(fs::read_to_string(&hosts.path).unwrap(), "127.0.0.1 localhost\n");
        assert_eq!(volumes.kind("hosts"), Some(VolumeKind::Hosts));
        assert_eq!(volumes.kind("../hosts"), None);
        drop(volumes);
        assert!(!home.exists());
    }

    #[test]
    fn a_volume_stays_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::new(dir.path().join("volumes"));
        put(&volumes, "v", "config-map", &[("a", "1")]).unwrap();
        for (kind, files) in [("secret", [("a", "1")]), ("config-map", [("", "1")])] {
            let error = put(&volumes, "v", kind, &files).unwrap_err();
            assert!(matches!(
                error,
                VolumeError::Exists {
                    kind: VolumeKind::ConfigMap,
                    ..
                }
            ));
        }
        for (name, kind) in [
            ("v", VolumeKind::Secret),
            ("w", VolumeKind::ConfigMap),
            ("../v", VolumeKind::ConfigMap),
        ] {
            let error = volumes.source(name, kind).unwrap_err();
            assert!(matches!(error, VolumeError::Unknown { .. }), "{error}");
        }
    }

    #[test]
    fn t10_volumes_and_bytes_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::new(dir.path().join("volumes"));
        let large = "x".repeat(3 << 20);
        for number in 0..10 {
            put(&volumes, &format!("large-{number}"), "secret", &[("a", &large)]).unwrap();
        }
        assert!(matches!(
            put(&volumes, "one-more", "secret", &[("a", &large)]),
            Err(VolumeError::TooLarge { .. })
        ));
        // To replace is not to add.
        put(&volumes, "large-0", "secret", &[("b", &large)]).unwrap();
        for number in 10..MAX_VOLUMES {
            put(&volumes, &format!("small-{number}"), "secret", &[]).unwrap();
        }
        assert!(matches!(
            put(&volumes, "one-more", "secret", &[]),
            Err(VolumeError::TooManyVolumes)
        ));
    }

    #[test]
    fn memory_keeps_its_size() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root to mount");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::new(dir.path().join("volumes"));
        let name = "scratch".parse().unwrap();
        let content = Content::Memory {
            size_limit: Some(64 << 10),
        };
        volumes.put(&name, VolumeKind::EmptyDir, content).unwrap();
        let path = volumes.source("scratch", VolumeKind::EmptyDir).unwrap().path;
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o7777, 0o777);
        let error = fs::write(path.join("big"), vec![0; 128 << 10]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        drop(volumes);
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(dir.path().to_str().unwrap()));
    }
}
