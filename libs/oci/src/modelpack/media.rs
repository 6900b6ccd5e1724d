//! Media types of a model's layers.
use std::fmt;
use std::str::FromStr;

use super::ModelError;
use crate::image::ENCRYPTED_SUFFIX;
use crate::manifest::cut;

/// What a layer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Weights.
    Weight,
    /// What belongs to the weights: tokenizer, configuration.
    WeightConfig,
    /// Documentation.
    Doc,
    /// Programs.
    Code,
    /// Training data.
    Dataset,
}

/// How a layer holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One file as it is.
    Raw,
    /// A tar archive.
    Tar,
    /// A tar archive, gzip.
    TarGzip,
    /// A tar archive, Zstandard.
    TarZstd,
}

/// `application/vnd.cncf.model.<kind>.v1.<form>[+encrypted]`: the 20 types of ModelPack, plain or sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerType {
    /// What.
    pub kind: Kind,
    /// How.
    pub form: Form,
    /// Whether it is sealed.
    pub sealed: bool,
}

impl Kind {
    pub(super) const ALL: [Self; 5] = [Self::Weight, Self::WeightConfig, Self::Doc, Self::Code, Self::Dataset];

    /// Its part of the media type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Weight => "weight",
            Self::WeightConfig => "weight.config",
            Self::Doc => "doc",
            Self::Code => "code",
            Self::Dataset => "dataset",
        }
    }
}

impl Form {
    const ALL: [Self; 4] = [Self::Raw, Self::Tar, Self::TarGzip, Self::TarZstd];

    fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Tar => "tar",
            Self::TarGzip => "tar+gzip",
            Self::TarZstd => "tar+zstd",
        }
    }
}

impl fmt::Display for LayerType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = if self.sealed { ENCRYPTED_SUFFIX } else { "" };
        write!(f, "{PREFIX}{}.v1.{}{suffix}", self.kind.name(), self.form.name())
    }
}

impl FromStr for LayerType {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        let (plain, sealed) = match text.strip_suffix(ENCRYPTED_SUFFIX) {
            Some(plain) => (plain, true),
            None => (text, false),
        };
        let parts = plain.strip_prefix(PREFIX).and_then(|rest| rest.split_once(".v1."));
        let found = parts.and_then(|(kind, form)| {
            let kind = Kind::ALL.into_iter().find(|known| known.name() == kind)?;
            let form = Form::ALL.into_iter().find(|known| known.name() == form)?;
            Some(Self { kind, form, sealed })
        });
        found.ok_or_else(|| ModelError::LayerType { found: cut(text) })
    }
}

const PREFIX: &str = "application/vnd.cncf.model.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_twenty_types_plain_and_sealed() {
        for kind in Kind::ALL {
            for form in Form::ALL {
                for sealed in [false, true] {
                    let layer_type = LayerType { kind, form, sealed };
                    assert_eq!(layer_type.to_string().parse::<LayerType>().unwrap(), layer_type);
                }
            }
        }
        let sealed = LayerType {
            kind: Kind::Weight,
            form: Form::Raw,
            sealed: true,
        };
        assert_eq!(sealed.to_string(), "application/vnd.cncf.model.weight.v1.raw+encrypted");
    }

    #[test]
    fn others_are_refused_by_name() {
        for found in [
            "",
            "application/vnd.cncf.model.weight.v2.raw",
            "application/vnd.cncf.model.weights.v1.raw",
            "application/vnd.cncf.model.weight.v1.raw+gzip",
            "application/vnd.cncf.model.weight.v1.raw+encrypted+encrypted",
            "application/vnd.kitops.modelkit.model.v1.tar",
        ] {
            let error = found.parse::<LayerType>().unwrap_err();
            assert!(matches!(error, ModelError::LayerType { found: named } if named == found));
        }
    }
}
