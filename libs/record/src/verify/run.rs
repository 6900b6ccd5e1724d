//! A run's record against its boot's, and against the policy that the guest obeyed.

use std::collections::BTreeSet;

use cella_attest::{GuestEvidence, Launched};
use cella_policy::{ContainerPolicy, Policy, initdata};

use super::{Checked, Expectations, Refusal, Trust, algorithm, check, expected::digest_of};
use crate::run::{InputRecord, SignedRun};

/// Checks a record that [`SignedRun::parse`] has given: its boot's record as [`check`] does, and that the run is one of that boot.
/// `outputs`: digests, `sha256:…`, of the manifest that was pushed or of a file's plaintext, each of which must be there.
///
/// # Errors
/// [`Refusal`]; never a panic.
pub fn check_run(
    signed: &SignedRun,
    trust: &Trust<'_>,
    expected: &Expectations<'_>,
    outputs: &[String],
) -> Result<Checked, Refusal> {
    let checked = check(&signed.boot, trust, expected)?;
    against_boot(signed)?;
    if let Some(document) = expected.document {
        against_policy(signed, document)?;
    }
    for wanted in outputs {
        let is_there = signed.run.output.as_ref().is_some_and(|output| {
            digest_of(&output.artifact) == Some(wanted) || output.files.iter().any(|file| file.digest == *wanted)
        });
        if !is_there {
            let wanted = wanted.clone();
            return Err(Refusal::Output { wanted });
        }
    }
    Ok(checked)
}

/// Whether the run had nothing but what its boot had.
fn against_boot(signed: &SignedRun) -> Result<(), Refusal> {
    let (boot, run) = (&signed.boot.record, &signed.run);
    let mut images = boot.images.iter();
    let has = |input: &InputRecord| {
        boot.models
            .iter()
            .any(|model| (&model.name, model.version, &model.artifact) == (&input.name, input.version, &input.artifact))
    };
    for (what, same) in [
        (
            "image",
            images.any(|image| image.container == run.container && image.image == run.image),
        ),
        ("inputs", run.inputs.iter().all(has)),
        ("output", run.output.is_none() || run.exit_status == 0),
    ] {
        if !same {
            return Err(Refusal::NotTheBoots { what });
        }
    }
    Ok(())
}

/// Whether it is the run of the policy's output. The document has been compared with the evidence.
fn against_policy(signed: &SignedRun, document: &[u8]) -> Result<(), Refusal> {
    let (policy, run) = (policy(signed, document)?, &signed.run);
    let output = policy.output();
    let container = output.and_then(|output| policy.container(&output.container));
    let pushed = run.output.as_ref().map(|pushed| {
        let (repository, _) = pushed.artifact.split_once('@').unwrap_or_default();
        (pushed.name.as_str(), pushed.version, repository.to_owned())
    });
    let named = output.map(|output| {
        let repository = format!("{}/{}", output.registry, output.repository);
        (output.name.as_str(), output.version, repository)
    });
    for (what, same) in [
        (
            "container",
            container.is_some_and(|container| container.name == run.container),
        ),
        (
            "inputs",
            container.map(|container| inputs(&policy, container)) == Some(run.inputs.iter().cloned().collect()),
        ),
        ("output", pushed.is_none() || pushed == named),
    ] {
        if !same {
            return Err(Refusal::NotThePolicys { what });
        }
    }
    Ok(())
}

fn inputs(policy: &Policy, container: &ContainerPolicy) -> BTreeSet<InputRecord> {
    let mounted = container
        .mounts
        .iter()
        .filter_map(|mount| policy.sealed_as(&mount.model));
    let input = |sealed: &cella_policy::ModelPolicy| InputRecord {
        name: sealed.name.clone(),
        version: sealed.version,
        artifact: sealed.artifact.to_string(),
    };
    mounted.map(input).collect()
}

fn policy(signed: &SignedRun, document: &[u8]) -> Result<Policy, Refusal> {
    let launched = Launched::of_evidence(&GuestEvidence::from(&signed.boot.evidence)).map_err(Refusal::Unreadable)?;
    let algorithm = algorithm(document, &launched.bound).ok_or(Refusal::Document)?;
    let parsed = initdata::parse(document, algorithm).map_err(Refusal::NoPolicy)?;
    Ok(parsed.policy)
}
