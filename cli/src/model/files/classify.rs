//! What a file is, by its name, and whether it begins as its name says.

use std::io::Read as _;
use std::path::Path;

use cella_oci::modelpack::Kind;
use cella_weights::MAX_SAFETENSORS_HEADER;

use super::{Contents, FilesError, Format, open, read_failed};

/// Kind of the file, and format of weights that hold data only.
pub(super) fn classify(
    on_disk: &Path,
    inside: &Path,
    contents: Contents,
) -> Result<(Kind, Option<Format>), FilesError> {
    if contents == Contents::Dataset {
        return Ok((Kind::Dataset, None));
    }
    let path = || on_disk.to_owned();
    let name = inside
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
        .to_ascii_lowercase();
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    let strict = contents == Contents::Model;
    let (kind, format) = match extension {
        "gguf" => (Kind::Weight, Some(Format::Gguf)),
        "safetensors" => (Kind::Weight, Some(Format::Safetensors)),
        _ if CODE.contains(&extension) && strict => return Err(FilesError::Code { path: path() }),
        _ if CODE.contains(&extension) => (Kind::Code, None),
        _ if PICKLES.contains(&extension) && strict => return Err(FilesError::Pickle { path: path() }),
        _ if PICKLES.contains(&extension) || extension == "onnx" && !strict => (Kind::Weight, None),
        _ if DOCS.contains(&extension) || DOC_NAMES.iter().any(|doc| name.starts_with(doc)) => (Kind::Doc, None),
        _ if CONFIGS.contains(&extension) => (Kind::WeightConfig, None),
        _ if strict => return Err(FilesError::Unknown { path: path() }),
        _ => (Kind::Dataset, None),
    };
    if let Some(format) = format {
        check_magic(on_disk, format)?;
    }
    Ok((kind, format))
}

/// A name is a promise; the first bytes tell whether it is kept.
fn check_magic(path: &Path, format: Format) -> Result<(), FilesError> {
    let mut head = Vec::with_capacity(9);
    open(path)?
        .take(9)
        .read_to_end(&mut head)
        .map_err(|error| read_failed(path, error))?;
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

const CODE: [&str; 9] = ["py", "pyc", "sh", "so", "js", "exe", "dll", "ipynb", "cu"];
const PICKLES: [&str; 11] = [
    "bin", "pt", "pth", "pkl", "pickle", "ckpt", "joblib", "npy", "npz", "h5", "keras",
];
const CONFIGS: [&str; 7] = ["json", "model", "txt", "jinja", "tiktoken", "yaml", "toml"];
const DOCS: [&str; 3] = ["md", "rst", "pdf"];
const DOC_NAMES: [&str; 4] = ["license", "notice", "readme", "copying"];
