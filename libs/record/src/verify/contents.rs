//! A record against the policy that the guest obeyed.

use std::collections::BTreeSet;

use cella_attest::Bound;
use cella_policy::{Policy, Provenance, initdata};

use super::{Refusal, algorithm};
use crate::record::BootRecord;

/// Whether the record is of this document, and says no more and no less than its policy names.
pub(super) fn check(record: &BootRecord, document: &[u8], bound: &Bound) -> Result<(), Refusal> {
    let algorithm = algorithm(document, bound).ok_or(Refusal::Document)?;
    if initdata::digests(document).sha256 != record.initdata.sha256.0 {
        return Err(Refusal::Document);
    }
    let policy = initdata::parse(document, algorithm).map_err(Refusal::NoPolicy)?.policy;
    for (what, same) in [
        ("name and revision", revision(record) == policy.revision()),
        ("images", images(record) == policy_images(&policy)),
        ("models", models(record) == policy_models(&policy)),
        ("models' digests", digests_agree(record, &policy)),
        ("keys", keys(record) == policy_keys(&policy)),
        (
            "broker",
            Some(record.broker.url.clone()) == policy.kbs().map(|kbs| kbs.url.to_string()),
        ),
        ("token's signer", signer_is_pinned(record, &policy)),
    ] {
        if !same {
            return Err(Refusal::NotThePolicys { what });
        }
    }
    Ok(())
}

fn revision(record: &BootRecord) -> Option<(&str, u64)> {
    record
        .policy
        .as_ref()
        .map(|policy| (policy.name.as_str(), policy.revision))
}

fn images(record: &BootRecord) -> BTreeSet<(String, String)> {
    let pair = |image: &crate::ImageRecord| (image.container.clone(), image.image.clone());
    record.images.iter().map(pair).collect()
}

fn policy_images(policy: &Policy) -> BTreeSet<(String, String)> {
    let pair = |container: &cella_policy::ContainerPolicy| (container.name.clone(), container.image.to_string());
    policy.containers().iter().map(pair).collect()
}

fn models(record: &BootRecord) -> BTreeSet<(String, u64, String, u64)> {
    let facts = |model: &crate::ModelRecord| {
        let bytes = model
            .files
            .iter()
            .fold(0, |sum: u64, file| sum.saturating_add(file.bytes));
        (model.name.clone(), model.version, model.artifact.clone(), bytes)
    };
    record.models.iter().map(facts).collect()
}

fn policy_models(policy: &Policy) -> BTreeSet<(String, u64, String, u64)> {
    let facts = |model: &cella_policy::ModelPolicy| {
        (
            model.name.clone(),
            model.version,
            model.artifact.to_string(),
            model.bytes,
        )
    };
    policy.sealed().map(facts).collect()
}

/// Where the policy asks for a digest the record has one, where it pins one it is that, and nowhere else is there any.
fn digests_agree(record: &BootRecord, policy: &Policy) -> bool {
    policy.sealed().all(|model| {
        let mut found = record.models.iter().filter(|found| found.name == model.name);
        let Some(found) = found.next() else { return false };
        let (whole, files) = (found.digest.as_deref(), || {
            found.files.iter().map(|file| file.blake3.is_some())
        });
        match model.provenance {
            Provenance::Sealed => whole.is_none() && !files().any(|digest| digest),
            Provenance::Digest(pin) => {
                whole.is_some()
                    && files().all(|digest| digest)
                    && pin.is_none_or(|pin| whole == Some(&*pin.to_string()))
            }
        }
    })
}

fn keys(record: &BootRecord) -> BTreeSet<String> {
    record.broker.keys.iter().map(|released| released.key.clone()).collect()
}

fn policy_keys(policy: &Policy) -> BTreeSet<String> {
    policy.key_ids().into_iter().map(ToString::to_string).collect()
}

/// Where the policy pins keys for tokens, the record names one of them; where it pins none, it names none.
fn signer_is_pinned(record: &BootRecord, policy: &Policy) -> bool {
    let signer = record.broker.token.as_ref().and_then(|token| token.signer.as_deref());
    let mut pins = policy.kbs().into_iter().flat_map(|kbs| &kbs.token_keys).peekable();
    match signer {
        None => pins.peek().is_none(),
        Some(signer) => pins.any(|pin| pin.to_string() == signer),
    }
}
