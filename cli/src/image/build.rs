//! From a directory tree to an image of one layer.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use cella_oci::image::{self, Compression, ImageConfig, RootFs, RootFsKind, RunConfig};
use cella_oci::{Digest, Manifest, Verifier, media_type};
use flate2::GzBuilder;

use super::tree::{self, TreeError};
use crate::layout::{Layout, LayoutError};
use crate::lint::{self, Suspicion};

/// `cellactl image build`.
#[derive(Debug, clap::Args)]
pub(crate) struct BuildArgs {
    /// The tree that becomes the container's root. Owners and times are not kept.
    #[arg(long, value_name = "DIR")]
    pub(super) from_dir: PathBuf,
    /// Name of the image in the layout's index, as in demo/server:v1.
    #[arg(long, value_name = "NAME")]
    pub(super) tag: String,
    /// One word of the entry point; repeat it for more, or give one JSON list.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub(super) entrypoint: Vec<String>,
    /// One word of the default arguments; repeat it for more, or give one JSON list.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub(super) cmd: Vec<String>,
    /// A variable. The configuration is public, even of an encrypted image: what looks like a secret is refused.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) env: Vec<String>,
    /// A variable that looks like a secret and is none.
    #[arg(long, value_name = "NAME")]
    pub(super) allow_env: Vec<String>,
    /// Whom it runs as: user or user:group. A number is a policy's exact user; a name is looked up in the image's own files
    /// by the guest, so its policy says user = "image".
    #[arg(long, value_parser = user)]
    pub(super) user: Option<String>,
    /// Working directory.
    #[arg(long, value_name = "PATH")]
    pub(super) workdir: Option<String>,
    /// Architecture of the programs in the tree.
    #[arg(long, default_value = "amd64")]
    pub(super) arch: String,
    /// Directory to make.
    #[arg(long, value_name = "LAYOUT_DIR")]
    pub(super) out: PathBuf,
}

pub(super) fn run(args: &BuildArgs) -> Result<String, BuildError> {
    let (digest, size) = build(args)?;
    Ok(format!(
        "{}: {} of {} compressed\n{digest}\n",
        args.out.display(),
        args.tag,
        crate::units::bytes(size)
    ))
}

/// Builds it; gives the manifest's digest and the size of the layer.
pub(super) fn build(args: &BuildArgs) -> Result<(Digest, u64), BuildError> {
    let config = RunConfig {
        user: args.user.clone().unwrap_or_default(),
        env: variables(&args.env)?,
        entrypoint: words("--entrypoint", &args.entrypoint)?,
        cmd: words("--cmd", &args.cmd)?,
        working_dir: args.workdir.clone().unwrap_or_default(),
        volumes: BTreeMap::new(),
        stop_signal: String::new(),
        labels: BTreeMap::new(),
    };
    if let Some(suspicion) = lint::variables("variable", &config.env, &args.allow_env)
        .into_iter()
        .next()
    {
        return Err(BuildError::Secret { source: suspicion });
    }
    let layout = Layout::create(&args.out)?;
    let compressor = GzBuilder::new()
        .mtime(0)
        .write(layout.stage()?, flate2::Compression::default());
    let hashed = tree::write_tree(
        &args.from_dir,
        Hashed {
            to: compressor,
            verifier: Verifier::new(),
        },
    )?;
    let diff_id = hashed.verifier.digest();
    let layer = hashed.to.finish().map_err(|source| BuildError::Compress { source })?;
    let layer = layer.commit(&image::layer_media_type(Compression::Gzip, false))?;
    let config = ImageConfig {
        architecture: args.arch.clone(),
        os: "linux".to_owned(),
        config,
        rootfs: RootFs {
            kind: RootFsKind::Layers,
            diff_ids: vec![diff_id],
        },
    };
    let config = serde_json::to_vec(&config).map_err(|source| BuildError::Config { source })?;
    let size = layer.size;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        artifact_type: None,
        config: layout.put(media_type::OCI_CONFIG, &config)?,
        layers: vec![layer],
        annotations: BTreeMap::new(),
    };
    Ok((layout.publish(&manifest, Some(&args.tag))?.digest, size))
}

/// Words as given, or those of one JSON list.
fn words(flag: &'static str, given: &[String]) -> Result<Vec<String>, BuildError> {
    match given {
        [list] if list.starts_with('[') => {
            serde_json::from_str(list).map_err(|source| BuildError::Words { flag, source })
        }
        words => Ok(words.to_vec()),
    }
}

fn variables(given: &[String]) -> Result<Vec<String>, BuildError> {
    match given
        .iter()
        .find(|pair| pair.split_once('=').is_none_or(|(name, _)| name.is_empty()))
    {
        Some(pair) => Err(BuildError::Variable { given: pair.clone() }),
        None => Ok(given.to_vec()),
    }
}

fn user(text: &str) -> Result<String, String> {
    let is_name = |name: &str| {
        (1..=64).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    let (user, group) = text.split_once(':').unwrap_or((text, "0"));
    match is_name(user) && is_name(group) {
        true => Ok(text.to_owned()),
        false => Err("must be user or user:group, each a number or a name of A-Z a-z 0-9 . _ -".to_owned()),
    }
}

/// A writer that hashes what passes.
struct Hashed<W> {
    to: W,
    verifier: Verifier,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        if let Some(bytes) = bytes.get(..count) {
            self.verifier.update(bytes);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Why no image was built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum BuildError {
    /// The tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The layout.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The layer could not be compressed.
    #[error("compressing the layer")]
    Compress { source: io::Error },
    /// A list that is none.
    #[error("{flag} begins with [ but is not a JSON list of strings")]
    Words {
        flag: &'static str,
        source: serde_json::Error,
    },
    /// A variable without a name or a value.
    #[error("--env {given:?} is not NAME=VALUE")]
    Variable { given: String },
    /// A secret in the configuration.
    #[error("refused: an image's configuration is public; if it is no secret, say --allow-env NAME")]
    Secret { source: Suspicion },
    /// The configuration could not be written.
    #[error("writing the image's configuration")]
    Config { source: serde_json::Error },
}
