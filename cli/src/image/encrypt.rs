//! ocicrypt: each layer compressed, then encrypted under a key of its own, which travels wrapped beside it.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;

use cella_oci::image::{self, Compression, ImageConfig, ImageError, ImageLayer, MAX_CONFIG};
use cella_oci::{Descriptor, Manifest, media_type};
use cella_policy::KeyId;
use cella_seal::packet::{self, PacketError, PrivateOptions, PubOpts};
use cella_seal::{Kek, RandomError, layer::LayerEncryptor};
use flate2::GzBuilder;

use super::verify::{self, VerifyError};
use crate::keyfile::{self, KeyFileError};
use crate::layout::{Layout, LayoutError};
use crate::lint::{self, Suspicion};
use crate::store::{Access, Artifact, Location, StoreError};
use crate::transfer;

/// `cellactl image encrypt`.
#[derive(Debug, clap::Args)]
pub(crate) struct EncryptArgs {
    /// The plain image: registry/repository:tag, registry/repository@digest or oci:DIR.
    source: Location,
    /// Where the encrypted one goes: registry/repository:tag or oci:DIR.
    destination: Location,
    /// Name of the key at the broker: kbs:///repository/type/tag.
    #[arg(long, value_name = "KBS_URI")]
    key: KeyId,
    /// File of the key: 32 raw bytes, mode 0600. Made when it is not there.
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// A variable of the image that looks like a secret and is none.
    #[arg(long, value_name = "NAME")]
    allow_env: Vec<String>,
    /// Which image of a multi-platform one.
    #[arg(long, default_value = "amd64")]
    arch: String,
    #[command(flatten)]
    access: Access,
}

pub(super) async fn run(args: &EncryptArgs) -> Result<String, EncryptError> {
    let source = args.source.open(&args.access, &args.arch).await?;
    let plain = PlainImage::read(&source, &args.allow_env).await?;
    let keys = keyfile::load_or_create(&args.key_file)?;
    if keys.created {
        eprintln!("made the key file {}", args.key_file.display());
    }
    let wrapping = Wrapping {
        kek: &keys.kek,
        kid: &args.key,
    };
    let reference = match &args.destination {
        Location::Layout(path) => {
            let layout = Layout::create(path)?;
            let published = encrypt(&source, &plain, &wrapping, &layout).await?;
            format!("oci:{}@{}", path.display(), published.digest)
        }
        Location::Registry(reference) => {
            let scratch = tempfile::tempdir().map_err(|source| EncryptError::Scratch { source })?;
            let layout = Layout::create(scratch.path())?;
            encrypt(&source, &plain, &wrapping, &layout).await?;
            transfer::push(&layout, reference, &args.access, None)
                .await?
                .to_string()
        }
    };
    let result = args.destination.open(&args.access, &args.arch).await?;
    verify::check(&result, &plain, &wrapping).await?;
    Ok(format!("{reference}\n"))
}

/// A plain image, read and found fit to be encrypted.
pub(super) struct PlainImage {
    pub(super) config: Vec<u8>,
    pub(super) layers: Vec<ImageLayer>,
}

impl PlainImage {
    /// Reads manifest and configuration; refuses what is encrypted already and what shows a secret in the clear.
    pub(super) async fn read(source: &Artifact, allowed: &[String]) -> Result<Self, EncryptError> {
        let config = source.config(MAX_CONFIG).await?;
        let parsed = ImageConfig::parse(&config)?;
        let layers = image::layers(&source.manifest, &parsed)?;
        if let Some(index) = layers.iter().position(|layer| layer.encrypted) {
            return Err(EncryptError::Encrypted { index });
        }
        match suspicions(&parsed, &config, allowed).into_iter().next() {
            Some(source) => Err(EncryptError::Secret { source }),
            None => Ok(Self { config, layers }),
        }
    }

    /// Digests of the layers in the clear: none of them may be reachable from the result.
    pub(super) fn digests(&self) -> BTreeSet<cella_oci::Digest> {
        self.layers.iter().map(|layer| layer.descriptor.digest).collect()
    }
}

/// Under which key layers are encrypted.
pub(super) struct Wrapping<'k> {
    pub(super) kek: &'k Kek,
    pub(super) kid: &'k KeyId,
}

/// Writes the encrypted image into `layout`.
pub(super) async fn encrypt(
    source: &Artifact,
    plain: &PlainImage,
    wrapping: &Wrapping<'_>,
    layout: &Layout,
) -> Result<Descriptor, EncryptError> {
    let mut layers = Vec::with_capacity(plain.layers.len());
    for layer in &plain.layers {
        layers.push(encrypt_layer(source, layer, wrapping, layout).await?);
    }
    let mut config = layout.put(media_type::OCI_CONFIG, &plain.config)?;
    config.annotations = source.manifest.config.annotations.clone();
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        artifact_type: None,
        config,
        layers,
        annotations: source.manifest.annotations.clone(),
    };
    Ok(layout.publish(&manifest, None)?)
}

async fn encrypt_layer(
    source: &Artifact,
    layer: &ImageLayer,
    wrapping: &Wrapping<'_>,
    layout: &Layout,
) -> Result<Descriptor, EncryptError> {
    let encrypting = Encrypting {
        to: layout.stage()?,
        encryptor: LayerEncryptor::new()?,
        buffer: Vec::new(),
    };
    let (encrypting, compression) = match layer.compression {
        // Not every reader of encrypted layers takes an uncompressed one.
        Compression::None => {
            let mut compressor = GzBuilder::new()
                .mtime(0)
                .write(encrypting, flate2::Compression::default());
            source
                .store
                .stream(&layer.descriptor, |bytes| {
                    compressor.write_all(bytes).map_err(StoreError::from)
                })
                .await?;
            (
                compressor
                    .finish()
                    .map_err(|source| EncryptError::Compress { source })?,
                Compression::Gzip,
            )
        }
        compressed => {
            let mut encrypting = encrypting;
            source
                .store
                .stream(&layer.descriptor, |bytes| {
                    encrypting.write_all(bytes).map_err(StoreError::from)
                })
                .await?;
            (encrypting, compressed)
        }
    };
    let options = encrypting.encryptor.finish();
    let mut descriptor = encrypting.to.commit(&image::layer_media_type(compression, true))?;
    descriptor.annotations = layer.descriptor.annotations.clone();
    descriptor
        .annotations
        .extend(wrap(&options.public, &options.private, wrapping)?);
    Ok(descriptor)
}

fn wrap(
    public: &PubOpts,
    private: &PrivateOptions,
    wrapping: &Wrapping<'_>,
) -> Result<std::collections::BTreeMap<String, String>, PacketError> {
    packet::wrap_layer(public, private, wrapping.kek, wrapping.kid.as_str())
}

/// Encrypts what is written to it.
struct Encrypting<W> {
    to: W,
    encryptor: LayerEncryptor,
    buffer: Vec<u8>,
}

impl<W: Write> Write for Encrypting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.clear();
        self.buffer.extend_from_slice(bytes);
        self.encryptor.update(&mut self.buffer);
        // All or nothing: the cipher has moved on by all of it.
        self.to.write_all(&self.buffer)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Everything in a configuration that looks like a secret.
fn suspicions(config: &ImageConfig, raw: &[u8], allowed: &[String]) -> Vec<Suspicion> {
    let run = &config.config;
    let labels: Vec<String> = run
        .labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mut found = lint::variables("variable", &run.env, allowed);
    found.extend(lint::variables("label", &labels, allowed));
    found.extend(lint::arguments("entrypoint", &run.entrypoint, allowed));
    found.extend(lint::arguments("cmd", &run.cmd, allowed));
    let history = serde_json::from_slice::<History>(raw)
        .map(|raw| raw.history.unwrap_or_default())
        .unwrap_or_default();
    for (index, step) in history.iter().enumerate() {
        for text in [&step.created_by, &step.comment].into_iter().flatten() {
            found.extend(lint::text(&format!("history[{index}]"), text, allowed));
        }
    }
    found
}

/// The part of a configuration that only people read.
#[derive(serde::Deserialize)]
struct History {
    history: Option<Vec<Step>>,
}

#[derive(serde::Deserialize)]
struct Step {
    created_by: Option<String>,
    comment: Option<String>,
}

/// Why an image was not encrypted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum EncryptError {
    /// Reading or pushing.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Writing.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The key file.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// Not an image that can be used.
    #[error("the source cannot be encrypted")]
    Image(#[from] ImageError),
    /// A layer is encrypted already.
    #[error("layer {index} of the source is encrypted already; start from the plain image")]
    Encrypted { index: usize },
    /// The configuration shows a secret.
    #[error(
        "refused: an image's configuration stays public when its layers are encrypted; \
         if it is no secret, say --allow-env NAME"
    )]
    Secret { source: Suspicion },
    /// No random bytes.
    #[error("drawing a layer's key")]
    Random(#[from] RandomError),
    /// The key could not be wrapped.
    #[error("wrapping a layer's key")]
    Packet(#[from] PacketError),
    /// The layer could not be compressed.
    #[error("compressing a layer")]
    Compress { source: io::Error },
    /// No temporary directory.
    #[error("making a temporary directory")]
    Scratch { source: io::Error },
    /// The result is not what it must be.
    #[error("the encrypted image did not pass its check and must not be used")]
    Verify(#[from] VerifyError),
}
