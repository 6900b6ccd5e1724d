//! What everybody can see of a sealed model.

use std::fmt::Write as _;

use super::{Facts, FactsError};
use crate::store::{Access, Location, StoreError};
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
    let facts = Facts::of(&artifact.manifest)?;
    let digest = artifact.digest.to_string();
    Ok(if args.json {
        json(&facts, &digest)
    } else {
        text(&facts, &digest)
    })
}

fn text(facts: &Facts, digest: &str) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{} version {}\n{digest}", facts.name, facts.version);
    for key in &facts.keys {
        let _ = writeln!(out, "key  {key}");
    }
    for file in &facts.files {
        let _ = writeln!(
            out,
            "file {}  {} bytes, {}",
            file.path,
            units::grouped(file.plaintext),
            file.kind
        );
    }
    for path in &facts.plain {
        let _ = writeln!(out, "file {path}  in the clear");
    }
    let _ = writeln!(
        out,
        "sum  {} bytes ({})",
        units::grouped(facts.bytes()),
        units::bytes(facts.bytes())
    );
    out
}

fn json(facts: &Facts, digest: &str) -> String {
    let files: Vec<_> = facts
        .files
        .iter()
        .map(|file| {
            serde_json::json!({
                "path": file.path, "kind": file.kind, "digest": file.digest,
                "ciphertext_bytes": file.ciphertext, "plaintext_bytes": file.plaintext,
            })
        })
        .collect();
    let value = serde_json::json!({
        "name": facts.name, "version": facts.version, "digest": digest, "keys": facts.keys, "files": files,
        "plain": facts.plain, "bytes": facts.bytes(),
    });
    format!("{value:#}\n")
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
}
