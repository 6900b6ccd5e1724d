//! What the host puts into a volume, parsed: every path stays inside, every number has a bound.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    str::FromStr,
};

use cella_oci::Digest;
use cella_policy::{Sha256Digest, VolumeKind};
use cella_protos::agent::{PutVolumeRequest, VolumeFile};

use super::{VolumeError, text};
use crate::untrusted::shown;

/// A volume's name in the pod. It becomes a directory's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VolumeName(String);

impl VolumeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for VolumeName {
    type Err = VolumeError;

    fn from_str(text: &str) -> Result<Self, VolumeError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
        if (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with('.') {
            Ok(Self(text.to_owned()))
        } else {
            Err(VolumeError::Name { name: shown(text) })
        }
    }
}

/// What a volume holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Memory, empty at first.
    Memory {
        /// Bytes that fit; `None` = what the kernel gives a tmpfs.
        size_limit: Option<u64>,
    },
    /// Files by their relative paths. Not empty paths, no path is a prefix of another.
    Tree(BTreeMap<PathBuf, FileContent>),
    /// The volume is this one file.
    File(FileContent),
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileContent {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Content {
    /// Checks a request's kind and content; the name has its own parser.
    pub fn parse(request: PutVolumeRequest) -> Result<(VolumeKind, Self), VolumeError> {
        let kind: VolumeKind = request.kind.parse().map_err(|_| VolumeError::Kind {
            kind: shown(&request.kind),
        })?;
        let PutVolumeRequest {
            size_limit_bytes,
            files,
            ..
        } = request;
        let form = |rule| VolumeError::Form { kind, rule };
        if kind == VolumeKind::EmptyDir {
            if !files.is_empty() {
                return Err(form("has no files from the host"));
            }
            let size_limit = (size_limit_bytes > 0).then_some(size_limit_bytes);
            return Ok((kind, Self::Memory { size_limit }));
        }
        if size_limit_bytes > 0 {
            return Err(form("has no size limit"));
        }
        if files.len() > MAX_FILES {
            return Err(VolumeError::TooManyFiles { count: files.len() });
        }
        let is_file_kind = kind.is_served();
        let single = matches!(files.as_slice(), [file] if file.path.is_empty());
        if is_file_kind && !single && !(kind == VolumeKind::TerminationLog && files.is_empty()) {
            return Err(form("is one file without a path"));
        }
        if is_file_kind || single {
            let file = files.into_iter().next().map(file).transpose()?.unwrap_or_default();
            text::check(kind, &file.bytes)?;
            return Ok((kind, Self::File(file)));
        }
        tree(files).map(|tree| (kind, Self::Tree(tree)))
    }

    /// What its files are, by path; the path of a volume that is one file is empty.
    pub(super) fn digests(&self) -> BTreeMap<String, Sha256Digest> {
        let digest = |file: &FileContent| Sha256Digest::from(*Digest::of(&file.bytes).as_bytes());
        match self {
            Self::Memory { .. } => BTreeMap::new(),
            Self::Tree(files) => files
                .iter()
                .map(|(path, file)| (path.to_string_lossy().into_owned(), digest(file)))
                .collect(),
            Self::File(file) => [(String::new(), digest(file))].into(),
        }
    }

    /// Bytes of the host's that it holds.
    pub(super) fn bytes(&self) -> u64 {
        let length = |file: &FileContent| u64::try_from(file.bytes.len()).unwrap_or(u64::MAX);
        match self {
            Self::Memory { .. } => 0,
            Self::Tree(files) => files.values().map(length).fold(0, u64::saturating_add),
            Self::File(file) => length(file),
        }
    }
}

impl Default for FileContent {
    fn default() -> Self {
        Self {
            mode: 0o644,
            uid: 0,
            gid: 0,
            bytes: Vec::new(),
        }
    }
}

fn tree(files: Vec<VolumeFile>) -> Result<BTreeMap<PathBuf, FileContent>, VolumeError> {
    let mut tree = BTreeMap::new();
    let mut directories = BTreeSet::new();
    for given in files {
        let path = path(&given.path)?;
        let overlap = || VolumeError::Overlap {
            path: shown(&given.path),
        };
        for parent in path.ancestors().skip(1).filter(|parent| parent.parent().is_some()) {
            if tree.contains_key(parent) {
                return Err(overlap());
            }
            directories.insert(parent.to_owned());
        }
        if directories.contains(&path) || tree.contains_key(&path) {
            return Err(overlap());
        }
        tree.insert(path, file(given)?);
    }
    Ok(tree)
}

fn file(given: VolumeFile) -> Result<FileContent, VolumeError> {
    if given.mode > 0o777 {
        return Err(VolumeError::Mode {
            path: shown(&given.path),
            mode: given.mode,
        });
    }
    Ok(FileContent {
        mode: given.mode,
        uid: given.uid,
        gid: given.gid,
        bytes: given.content,
    })
}

/// A path that stays inside and does not collide with the names that the writer uses, which begin with `..`.
fn path(text: &str) -> Result<PathBuf, VolumeError> {
    let part = |part: &str| {
        (1..=MAX_PART).contains(&part.len()) && part != "." && part != ".." && !part.contains(char::is_control)
    };
    let mut parts = text.split('/');
    if text.len() <= MAX_PATH && parts.clone().count() <= MAX_PARTS && !text.starts_with("..") && parts.all(part) {
        Ok(PathBuf::from(text))
    } else {
        Err(VolumeError::Path { path: shown(text) })
    }
}

/// Characters of a volume's name.
pub(super) const MAX_NAME: usize = 64;

/// Bytes of a file's path.
pub(super) const MAX_PATH: usize = 1024;

/// Parts of a path: each but the last is a directory, which takes far more memory than its name does in a request.
pub(super) const MAX_PARTS: usize = 32;

/// Bytes of a path's part: what a directory entry holds.
const MAX_PART: usize = 255;

/// Files of a volume.
pub const MAX_FILES: usize = 1024;

/// Volumes of a pod, the files that every container has among them.
pub const MAX_VOLUMES: usize = 128;

/// Bytes of all volumes' files. Kubernetes allows a ConfigMap or Secret 1 MiB; one request holds less than 4 MiB.
pub const MAX_TOTAL_BYTES: u64 = 32 << 20;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::volume) fn given(path: &str, content: &str) -> VolumeFile {
        VolumeFile {
            path: path.into(),
            mode: 0o640,
            uid: 7,
            gid: 8,
            content: content.into(),
            ..Default::default()
        }
    }

    pub(in crate::volume) fn request(kind: &str, files: &[(&str, &str)]) -> PutVolumeRequest {
        PutVolumeRequest {
            name: "v".into(),
            kind: kind.into(),
            files: files.iter().map(|(path, content)| given(path, content)).collect(),
            ..Default::default()
        }
    }

    fn refusal(kind: &str, files: &[(&str, &str)]) -> VolumeError {
        Content::parse(request(kind, files)).unwrap_err()
    }

    #[test]
    fn names_become_directories_and_are_plain() {
        for good in ["a", "kube-api-access-x7p", "0.1", &"a".repeat(64)] {
            assert_eq!(good.parse::<VolumeName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", ".a", "A", "a/b", "a b", "a\0", &"a".repeat(65)] {
            assert!(bad.parse::<VolumeName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn files_and_directories_are_understood() {
        let (kind, content) = Content::parse(request("config-map", &[("a", "1"), ("d/b", "22")])).unwrap();
        assert_eq!((kind, content.bytes()), (VolumeKind::ConfigMap, 3));
        let Content::Tree(files) = content else { panic!() };
        assert_eq!(
            files.keys().map(|path| path.to_str().unwrap()).collect::<Vec<_>>(),
            ["a", "d/b"]
        );
        assert!(matches!(
            Content::parse(request("secret", &[("", "x")])).unwrap().1,
            Content::File(file) if file.bytes == b"x" && file.mode == 0o640 && (file.uid, file.gid) == (7, 8)
        ));
        assert!(matches!(Content::parse(request("secret", &[])).unwrap().1, Content::Tree(files) if files.is_empty()));
        let memory = PutVolumeRequest {
            size_limit_bytes: 4096,
            ..request("empty-dir", &[])
        };
        assert_eq!(
            Content::parse(memory).unwrap().1,
            Content::Memory { size_limit: Some(4096) }
        );
    }

    #[test]
    fn t10_paths_that_leave_the_volume_or_are_not_plain_are_refused() {
        for bad in [
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "../a",
            "a/../b",
            "a/./b",
            "..data",
            "..2026",
            "a\nb",
            "a\0b",
            &"a".repeat(256),
            &"a/".repeat(600),
            &format!("{}a", "a/".repeat(32)),
        ] {
            let error = refusal("config-map", &[(bad, ""), ("other", "")]);
            assert!(matches!(error, VolumeError::Path { .. }), "{bad:?}: {error}");
        }
        let deepest = format!("{}a", "a/".repeat(31));
        let good = [("a..b", ""), ("d/..data", ""), (deepest.as_str(), "")];
        assert!(Content::parse(request("config-map", &good)).is_ok());
    }

    #[test]
    fn t10_a_path_is_there_once_and_is_a_file_or_a_directory() {
        for files in [
            [("a", ""), ("a", "")],
            [("a", ""), ("a/b", "")],
            [("a/b", ""), ("a", "")],
            [("a/b/c", ""), ("a/b", "")],
        ] {
            assert!(
                matches!(refusal("secret", &files), VolumeError::Overlap { .. }),
                "{files:?}"
            );
        }
        // An empty path means one file, so it cannot be one of several.
        assert!(matches!(
            refusal("secret", &[("", ""), ("a", "")]),
            VolumeError::Path { .. }
        ));
    }

    #[test]
    fn t10_there_is_a_limit_to_everything() {
        let many: Vec<String> = (0..=MAX_FILES).map(|number| number.to_string()).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|path| (path.as_str(), "")).collect();
        assert!(matches!(
            refusal("secret", &many),
            VolumeError::TooManyFiles { count: 1025 }
        ));
        let mut set_id = request("secret", &[("a", "")]);
        set_id.files[0].mode = 0o4755;
        assert!(matches!(
            Content::parse(set_id),
            Err(VolumeError::Mode { mode: 0o4755, .. })
        ));
    }

    #[test]
    fn kinds_have_their_forms() {
        assert!(matches!(refusal("host-path", &[]), VolumeError::Kind { .. }));
        assert!(matches!(refusal("empty-dir", &[("a", "")]), VolumeError::Form { .. }));
        assert!(matches!(refusal("hosts", &[("a", "")]), VolumeError::Form { .. }));
        assert!(matches!(refusal("hosts", &[]), VolumeError::Form { .. }));
        assert!(Content::parse(request("termination-log", &[])).is_ok());
        let sized = PutVolumeRequest {
            size_limit_bytes: 1,
            ..request("secret", &[])
        };
        assert!(matches!(Content::parse(sized), Err(VolumeError::Form { .. })));
        assert!(matches!(
            refusal("hostname", &[("", "a b\n")]),
            VolumeError::Line { line: 1, .. }
        ));
    }
}
