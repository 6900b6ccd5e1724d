//! Which files of a folder belong to a model, and which are refused: weights only in formats that hold data, no programs
//! (threat T21), nothing that is not simply a file.

mod classify;
#[cfg(test)]
mod tests;
mod whole;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use cella_oci::MAX_LAYERS;
use cella_oci::modelpack::{Kind, ModelError, ModelParameters, ModelPath};
use cella_weights::{ShardError, ShardName, WeightsError};
use rustix::fs::{Mode, OFlags};

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

/// What a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Contents {
    /// A model: weights of one format, configuration, tokenizer, documentation, and nothing else.
    Model,
    /// A dataset: every file is data.
    Dataset,
    /// Anything. A guest refuses what its policy does not allow by kind.
    Any,
}

/// How to read a folder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) contents: Contents,
    /// Whether headers of weights are read: for facts, and to see that files are whole.
    pub(crate) headers: bool,
}

/// A file to be sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModelFile {
    pub(crate) path: ModelPath,
    pub(crate) kind: Kind,
    pub(crate) on_disk: PathBuf,
    /// Its length when it was found.
    pub(crate) length: u64,
}

/// A folder's files, fit to be sealed.
#[derive(Debug)]
pub(crate) struct Collected {
    /// In the order of their paths.
    pub(crate) files: Vec<ModelFile>,
    /// Of its weights, where it has some of one format.
    pub(crate) format: Option<Format>,
    /// What the headers say.
    pub(crate) parameters: ModelParameters,
    /// What was left out: names that begin with a dot.
    pub(crate) hidden: Vec<PathBuf>,
}

impl Collected {
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.length))
    }
}

/// All files of the model at `source`, a file, the first of several, or a folder.
pub(crate) fn collect(source: &Path, reading: Reading) -> Result<Collected, FilesError> {
    let mut found = Found {
        contents: reading.contents,
        files: Vec::new(),
        hidden: Vec::new(),
    };
    // A folder may be reached over links; what is sealed must not be one.
    if fs::metadata(source)
        .map_err(|error| read_failed(source, error))?
        .is_dir()
    {
        found.walk(source, Path::new(""))?;
    } else {
        found.shards(source)?;
    }
    let Found { mut files, hidden, .. } = found;
    match files.len() {
        0 if reading.contents != Contents::Model => {
            return Err(FilesError::Empty {
                path: source.to_owned(),
            });
        }
        count if count > MAX_LAYERS => {
            return Err(FilesError::TooMany {
                path: source.to_owned(),
                found: count,
            });
        }
        _ => {}
    }
    files.sort_by(|a, b| a.0.path.cmp(&b.0.path));
    let mut formats = files.iter().filter_map(|(_, format)| *format);
    let format = formats.next();
    let one_format = formats.all(|other| Some(other) == format);
    if reading.contents == Contents::Model {
        if format.is_none() {
            return Err(FilesError::NoWeights {
                path: source.to_owned(),
            });
        }
        if !one_format {
            return Err(FilesError::MixedFormats {
                path: source.to_owned(),
            });
        }
    }
    let format = format.filter(|_| one_format);
    let parameters = match reading {
        Reading {
            contents: Contents::Dataset,
            ..
        } => ModelParameters::default(),
        Reading { headers: true, .. } => whole::check(&files)?,
        Reading { headers: false, .. } => ModelParameters {
            format: format.map(|format| format.name().to_owned()),
            ..ModelParameters::default()
        },
    };
    Ok(Collected {
        files: files.into_iter().map(|(file, _)| file).collect(),
        format,
        parameters,
        hidden,
    })
}

/// Opens a file that is one, not a link to one.
pub(crate) fn open(path: &Path) -> Result<File, FilesError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::LOOP) => return Err(FilesError::Link { path: path.to_owned() }),
        Err(error) => return Err(read_failed(path, error.into())),
    };
    if file.metadata().map_err(|error| read_failed(path, error))?.is_file() {
        Ok(file)
    } else {
        Err(FilesError::Special { path: path.to_owned() })
    }
}

type Classified = (ModelFile, Option<Format>);

struct Found {
    contents: Contents,
    files: Vec<Classified>,
    hidden: Vec<PathBuf>,
}

impl Found {
    fn walk(&mut self, root: &Path, below: &Path) -> Result<(), FilesError> {
        let directory = root.join(below);
        if below.components().count() > MAX_DEPTH {
            return Err(FilesError::TooDeep { path: directory });
        }
        let failed = |error| read_failed(&directory, error);
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let inside = below.join(&name);
            // Version control, caches and editors: never part of a model.
            if name.as_encoded_bytes().starts_with(b".") {
                self.hidden.push(inside);
                continue;
            }
            let path = root.join(&inside);
            let kind = fs::symlink_metadata(&path).map_err(|error| read_failed(&path, error))?;
            if kind.is_dir() {
                self.walk(root, &inside)?;
            } else {
                self.add(&path, &inside)?;
            }
            // Counting on is of no use to anybody.
            if self.files.len() > 2 * MAX_LAYERS {
                break;
            }
        }
        Ok(())
    }

    /// One file, or all parts of one.
    fn shards(&mut self, source: &Path) -> Result<(), FilesError> {
        let name = source.file_name().and_then(|name| name.to_str());
        let shard = name.and_then(ShardName::parse);
        match shard {
            Some(shard) if self.contents != Contents::Dataset => (1..=shard.count).try_for_each(|number| {
                let sibling = shard.sibling(number);
                self.add(&source.with_file_name(&sibling), Path::new(&sibling))
            }),
            _ => self.add(source, Path::new(source.file_name().unwrap_or(source.as_os_str()))),
        }
    }

    fn add(&mut self, on_disk: &Path, inside: &Path) -> Result<(), FilesError> {
        let path = || on_disk.to_owned();
        let text = inside.to_str().ok_or_else(|| FilesError::Name { path: path() })?;
        let model_path: ModelPath = text
            .parse()
            .map_err(|source| FilesError::Path { path: path(), source })?;
        let metadata = fs::symlink_metadata(on_disk).map_err(|error| read_failed(on_disk, error))?;
        if metadata.is_symlink() {
            return Err(FilesError::Link { path: path() });
        }
        if !metadata.is_file() {
            return Err(FilesError::Special { path: path() });
        }
        let (kind, format) = classify::classify(on_disk, inside, self.contents)?;
        let file = ModelFile {
            path: model_path,
            kind,
            on_disk: path(),
            length: metadata.len(),
        };
        self.files.push((file, format));
        Ok(())
    }
}

fn read_failed(path: &Path, source: io::Error) -> FilesError {
    FilesError::Read {
        path: path.to_owned(),
        source,
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
    #[error("{} has a name that is not UTF-8; rename it", path.display())]
    Name { path: PathBuf },
    /// A name that no manifest may hold.
    #[error("{} has a name that a model's file cannot have; rename it", path.display())]
    Path { path: PathBuf, source: ModelError },
    /// Folders in folders in folders.
    #[error("{} lies deeper than {MAX_DEPTH} folders", path.display())]
    TooDeep { path: PathBuf },
    /// A symbolic link.
    #[error(
        "{} is a symbolic link: what is sealed would be what it points to now; put the file itself there \
         (cp -L, or a download into a folder of its own)",
        path.display()
    )]
    Link { path: PathBuf },
    /// Neither file nor folder.
    #[error("{} is neither a file nor a folder", path.display())]
    Special { path: PathBuf },
    /// Nothing at all.
    #[error("{} holds no file", path.display())]
    Empty { path: PathBuf },
    /// More files than a manifest may list.
    #[error("{} holds {found} files, more than the {MAX_LAYERS} that an artifact can have; pack them into fewer", path.display())]
    TooMany { path: PathBuf, found: usize },
    /// No weights at all.
    #[error(
        "{} holds no weights: a .gguf or .safetensors file is expected (--contents dataset or any seals other folders)",
        path.display()
    )]
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
    /// Its header is not what it should be, or the file is not whole.
    #[error("{} is damaged, not whole, or of a kind not known here (--no-facts seals it unread)", path.display())]
    Weights { path: PathBuf, source: WeightsError },
    /// A part is missing.
    #[error("the parts in {} are not complete", path.display())]
    Shards { path: PathBuf, source: ShardError },
    /// Name and header disagree about which part it is.
    #[error("{} is part {} of {count} by its header, and not by its name", path.display(), number)]
    OtherShard { path: PathBuf, number: u64, count: u64 },
    /// A part of several without the index.
    #[error(
        "{} is a part of several, and no .safetensors.index.json beside it says which tensor is where: \
         seal the whole folder, with the index in it",
        path.display()
    )]
    NoIndex { path: PathBuf },
    /// A file that the index names is not there.
    #[error("{} names {file}, which is not there", path.display())]
    NotThere { path: PathBuf, file: String },
    /// A file that the index does not name.
    #[error("{} does not name {file}, which lies beside it: it belongs to another model, or another download", path.display())]
    NotNamed { path: PathBuf, file: String },
    /// The index names a tensor that its file does not have.
    #[error("{} says that {file} holds the tensor {tensor:?}, which it does not", path.display())]
    NoTensor {
        path: PathBuf,
        file: String,
        tensor: String,
    },
}

const MAX_DEPTH: usize = 8;
