//! Whether a model's weights are whole, and what their headers say of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use cella_oci::modelpack::ModelParameters;
use cella_weights::safetensors::Index;
use cella_weights::{MAX_SAFETENSORS_HEADER, ShardName, Tally, WeightsError, check_shards, gguf, safetensors};
use serde::Deserialize;

use super::{Classified, FilesError, Format, ModelFile, open};
use crate::files::{self as small, FileError, parent};

/// Checks that no part of the weights is missing or cut short; gives what the headers say.
pub(super) fn check(files: &[Classified]) -> Result<ModelParameters, FilesError> {
    let mut facts = Facts::default();
    // By folder, then by name: tensors of each safetensors file.
    let mut folders: BTreeMap<PathBuf, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (file, format) in files {
        let folder = parent(&file.on_disk).to_owned();
        let name = name(&file.on_disk);
        let Some(format) = format else { continue };
        let tensors = facts.read(file, *format)?;
        folders.entry(folder).or_default().insert(name, tensors);
    }
    for (folder, weights) in &folders {
        check_shards(weights.keys().map(String::as_str)).map_err(|source| FilesError::Shards {
            path: folder.clone(),
            source,
        })?;
    }
    let mut indexed = BTreeSet::new();
    for (file, _) in files {
        let folder = parent(&file.on_disk);
        if let (Some(index), Some(weights)) = (read_index(file)?, folders.get(folder)) {
            check_index(file, &index, weights)?;
            indexed.insert(folder);
        }
        if name(&file.on_disk) == "config.json" {
            facts.config(&file.on_disk);
        }
    }
    for (file, format) in files {
        let is_part = *format == Some(Format::Safetensors) && ShardName::parse(&name(&file.on_disk)).is_some();
        if is_part && !indexed.contains(parent(&file.on_disk)) {
            return Err(FilesError::NoIndex {
                path: file.on_disk.clone(),
            });
        }
    }
    let other = |format: Option<Format>| files.iter().any(|(_, found)| found.is_some() && *found != format);
    let format = files
        .iter()
        .find_map(|(_, format)| *format)
        .filter(|format| !other(Some(*format)));
    Ok(facts.parameters(format))
}

/// What headers and `config.json` say, gathered over all files.
#[derive(Default)]
struct Facts {
    architecture: Option<String>,
    quantization: Option<String>,
    tally: Tally,
}

impl Facts {
    /// Reads one header; gives the names of a safetensors file's tensors.
    fn read(&mut self, file: &ModelFile, format: Format) -> Result<BTreeSet<String>, FilesError> {
        let bad = |source| FilesError::Weights {
            path: file.on_disk.clone(),
            source,
        };
        let from = BufReader::with_capacity(BUFFER, open(&file.on_disk)?);
        match format {
            Format::Gguf => {
                let header = gguf::read(from, file.length).map_err(bad)?;
                check_split(file, header.split)?;
                self.tally.merge(&header.tally);
                self.architecture = self.architecture.take().or(header.architecture);
                self.quantization = self.quantization.take().or(header.quantization.map(str::to_owned));
                Ok(BTreeSet::new())
            }
            Format::Safetensors => {
                let header = safetensors::read(from, file.length).map_err(bad)?;
                self.tally.merge(&header.tally);
                Ok(header.names.into_iter().collect())
            }
        }
    }

    /// What transformers' `config.json` says. One that cannot be read is the server's to refuse.
    fn config(&mut self, path: &Path) {
        #[derive(Default, Deserialize)]
        struct Config {
            model_type: Option<String>,
            quantization_config: Option<Quantization>,
        }
        #[derive(Deserialize)]
        struct Quantization {
            quant_method: Option<String>,
        }
        let read = small::read(path, small::MAX_TEXT).ok();
        let config: Config = read
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let word = |text: Option<String>| text.filter(|text| is_word(text));
        self.architecture = self.architecture.take().or(word(config.model_type));
        let method = config
            .quantization_config
            .and_then(|quantization| quantization.quant_method);
        self.quantization = self.quantization.take().or(word(method));
    }

    fn parameters(self, format: Option<Format>) -> ModelParameters {
        // GPTQ and its like pack several parameters into an integer: the sum would be of something else.
        let packed = format == Some(Format::Safetensors) && self.quantization.is_some();
        let quantized = match (format, self.tally.dominant()) {
            (Some(Format::Gguf), Some((kind, _))) if self.tally.precision().is_none() && kind != "other" => {
                Some(kind.to_owned())
            }
            _ => None,
        };
        ModelParameters {
            architecture: self.architecture.filter(|text| is_word(text)),
            format: format.map(|format| format.name().to_owned()),
            param_size: self.tally.param_size().filter(|_| !packed),
            precision: self.tally.precision().filter(|_| !packed).map(str::to_owned),
            quantization: self.quantization.or(quantized),
            capabilities: None,
        }
    }
}

/// A GGUF file that is one of several says so in its header too.
fn check_split(file: &ModelFile, split: Option<(u64, u64)>) -> Result<(), FilesError> {
    let Some((no, count)) = split else { return Ok(()) };
    let number = no.saturating_add(1);
    let shard = ShardName::parse(&name(&file.on_disk));
    if shard.is_some_and(|shard| (u64::from(shard.number), u64::from(shard.count)) == (number, count)) {
        Ok(())
    } else {
        Err(FilesError::OtherShard {
            path: file.on_disk.clone(),
            number,
            count,
        })
    }
}

/// The index, if the file is one.
fn read_index(file: &ModelFile) -> Result<Option<Index>, FilesError> {
    if !name(&file.on_disk).ends_with(".safetensors.index.json") {
        return Ok(None);
    }
    let bytes = small::read(&file.on_disk, MAX_SAFETENSORS_HEADER).map_err(|error| match error {
        FileError::Read { path, source } | FileError::Write { path, source } => FilesError::Read { path, source },
        FileError::TooLong { path, limit } => FilesError::Weights {
            path,
            source: WeightsError::TooMuch {
                what: "the index's length",
                found: file.length,
                limit,
            },
        },
        FileError::NotText { path } => FilesError::Name { path },
    })?;
    Index::parse(&bytes).map(Some).map_err(|source| FilesError::Weights {
        path: file.on_disk.clone(),
        source,
    })
}

/// Every file that the index names is there, with the tensors that it says, and no other beside them.
fn check_index(
    file: &ModelFile,
    index: &Index,
    weights: &BTreeMap<String, BTreeSet<String>>,
) -> Result<(), FilesError> {
    let path = || file.on_disk.clone();
    for (tensor, of) in &index.weight_map {
        match weights.get(of) {
            None => {
                return Err(FilesError::NotThere {
                    path: path(),
                    file: of.clone(),
                });
            }
            Some(tensors) if !tensors.contains(tensor) => {
                return Err(FilesError::NoTensor {
                    path: path(),
                    file: of.clone(),
                    tensor: tensor.chars().take(128).collect(),
                });
            }
            Some(_) => {}
        }
    }
    let named: BTreeSet<&String> = index.weight_map.values().collect();
    match weights.keys().find(|name| !named.contains(name)) {
        Some(other) => Err(FilesError::NotNamed {
            path: path(),
            file: other.clone(),
        }),
        None => Ok(()),
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Short and plain: it goes into a public document.
fn is_word(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

const BUFFER: usize = 256 * 1024;
