//! Sealing: each file becomes a layer under a key of its own, bound to the model's name, its path and the version.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use cella_oci::modelpack::{
    CONFIG_TYPE, Form, LayerType, ModelDescriptor, ModelError, ModelParameters, NewLayer, NewModel, write_model,
};
use cella_oci::{Digest, check_repository};
use cella_policy::KeyId;
use cella_seal::packet::{self, Cipher, PacketError, PrivateOptions, PubOpts};
use cella_seal::place::{self, PlaceError};
use cella_seal::stream::{self, SealError, SealedFile};
use cella_seal::{DataKey, Kek, PlainDigest, RandomError};

use super::files::{self, FilesError, Format, ModelFile};
use crate::keyfile::{self, KeyFileError};
use crate::layout::{Layout, LayoutError};
use crate::units;

/// `cellactl model seal`.
#[derive(Debug, clap::Args)]
pub(crate) struct SealArgs {
    /// The model: one GGUF or safetensors file, or a folder with its weights, configuration and documentation.
    path: PathBuf,
    /// Name that the sealing binds, as the policy has it: models/demo.
    #[arg(long, value_parser = model_name)]
    name: String,
    /// Version that the sealing binds. Count up with each release: the broker can then refuse older ones.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=i64::MAX.unsigned_abs()))]
    version: u64,
    /// Name of the key at the broker: kbs:///repository/type/tag.
    #[arg(long, value_name = "KBS_URI")]
    key: KeyId,
    /// File of the key: 32 raw bytes, mode 0600. Made when it is not there.
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// Format that the weights must have. Found out by default.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Threads that seal; each holds one segment of 1 MiB. All processors by default.
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Directory to make.
    #[arg(long, value_name = "LAYOUT_DIR")]
    out: PathBuf,
}

pub(super) fn run(args: &SealArgs) -> Result<String, SealModelError> {
    let (files, format) = files::collect(&args.path)?;
    if let Some(wanted) = args.format.filter(|wanted| *wanted != format) {
        return Err(SealModelError::Format {
            wanted: wanted.name(),
            found: format.name(),
        });
    }
    let keys = keyfile::load_or_create(&args.key_file)?;
    if keys.created {
        eprintln!("made the key file {}", args.key_file.display());
    }
    let layout = Layout::create(&args.out)?;
    let threads = args
        .threads
        .or_else(|| std::thread::available_parallelism().ok())
        .unwrap_or(NonZeroUsize::MIN);
    let job = Job {
        args,
        kek: &keys.kek,
        layout: &layout,
        threads,
    };
    let started = Instant::now();
    let mut plaintext = 0;
    let mut layers = Vec::with_capacity(files.len());
    for file in &files {
        let (layer, length) = job.seal(file)?;
        layers.push(layer);
        plaintext += length;
    }
    let model = NewModel {
        name: args.name.clone(),
        version: args.version,
        descriptor: ModelDescriptor::default(),
        parameters: ModelParameters {
            format: Some(format.name().to_owned()),
            ..ModelParameters::default()
        },
        layers,
    };
    let (config, manifest) = write_model(model)?;
    layout.put(CONFIG_TYPE, &config)?;
    let published = layout.publish(&manifest, Some(&format!("{}:v{}", args.name, args.version)))?;
    Ok(format!(
        "{}: {} version {}, {}, {} bytes, {}\n{}\n",
        args.out.display(),
        args.name,
        args.version,
        if files.len() == 1 {
            "1 file".to_owned()
        } else {
            format!("{} files", files.len())
        },
        units::grouped(plaintext),
        units::duration(started.elapsed()),
        published.digest
    ))
}

struct Job<'a> {
    args: &'a SealArgs,
    kek: &'a Kek,
    layout: &'a Layout,
    threads: NonZeroUsize,
}

impl Job<'_> {
    /// Seals one file; gives its layer and its plaintext's length.
    fn seal(&self, file: &ModelFile) -> Result<(NewLayer, u64), SealModelError> {
        let path = file.path.as_str();
        let failed = |source| SealModelError::Open {
            path: file.on_disk.clone(),
            source,
        };
        let from = File::open(&file.on_disk).map_err(failed)?;
        let total = from.metadata().map_err(failed)?.len();
        let data = place::associated_data(&self.args.name, path, self.args.version)?;
        let key = DataKey::random()?;
        let staged = self.layout.stage()?;
        let sealed = with_progress(path, total, staged.file(), || {
            stream::seal_file(&key, &data, &from, staged.file(), self.threads)
        })
        .map_err(|source| SealModelError::Seal {
            path: file.on_disk.clone(),
            source,
        })?;
        let SealedFile {
            layout,
            plaintext_sha256,
            ciphertext_sha256,
        } = sealed;

        let public = PubOpts {
            cipher: Cipher::TinkStream,
            hmac: None,
        };
        let private = PrivateOptions {
            symkey: key,
            digest: PlainDigest(plaintext_sha256),
            nonce: None,
        };
        let annotations = packet::wrap_layer(&public, &private, self.kek, self.args.key.as_str())?;
        let media_type = LayerType {
            kind: file.kind,
            form: Form::Raw,
            sealed: true,
        }
        .to_string();
        let blob = staged.commit_as(&media_type, Digest::from(ciphertext_sha256), layout.ciphertext_len())?;
        let layer = NewLayer {
            path: file.path.clone(),
            kind: file.kind,
            digest: blob.digest,
            size: blob.size,
            diff_id: Digest::from(plaintext_sha256),
            key_annotations: Some(annotations),
        };
        Ok((layer, layout.plaintext_len()))
    }
}

/// Runs `work`, which writes `out` from front to back, and shows how far it is: on a terminal every half second, and
/// one line at the end in any case.
fn with_progress<T>(name: &str, total: u64, out: &File, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let done = std::thread::scope(|scope| {
        let (finished, wait) = mpsc::channel::<()>();
        if io::stderr().is_terminal() {
            scope.spawn(move || {
                while wait.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                    let written = out.metadata().map_or(0, |metadata| metadata.len()).min(total);
                    eprint!(
                        "\rsealing {name}: {} of {}   ",
                        units::bytes(written),
                        units::bytes(total)
                    );
                }
                eprint!("\r");
            });
        }
        let done = work();
        drop(finished);
        done
    });
    eprintln!(
        "sealed {name}: {} in {}",
        units::bytes(total),
        units::duration(started.elapsed())
    );
    done
}

fn model_name(text: &str) -> Result<String, String> {
    check_repository(text)
        .map(|()| text.to_owned())
        .map_err(|error| error.to_string())
}

/// Why a model was not sealed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SealModelError {
    /// The files.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The key file.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// The layout.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Another format than asked for.
    #[error("the weights are {found}, --format says {wanted}")]
    Format { wanted: &'static str, found: &'static str },
    /// A file cannot be opened.
    #[error("opening {}", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// A file was not sealed.
    #[error("sealing {}", path.display())]
    Seal { path: PathBuf, source: SealError },
    /// Name or path cannot be bound.
    #[error("the model's name or a path in it cannot be bound")]
    Place(#[from] PlaceError),
    /// No random bytes.
    #[error("drawing a file's key")]
    Random(#[from] RandomError),
    /// The key could not be wrapped.
    #[error("wrapping a file's key")]
    Packet(#[from] PacketError),
    /// The files do not make a model.
    #[error("the files do not make a model")]
    Model(#[from] ModelError),
}

const TICK: Duration = Duration::from_millis(500);
