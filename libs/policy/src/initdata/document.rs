//! The document itself: TOML with `algorithm`, `version` and `[data]`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Algorithm, InitdataError, MAX_DOCUMENT};
use crate::error::toml_reason;
use crate::names::shown;
use crate::policy::Policy;

/// The key of `[data]` that holds Cella's policy.
pub const POLICY_KEY: &str = "cella.toml";
/// The only version of the specification.
pub const VERSION: &str = "0.1.0";

/// A parsed document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initdata {
    /// The algorithm that it claims and that binds it.
    pub algorithm: Algorithm,
    /// `data["cella.toml"]`.
    pub policy: Policy,
    /// Other keys of `data`. Cella gives them no meaning.
    pub other: BTreeMap<String, String>,
}

/// Parses a document whose `bound` digest the evidence holds. Call it only after that was established.
pub fn parse(document: &[u8], bound: Algorithm) -> Result<Initdata, InitdataError> {
    let Parts { algorithm, mut data } = parts(document)?;
    if algorithm != bound {
        return Err(InitdataError::OtherAlgorithm {
            claimed: algorithm,
            bound,
        });
    }
    let text = data.remove(POLICY_KEY).ok_or(InitdataError::NoPolicy)?;
    let policy = Policy::parse(&text).map_err(|source| InitdataError::Policy { source })?;
    Ok(Initdata {
        algorithm,
        policy,
        other: data,
    })
}

/// The algorithm that a document claims. For whoever launches a guest, whose evidence does not exist yet.
pub fn algorithm(document: &[u8]) -> Result<Algorithm, InitdataError> {
    parts(document).map(|parts| parts.algorithm)
}

/// A document that carries `policy_toml`. Its digest is over exactly these bytes: hand them on as they are.
pub fn write(policy_toml: &str, algorithm: Algorithm) -> String {
    let value = if is_literal(policy_toml) {
        format!("'''\n{policy_toml}'''")
    } else {
        format!("\"\"\"\n{}\"\"\"", escaped(policy_toml))
    };
    format!("algorithm = \"{algorithm}\"\nversion = \"{VERSION}\"\n\n[data]\n\"{POLICY_KEY}\" = {value}\n")
}

struct Parts {
    algorithm: Algorithm,
    data: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DocumentFile {
    algorithm: String,
    version: String,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

fn parts(document: &[u8]) -> Result<Parts, InitdataError> {
    if document.len() > MAX_DOCUMENT {
        return Err(InitdataError::TooLong);
    }
    let text = std::str::from_utf8(document).map_err(|error| InitdataError::Utf8 {
        offset: error.valid_up_to(),
    })?;
    let file: DocumentFile = toml::from_str(text).map_err(|error| {
        let (line, reason) = toml_reason(text, &error);
        InitdataError::Syntax { line, reason }
    })?;
    if file.version != VERSION {
        return Err(InitdataError::Version {
            found: shown(&file.version),
        });
    }
    Ok(Parts {
        algorithm: file.algorithm.parse()?,
        data: file.data,
    })
}

/// Whether a text survives TOML's `'''…'''` unchanged.
fn is_literal(text: &str) -> bool {
    !text.contains("'''") && !text.ends_with('\'') && text.chars().all(|c| matches!(c, '\n' | '\t') || !c.is_control())
}

/// A text for TOML's `"""…"""`.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str(r"\\"),
            '"' => out.push_str(r#"\""#),
            '\n' | '\t' => out.push(c),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}
