//! What everybody can see of a sealed model: whoever has the manifest, and so the host.

use std::fmt::Write as _;

use cella_oci::Digest;
use cella_oci::modelpack::ModelParameters;

use super::opened::{Model, ReadError};
use super::{Facts, FactsError};
use crate::store::{Access, Location, StoreError};
use crate::terminal::escaped;
use crate::units;

/// `cellactl model inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// The model: registry/repository:tag, registry/repository@digest or oci:DIR.
    model: Location,
    /// For programs.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    access: Access,
}

pub(super) async fn run(args: &InspectArgs) -> Result<String, InspectError> {
    let artifact = args.model.open(&args.access, "amd64").await?;
    let facts = Facts::lenient(&artifact.manifest)?;
    let model = Model::read(artifact).await?;
    Ok(if args.json {
        json(&facts, &model)
    } else {
        text(&facts, &model)
    })
}

fn text(facts: &Facts, model: &Model) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "{} version {}\n{}",
        shown(&facts.name),
        facts.version,
        model.artifact.digest
    );
    for key in &facts.keys {
        let _ = writeln!(out, "key  {key}");
    }
    for file in &facts.files {
        let _ = writeln!(
            out,
            "file {}  {} bytes, {}",
            shown(&file.path),
            units::grouped(file.plaintext),
            file.kind
        );
    }
    for path in &facts.plain {
        let _ = writeln!(out, "file {}  in the clear", shown(path));
    }
    let _ = writeln!(
        out,
        "sum  {} bytes ({})",
        units::grouped(facts.bytes()),
        units::bytes(facts.bytes())
    );
    for (what, value) in parameters(&model.config.config) {
        let _ = writeln!(out, "says {what} {}", shown(value));
    }
    for layer in &model.layers {
        let _ = writeln!(out, "diff {}  {}", layer.diff_id, shown(layer.path.as_str()));
    }
    for file in &facts.files {
        if let Some(digest) = file.blake3 {
            let _ = writeln!(out, "tree {digest}  {}", shown(&file.path));
        }
    }
    let _ = match facts.model_digest() {
        Some(digest) => writeln!(out, "{}", super::pinned(digest)),
        None => writeln!(
            out,
            "pin  not known: the manifest says no BLAKE3 digest; `cellactl model verify --key-file FILE` computes it"
        ),
    };
    let _ = writeln!(
        out,
        "All of this is readable without the key, by the host too. The diff (SHA-256) and tree (BLAKE3) digests are of\n\
         the plaintext, as whoever sealed it says: they tell which public model this is, if it is one. `cellactl model verify --key-file`\n\
         computes them. Content, and nothing else, needs the key."
    );
    out
}

fn json(facts: &Facts, model: &Model) -> String {
    let diff_id = |index: usize| model.layers.get(index).map(|layer| layer.diff_id);
    let files: Vec<_> = facts
        .files
        .iter()
        .map(|file| {
            serde_json::json!({
                "path": file.path, "kind": file.kind, "digest": file.digest,
                "ciphertext_bytes": file.ciphertext, "plaintext_bytes": file.plaintext,
                "plaintext_digest": diff_id(file.index).map(|digest: Digest| digest.to_string()),
                "plaintext_blake3": file.blake3.map(|digest| digest.to_string()),
            })
        })
        .collect();
    let says: serde_json::Map<_, _> = parameters(&model.config.config)
        .map(|(what, value)| (what.to_owned(), value.into()))
        .collect();
    let value = serde_json::json!({
        "name": facts.name, "version": facts.version, "digest": model.artifact.digest.to_string(), "keys": facts.keys,
        "files": files, "plain": facts.plain, "bytes": facts.bytes(), "config": says,
        "model_digest": facts.model_digest().map(|digest| digest.to_string()),
    });
    format!("{value:#}\n")
}

/// What the configuration says of the model.
fn parameters(parameters: &ModelParameters) -> impl Iterator<Item = (&'static str, &str)> {
    [
        ("architecture", &parameters.architecture),
        ("format", &parameters.format),
        ("paramSize", &parameters.param_size),
        ("precision", &parameters.precision),
        ("quantization", &parameters.quantization),
    ]
    .into_iter()
    .filter_map(|(what, value)| Some((what, value.as_deref()?)))
}

/// The manifest's author is not trusted with the terminal.
fn shown(text: &str) -> String {
    escaped(text, 1024)
}

/// Why a model cannot be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum InspectError {
    /// Reading it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is no sealed model.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// Its configuration breaks a rule.
    #[error(transparent)]
    Read(#[from] ReadError),
}
