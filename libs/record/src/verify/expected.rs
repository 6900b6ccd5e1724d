//! What a checker expects of a record.

use std::ops::RangeInclusive;

use super::Refusal;
use crate::bytes::Hex;
use crate::record::BootRecord;

/// What a checker expects. A list that is empty expects nothing, but for `measurements`: without one that is known, the rest
/// is the word of a program that nobody knows, and refused.
#[derive(Debug, Clone)]
pub struct Expectations<'e> {
    /// Launch digests, one of which it must be.
    pub measurements: Vec<Hex<48>>,
    /// SHA-256 digests of initdata documents, one of which it must be.
    pub policies: Vec<Hex<32>>,
    /// Digests, `sha256:…`, of model manifests or of their files' plaintext, each of which must be there.
    pub models: Vec<String>,
    /// Digests, `sha256:…`, of images, each of which must be there.
    pub images: Vec<String>,
    /// Thumbprints, one of which must be that of the token's signer.
    pub token_signers: Vec<String>,
    /// When the guest must have booted, in seconds since the Unix epoch.
    pub booted: Option<RangeInclusive<u64>>,
    /// The initdata document: the record must be of it, and its contents those of its policy.
    pub document: Option<&'e [u8]>,
    /// Accept a simulated platform.
    pub allow_simulated: bool,
}

impl Expectations<'_> {
    /// Expects one of these launch digests and nothing else.
    pub fn launched_as(measurements: Vec<Hex<48>>) -> Self {
        Self {
            measurements,
            policies: Vec::new(),
            models: Vec::new(),
            images: Vec::new(),
            token_signers: Vec::new(),
            booted: None,
            document: None,
            allow_simulated: false,
        }
    }

    pub(super) fn check(&self, record: &BootRecord, measurement: &[u8; 48]) -> Result<(), Refusal> {
        let found = Hex(*measurement);
        if !self.measurements.contains(&found) {
            return Err(Refusal::Measurement { found });
        }
        let found = record.initdata.sha256;
        if !self.policies.is_empty() && !self.policies.contains(&found) {
            return Err(Refusal::Policy { found });
        }
        for wanted in &self.models {
            let has = |model: &crate::ModelRecord| {
                digest_of(&model.artifact) == Some(wanted) || model.files.iter().any(|file| file.digest == *wanted)
            };
            if !record.models.iter().any(has) {
                let wanted = wanted.clone();
                return Err(Refusal::Model { wanted });
            }
        }
        for wanted in &self.images {
            if !record
                .images
                .iter()
                .any(|image| digest_of(&image.image) == Some(wanted))
            {
                let wanted = wanted.clone();
                return Err(Refusal::Image { wanted });
            }
        }
        let signer = record.broker.token.as_ref().and_then(|token| token.signer.as_ref());
        if !self.token_signers.is_empty() && !signer.is_some_and(|signer| self.token_signers.contains(signer)) {
            return Err(Refusal::TokenSigner);
        }
        match &self.booted {
            Some(range) if !record.time.is_some_and(|time| range.contains(&time.booted)) => Err(Refusal::Time),
            _ => Ok(()),
        }
    }
}

/// The digest behind a reference.
pub(super) fn digest_of(reference: &str) -> Option<&str> {
    reference.split_once('@').map(|(_, digest)| digest)
}
