//! Which files of a folder belong to a model, and which are refused: weights only in formats that hold data, no programs
//! (threat T21).

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use cella_oci::modelpack::{Kind, ModelError, ModelPath};

/// A format of weights that holds nothing but data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// llama.cpp's.
    Gguf,
    /// Hugging Face's.
    Safetensors,
}

impl Format {
    /// The name in a model's configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gguf => "gguf",
            Self::Safetensors => "safetensors",
        }
    }
}

/// A file to be sealed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ModelFile {
    pub(crate) path: ModelPath,
    pub(crate) kind: Kind,
    pub(crate) on_disk: PathBuf,
}

/// All files of the model at `source`, a file or a folder, in the order of their paths; and the format of its weights.
pub(crate) fn collect(source: &Path) -> Result<(Vec<ModelFile>, Format), FilesError> {
    let mut files = Vec::new();
    let metadata = fs::metadata(source).map_err(|error| FilesError::Read {
        path: source.to_owned(),
        source: error,
    })?;
    if metadata.is_dir() {
        walk(source, Path::new(""), &mut files)?;
    } else {
        let name = source.file_name().map(Path::new).unwrap_or(source);
        files.push(classify(source, name)?);
    }
    files.sort_by(|a, b| a.0.path.cmp(&b.0.path));
    let mut formats = files.iter().filter_map(|(_, format)| *format);
    let format = formats.next().ok_or_else(|| FilesError::NoWeights {
        path: source.to_owned(),
    })?;
    if formats.any(|other| other != format) {
        return Err(FilesError::MixedFormats {
            path: source.to_owned(),
        });
    }
    Ok((files.into_iter().map(|(file, _)| file).collect(), format))
}

type Classified = (ModelFile, Option<Format>);

fn walk(root: &Path, below: &Path, files: &mut Vec<Classified>) -> Result<(), FilesError> {
    let directory = root.join(below);
    let failed = |source| FilesError::Read {
        path: directory.clone(),
        source,
    };
    if below.components().count() > MAX_DEPTH {
        return Err(FilesError::TooDeep { path: directory });
    }
    for entry in fs::read_dir(&directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        // Version control, caches and editors: never part of a model.
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let inside = below.join(name);
        let path = root.join(&inside);
        // Follows links: download tools keep the files elsewhere and link to them.
        let kind = fs::metadata(&path).map_err(|source| FilesError::Read {
            path: path.clone(),
            source,
        })?;
        if kind.is_dir() {
            walk(root, &inside, files)?;
        } else {
            files.push(classify(&path, &inside)?);
        }
    }
    Ok(())
}

fn classify(on_disk: &Path, inside: &Path) -> Result<Classified, FilesError> {
    let path = || on_disk.to_owned();
    let text = inside.to_str().ok_or_else(|| FilesError::Name { path: path() })?;
    let model_path: ModelPath = text
        .parse()
        .map_err(|source| FilesError::Path { path: path(), source })?;
    if !fs::metadata(on_disk)
        .map_err(|source| FilesError::Read { path: path(), source })?
        .is_file()
    {
        return Err(FilesError::Special { path: path() });
    }
    let name = inside
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
        .to_ascii_lowercase();
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    let (kind, format) = match extension {
        "gguf" => (Kind::Weight, Some(Format::Gguf)),
        "safetensors" => (Kind::Weight, Some(Format::Safetensors)),
        _ if CODE.contains(&extension) => return Err(FilesError::Code { path: path() }),
        _ if PICKLES.contains(&extension) => return Err(FilesError::Pickle { path: path() }),
        _ if DOCS.contains(&extension) || DOC_NAMES.iter().any(|doc| name.starts_with(doc)) => (Kind::Doc, None),
        _ if CONFIGS.contains(&extension) => (Kind::WeightConfig, None),
        _ => return Err(FilesError::Unknown { path: path() }),
    };
    if let Some(format) = format {
        check_magic(on_disk, format)?;
    }
    Ok((
        ModelFile {
            path: model_path,
            kind,
            on_disk: path(),
        },
        format,
    ))
}

/// A name is a promise; the first bytes tell whether it is kept.
fn check_magic(path: &Path, format: Format) -> Result<(), FilesError> {
    let failed = |source| FilesError::Read {
        path: path.to_owned(),
        source,
    };
    let mut head = Vec::with_capacity(9);
    File::open(path)
        .map_err(failed)?
        .take(9)
        .read_to_end(&mut head)
        .map_err(failed)?;
    let genuine = match format {
        Format::Gguf => head.starts_with(b"GGUF"),
        Format::Safetensors => match (head.first_chunk::<8>(), head.get(8)) {
            (Some(length), Some(b'{')) => (2..=MAX_SAFETENSORS_HEADER).contains(&u64::from_le_bytes(*length)),
            _ => false,
        },
    };
    if genuine {
        Ok(())
    } else {
        Err(FilesError::Magic {
            path: path.to_owned(),
            format: format.name(),
        })
    }
}

/// Why a folder is no model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FilesError {
    /// Reading failed.
    #[error("reading {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A name that no manifest can hold.
    #[error("{} has a name that is not UTF-8", path.display())]
    Name { path: PathBuf },
    /// A name that no manifest may hold.
    #[error("{} has a name that a model's file cannot have", path.display())]
    Path { path: PathBuf, source: ModelError },
    /// Folders in folders in folders.
    #[error("{} lies deeper than {MAX_DEPTH} folders", path.display())]
    TooDeep { path: PathBuf },
    /// Neither file nor folder.
    #[error("{} is neither a file nor a folder", path.display())]
    Special { path: PathBuf },
    /// No weights at all.
    #[error("{} holds no weights: a .gguf or .safetensors file is expected", path.display())]
    NoWeights { path: PathBuf },
    /// Two formats in one model.
    #[error("{} holds GGUF and safetensors; seal one of them", path.display())]
    MixedFormats { path: PathBuf },
    /// A program.
    #[error("{} is a program; models run none: remove it from the folder", path.display())]
    Code { path: PathBuf },
    /// Weights that can run code.
    #[error(
        "{} is in a format that can run code when it is loaded; convert it to safetensors and remove it",
        path.display()
    )]
    Pickle { path: PathBuf },
    /// Something else.
    #[error("{} is of no kind that belongs to a model; remove it from the folder", path.display())]
    Unknown { path: PathBuf },
    /// The name says more than the content keeps.
    #[error("{} does not begin like a {format} file", path.display())]
    Magic { path: PathBuf, format: &'static str },
}

const MAX_DEPTH: usize = 8;
/// The limit of the format's own library.
const MAX_SAFETENSORS_HEADER: u64 = 100_000_000;
const CODE: [&str; 9] = ["py", "pyc", "sh", "so", "js", "exe", "dll", "ipynb", "cu"];
const PICKLES: [&str; 11] = [
    "bin", "pt", "pth", "pkl", "pickle", "ckpt", "joblib", "npy", "npz", "h5", "keras",
];
const CONFIGS: [&str; 7] = ["json", "model", "txt", "jinja", "tiktoken", "yaml", "toml"];
const DOCS: [&str; 3] = ["md", "rst", "pdf"];
const DOC_NAMES: [&str; 4] = ["license", "notice", "readme", "copying"];

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    const SAFETENSORS: &[u8] = b"\x02\0\0\0\0\0\0\0{}";

    #[test]
    fn a_folder_is_read_in_the_order_of_its_paths() {
        let dir = folder(&[
            ("b.safetensors", SAFETENSORS),
            ("a/c.safetensors", SAFETENSORS),
            ("config.json", b"{}"),
            ("tokenizer.model", b""),
            ("README.md", b""),
            ("LICENSE", b""),
            (".git/x.py", b""),
        ]);
        let (files, format) = collect(dir.path()).unwrap();
        assert_eq!(format, Format::Safetensors);
        let found: Vec<(&str, Kind)> = files.iter().map(|file| (file.path.as_str(), file.kind)).collect();
        assert_eq!(
            found,
            [
                ("LICENSE", Kind::Doc),
                ("README.md", Kind::Doc),
                ("a/c.safetensors", Kind::Weight),
                ("b.safetensors", Kind::Weight),
                ("config.json", Kind::WeightConfig),
                ("tokenizer.model", Kind::WeightConfig),
            ]
        );
        let (single, _) = collect(&dir.path().join("b.safetensors")).unwrap();
        assert_eq!((single.len(), single[0].path.as_str()), (1, "b.safetensors"));
    }

    #[test]
    fn t21_programs_and_pickles_are_refused() {
        let refused = |name: &str| {
            let dir = folder(&[("m.gguf", b"GGUF\x03\0\0\0\0"), (name, b"x")]);
            collect(dir.path()).unwrap_err()
        };
        assert!(matches!(refused("modeling.py"), FilesError::Code { .. }));
        assert!(matches!(refused("lib.SO"), FilesError::Code { .. }));
        assert!(matches!(refused("pytorch_model.bin"), FilesError::Pickle { .. }));
        assert!(matches!(refused("x.pt"), FilesError::Pickle { .. }));
        assert!(matches!(refused("x.unknown"), FilesError::Unknown { .. }));
        assert!(matches!(refused("x.safetensors"), FilesError::Magic { .. }));
    }

    #[test]
    fn folders_without_one_format_are_refused() {
        assert!(matches!(collect(folder(&[]).path()), Err(FilesError::NoWeights { .. })));
        assert!(matches!(
            collect(folder(&[("a.json", b"{}")]).path()),
            Err(FilesError::NoWeights { .. })
        ));
        let mixed = folder(&[("a.gguf", b"GGUF"), ("b.safetensors", SAFETENSORS)]);
        assert!(matches!(collect(mixed.path()), Err(FilesError::MixedFormats { .. })));
        assert!(matches!(
            collect(Path::new("/nonexistent")),
            Err(FilesError::Read { .. })
        ));
        let lying = folder(&[("a.gguf", b"\x80\x04pickle")]);
        assert!(matches!(collect(lying.path()), Err(FilesError::Magic { .. })));
    }
}
