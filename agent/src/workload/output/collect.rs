//! Which files a job has left. Whoever wrote them may be anybody: names, kinds and lengths are looked at before a byte is read.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use cella_oci::modelpack::{Kind, ModelPath};

use super::OutputError;

/// Files that one output may have: what the manifest and the run record hold with room to spare.
pub(super) const MAX_FILES: usize = 512;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OutputFile {
    pub(super) path: ModelPath,
    pub(super) kind: Kind,
    pub(super) on_disk: PathBuf,
    pub(super) bytes: u64,
}

/// All files below `root`, in the order of their paths. The file system must be read-only: nothing changes while it is walked.
/// Blocks for as long as it takes to look at a few thousand names.
pub(super) fn collect(root: &Path, max_bytes: u64) -> Result<Vec<OutputFile>, OutputError> {
    let read = |source: io::Error| OutputError::Read { source };
    let (mut files, mut open, mut sum) = (Vec::new(), vec![PathBuf::new()], 0_u64);
    while let Some(below) = open.pop() {
        for entry in fs::read_dir(root.join(&below)).map_err(read)? {
            let inside = below.join(entry.map_err(read)?.file_name());
            let on_disk = root.join(&inside);
            let metadata = fs::symlink_metadata(&on_disk).map_err(read)?;
            let path = || inside.to_string_lossy().into_owned();
            if metadata.is_symlink() {
                return Err(OutputError::Link { path: path() });
            }
            if metadata.is_dir() {
                open.push(inside);
                continue;
            }
            if !metadata.is_file() {
                return Err(OutputError::Special { path: path() });
            }
            let text = inside.to_str().ok_or_else(|| OutputError::NotText { path: path() })?;
            let model_path = text
                .parse()
                .map_err(|source| OutputError::Path { path: path(), source })?;
            // A file with holes is as long as it says.
            sum = sum.saturating_add(metadata.len());
            if sum > max_bytes {
                return Err(OutputError::TooLarge { limit: max_bytes });
            }
            if files.len() >= MAX_FILES {
                return Err(OutputError::TooMany);
            }
            files.push(OutputFile {
                path: model_path,
                kind: Kind::WeightConfig,
                on_disk,
                bytes: metadata.len(),
            });
        }
    }
    if files.is_empty() {
        return Err(OutputError::Empty);
    }
    let has_weights = files.iter().any(|file| named(&file.path, &WEIGHTS));
    for file in &mut files {
        file.kind = kind(&file.path, has_weights);
    }
    files.sort_by(|one, two| one.path.cmp(&two.path));
    Ok(files)
}

/// What a file is, by its name. A job's work is not thrown away for a name: what may hold programs is kept as such, and refused by
/// whoever would load it as a model (threat T21). A folder with weights is a model, one without is a dataset.
fn kind(path: &ModelPath, has_weights: bool) -> Kind {
    if named(path, &WEIGHTS) {
        Kind::Weight
    } else if named(path, &PROGRAMS) {
        Kind::Code
    } else if named(path, &DOCS) {
        Kind::Doc
    } else if has_weights {
        Kind::WeightConfig
    } else {
        Kind::Dataset
    }
}

fn named(path: &ModelPath, endings: &[&str]) -> bool {
    let name = path.as_str().to_ascii_lowercase();
    endings.iter().any(|ending| name.ends_with(ending))
}

/// Formats of weights that hold nothing but data.
const WEIGHTS: [&str; 2] = [".gguf", ".safetensors"];
const DOCS: [&str; 3] = [".md", ".pdf", ".html"];
/// Programs, and formats that bring their own.
const PROGRAMS: [&str; 12] = [
    ".py", ".pyc", ".so", ".sh", ".js", ".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".joblib",
];

/// The format of the weights, for the artifact's configuration.
pub(super) fn format(files: &[OutputFile]) -> Option<&'static str> {
    let has = |ending| files.iter().any(|file| named(&file.path, &[ending]));
    match (has(".gguf"), has(".safetensors")) {
        (true, false) => Some("gguf"),
        (false, true) => Some("safetensors"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        ffi::OsStr,
        os::unix::{ffi::OsStrExt, fs::symlink, net::UnixListener},
    };

    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let at = folder.path().join(path);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(at, content).unwrap();
        }
        folder
    }

    fn found(files: &[(&str, &[u8])]) -> Vec<(String, Kind, u64)> {
        let folder = folder(files);
        let files = collect(folder.path(), 1000).unwrap();
        let facts = |file: OutputFile| (file.path.to_string(), file.kind, file.bytes);
        files.into_iter().map(facts).collect()
    }

    #[test]
    fn files_are_sorted_and_have_kinds() {
        let model = found(&[
            ("b/model.GGUF", b"GGUF"),
            ("README.md", b""),
            ("a.json", b"{}"),
            ("optimizer.pt", b"x"),
            (".hidden", b"h"),
        ]);
        assert_eq!(
            model,
            [
                (".hidden".into(), Kind::WeightConfig, 1),
                ("README.md".into(), Kind::Doc, 0),
                ("a.json".into(), Kind::WeightConfig, 2),
                ("b/model.GGUF".into(), Kind::Weight, 4),
                ("optimizer.pt".into(), Kind::Code, 1),
            ]
        );
        assert_eq!(
            found(&[("rows.jsonl", b"{}")]),
            [("rows.jsonl".into(), Kind::Dataset, 2)]
        );
        let both = folder(&[("a.gguf", b""), ("b.safetensors", b"")]);
        assert_eq!(format(&collect(both.path(), 1).unwrap()), None);
        let one = folder(&[("a.gguf", b"")]);
        assert_eq!(format(&collect(one.path(), 1).unwrap()), Some("gguf"));
    }

    #[test]
    fn nothing_is_no_output() {
        let folder = folder(&[]);
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        assert!(matches!(collect(folder.path(), 1000), Err(OutputError::Empty)));
    }

    #[test]
    fn links_and_special_files_are_refused_by_name() {
        let linked = folder(&[("a.gguf", b"x")]);
        symlink("/etc/passwd", linked.path().join("b")).unwrap();
        let error = collect(linked.path(), 1000).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("\"b\" in the output folder is a symbolic link"),
            "{error}"
        );
        let dangling = folder(&[("a.gguf", b"x")]);
        fs::create_dir(dangling.path().join("d")).unwrap();
        symlink("nowhere", dangling.path().join("d/l")).unwrap();
        assert!(matches!(collect(dangling.path(), 1000), Err(OutputError::Link { path }) if path == "d/l"));
        let special = folder(&[("a.gguf", b"x")]);
        let _listener = UnixListener::bind(special.path().join("s")).unwrap();
        assert!(matches!(collect(special.path(), 1000), Err(OutputError::Special { path }) if path == "s"));
    }

    #[test]
    fn names_that_no_artifact_has_are_refused() {
        for name in [&b"a\nb"[..], b"a\\b", b"\x1b[2J"] {
            let folder = folder(&[]);
            fs::write(folder.path().join(OsStr::from_bytes(name)), b"x").unwrap();
            let error = collect(folder.path(), 1000).unwrap_err();
            assert!(matches!(error, OutputError::Path { .. }), "{error}");
            assert!(!error.to_string().contains(char::is_control), "{error:?}");
        }
        let folder = folder(&[]);
        fs::write(folder.path().join(OsStr::from_bytes(b"\xff")), b"x").unwrap();
        assert!(matches!(collect(folder.path(), 1000), Err(OutputError::NotText { .. })));
    }

    #[test]
    fn lengths_count_and_not_blocks() {
        let exact = folder(&[("a", b"12345"), ("b", b"12345")]);
        assert_eq!(collect(exact.path(), 10).unwrap().len(), 2);
        assert!(matches!(
            collect(exact.path(), 9),
            Err(OutputError::TooLarge { limit: 9 })
        ));
        let sparse = folder(&[]);
        let file = fs::File::create(sparse.path().join("a")).unwrap();
        file.set_len(1 << 40).unwrap();
        assert!(matches!(
            collect(sparse.path(), 1 << 20),
            Err(OutputError::TooLarge { .. })
        ));
    }

    #[test]
    fn there_are_so_many_files_at_most() {
        let many = tempfile::tempdir().unwrap();
        for number in 0..=MAX_FILES {
            fs::write(many.path().join(number.to_string()), b"").unwrap();
        }
        assert!(matches!(collect(many.path(), 1000), Err(OutputError::TooMany)));
    }
}
