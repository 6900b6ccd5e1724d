//! From the serialised form to the validated policy: every rule of `cella.toml` is in this folder.

mod container;
mod mounts;
mod network;
mod order;
mod output;

use std::collections::{BTreeSet, HashSet};
use std::str::FromStr;

use super::{Kbs, Mirror, ModelPolicy, PodPolicy, Policy, Registry, Rule, SealedKind, Stats};
use crate::POLICY_VERSION;
use crate::choice::{ANY, Choice};
use crate::error::{Place, PolicyError};
use crate::file::{KbsFile, MirrorFile, ModelFile, PodFile, PolicyFile, ProvenanceFile, RegistryFile, StatsFile};
use crate::names::{DigestRef, Endpoint, KeyId, NameError, RegistryName, Scheme, is_repository, is_segment};
use crate::pem::CertificatePem;
use crate::provenance::Provenance;

type Checked<T> = Result<T, PolicyError>;

pub(super) fn policy(file: PolicyFile) -> Checked<Policy> {
    if file.version != POLICY_VERSION {
        return Err(PolicyError::Version { found: file.version });
    }
    let document = Place::new("top level");
    let revision = revision(&document, file.name, file.revision)?;
    count(&document.with("registry"), file.registry.len(), 0, MAX_TABLES)?;
    count(&document.with("container"), file.container.len(), 1, MAX_TABLES)?;
    count(&document.with("model"), file.model.len(), 0, MAX_TABLES)?;
    count(&document.with("dataset"), file.dataset.len(), 0, MAX_TABLES)?;

    let kbs = file.kbs.map(kbs).transpose()?;
    let pod = pod(&file.pod)?;
    let network = network::network(&file.network)?;
    let registries = file.registry.into_iter().map(registry).collect::<Checked<Vec<_>>>()?;
    unique("registry", registries.iter().map(|registry| registry.name.as_str()))?;
    let sealed = |kind: SealedKind, files: Vec<ModelFile>| {
        let files = files.into_iter();
        files
            .map(|file| model(kind, file, &registries))
            .collect::<Checked<Vec<_>>>()
    };
    let models = sealed(SealedKind::Model, file.model)?;
    let datasets = sealed(SealedKind::Dataset, file.dataset)?;
    unique("model", models.iter().map(|model| model.name.as_str()))?;
    unique(
        "model or dataset",
        models.iter().chain(&datasets).map(|one| one.name.as_str()),
    )?;
    let containers = file
        .container
        .into_iter()
        .map(|container| {
            let output = output::of_container(file.output.as_ref(), &container.name).map(str::to_owned);
            container::container(container, &registries, (&models, &datasets), output.as_deref())
        })
        .collect::<Checked<Vec<_>>>()?;
    unique("container", containers.iter().map(|container| container.name.as_str()))?;
    order::check(&containers)?;
    let sealed = models.iter().chain(&datasets);
    let output = file
        .output
        .map(|file| output::output(file, &registries, sealed, &containers));
    let policy = Policy {
        revision,
        kbs,
        pod,
        network,
        registries,
        containers,
        output: output.transpose()?,
        models,
        datasets,
    };
    match (&policy.kbs, policy.key_ids().first()) {
        (None, Some(key)) => Err(PolicyError::NoBroker { key: key.to_string() }),
        _ => Ok(policy),
    }
}

/// A name without a number, or a number of nothing, would look as if it protected something.
fn revision(place: &Place, name: Option<String>, revision: Option<u64>) -> Checked<Option<(String, u64)>> {
    match (name, revision) {
        (None, None) => Ok(None),
        (Some(name), Some(revision)) => {
            range(&place.with("revision"), revision, 1, MAX_REVISION)?;
            if is_segment(&name) {
                return Ok(Some((name, revision)));
            }
            Err(PolicyError::Text {
                place: place.with("name"),
                rule: "must be 1 to 128 characters out of A-Z a-z 0-9 _ . -",
            })
        }
        _ => Err(PolicyError::Text {
            place: place.clone(),
            rule: "`name` and `revision` go together",
        }),
    }
}

fn pod(file: &PodFile) -> Checked<PodPolicy> {
    let place = Place::new("pod");
    count(&place.with("sysctl"), file.sysctl.len(), 0, MAX_PATTERNS)?;
    let sysctl = file
        .sysctl
        .iter()
        .enumerate()
        .map(|(index, text)| name(&place.at("sysctl", index), text))
        .collect::<Checked<_>>()?;
    let forward_ports = match any_or(
        &place.with("forward-ports"),
        &file.forward_ports,
        "\"any\" or a list of ports",
    )? {
        Rule::Any => Rule::Any,
        Rule::Only(ports) => {
            count(&place.with("forward-ports"), ports.len(), 0, MAX_TABLES)?;
            Rule::Only(listed(ports, |index, port: &u16| {
                let place = place.at("forward-ports", index);
                range(&place, u64::from(*port), 1, u64::from(u16::MAX)).map(|()| *port)
            })?)
        }
    };
    count(&place.with("calls"), file.calls.len(), 0, MAX_TABLES)?;
    Ok(PodPolicy {
        sysctl,
        forward_ports,
        share_process_namespace: file.share_process_namespace,
        calls: listed(&file.calls, |index, text: &String| {
            name(&place.at("calls", index), text)
        })?,
        stats: match file.stats {
            StatsFile::Deny => Stats::Deny,
            StatsFile::Coarse => Stats::Coarse,
            StatsFile::Exact => Stats::Exact,
        },
    })
}

fn kbs(file: KbsFile) -> Checked<Kbs> {
    let place = Place::new("kbs");
    let url: Endpoint = name(&place.with("url"), &file.url)?;
    if url.scheme() == Scheme::Http {
        return Err(PolicyError::PlainHttp {
            place: place.with("url"),
        });
    }
    let keys = place.with("token-keys");
    count(&keys, file.token_keys.len(), 0, MAX_KEYS)?;
    let token_keys = listed(&file.token_keys, |index, key| name(&place.at("token-keys", index), key))?;
    let ca = authority(&place, file.ca)?.ok_or(PolicyError::NoAuthority { place })?;
    Ok(Kbs { url, ca, token_keys })
}

fn registry(file: RegistryFile) -> Checked<Registry> {
    let place = Place::new(format!("registry {:?}", file.name));
    let name_: RegistryName = name(&place.with("name"), &file.name)?;
    let endpoint = file.endpoint.unwrap_or_else(|| format!("https://{}", file.name));
    let endpoint: Endpoint = name(&place.with("endpoint"), &endpoint)?;
    let ca = authority(&place, file.ca)?;
    if endpoint.scheme() == Scheme::Https && ca.is_none() {
        return Err(PolicyError::NoAuthority { place });
    }
    count(&place.with("mirror"), file.mirror.len(), 0, MAX_MIRRORS)?;
    let mirrors = file.mirror.into_iter().enumerate();
    let mirrors = mirrors.map(|(index, file)| mirror(place.at("mirror", index), file));
    Ok(Registry {
        name: name_,
        endpoint,
        ca,
        mirrors: mirrors.collect::<Checked<_>>()?,
    })
}

fn mirror(place: Place, file: MirrorFile) -> Checked<Mirror> {
    let endpoint: Endpoint = name(&place.with("endpoint"), &file.endpoint)?;
    let ca = authority(&place, file.ca)?;
    if endpoint.scheme() == Scheme::Https && ca.is_none() {
        return Err(PolicyError::NoAuthority { place });
    }
    Ok(Mirror { endpoint, ca })
}

fn model(kind: SealedKind, file: ModelFile, registries: &[Registry]) -> Checked<ModelPolicy> {
    let place = Place::new(format!("{} {:?}", kind.as_str(), file.name));
    if !is_repository(&file.name) {
        let error = NameError::new(
            kind.as_str(),
            &file.name,
            "must be lower-case parts of a-z 0-9 . _ - joined by /",
        );
        return Err(PolicyError::Name { place, error });
    }
    range(&place.with("version"), file.version, 1, MAX_INTEGER)?;
    range(&place.with("bytes"), file.bytes, 1, MAX_MODEL_BYTES)?;
    count(&place.with("keys"), file.keys.len(), 1, MAX_KEYS)?;
    let artifact = reference(&place.with("artifact"), &file.artifact, registries)?;
    let keys = keys(&place, "keys", &file.keys)?;
    let digest = file.digest.as_deref();
    let provenance = match (file.provenance, digest) {
        (ProvenanceFile::Sealed, None) => Provenance::Sealed,
        (ProvenanceFile::Sealed, Some(_)) => {
            return Err(PolicyError::Text {
                place: place.with("digest"),
                rule: "is compared with nothing unless provenance is \"digest\"",
            });
        }
        (ProvenanceFile::Digest, digest) => {
            let pin = digest.map(|text| name(&place.with("digest"), text)).transpose()?;
            Provenance::Digest(pin)
        }
    };
    Ok(ModelPolicy {
        name: file.name,
        version: file.version,
        artifact,
        keys,
        bytes: file.bytes,
        provenance,
    })
}

fn reference(place: &Place, text: &str, registries: &[Registry]) -> Checked<DigestRef> {
    let reference: DigestRef = name(place, text)?;
    if !registries.iter().any(|registry| registry.name == *reference.registry()) {
        let name = reference.registry().to_string();
        return Err(PolicyError::Dangling {
            place: place.clone(),
            what: "registry",
            name,
        });
    }
    Ok(reference)
}

fn keys(place: &Place, field: &str, list: &[String]) -> Checked<Vec<KeyId>> {
    let mut keys: Vec<KeyId> = Vec::with_capacity(list.len());
    for (index, text) in list.iter().enumerate() {
        let place = place.at(field, index);
        let key = name(&place, text)?;
        if keys.contains(&key) {
            return Err(PolicyError::Duplicate {
                place,
                what: "key",
                name: text.clone(),
            });
        }
        keys.push(key);
    }
    Ok(keys)
}

fn authority(place: &Place, text: Option<String>) -> Checked<Option<CertificatePem>> {
    text.map(|text| {
        CertificatePem::parse(&text).map_err(|error| PolicyError::Certificate {
            place: place.with("ca"),
            error,
        })
    })
    .transpose()
}

fn name<T: FromStr<Err = NameError>>(place: &Place, text: &str) -> Checked<T> {
    text.parse().map_err(|error| PolicyError::Name {
        place: place.clone(),
        error,
    })
}

/// The word `any`, or a value that is still to be checked.
fn any_or<'f, T>(place: &Place, choice: &'f Choice<T>, expected: &'static str) -> Checked<Rule<&'f T>> {
    match choice {
        Choice::Word(word) if word == ANY => Ok(Rule::Any),
        Choice::Word(word) => Err(PolicyError::Choice {
            place: place.clone(),
            found: word.clone(),
            expected,
        }),
        Choice::Value(value) => Ok(Rule::Only(value)),
    }
}

fn listed<T: Ord, S>(list: &[S], parse: impl Fn(usize, &S) -> Checked<T>) -> Checked<BTreeSet<T>> {
    list.iter()
        .enumerate()
        .map(|(index, text)| parse(index, text))
        .collect()
}

fn unique<'a>(what: &'static str, names: impl Iterator<Item = &'a str>) -> Checked<()> {
    let mut seen = HashSet::new();
    for (index, name) in names.enumerate() {
        if !seen.insert(name) {
            return Err(PolicyError::Duplicate {
                place: Place::new(format!("{what}[{index}]")),
                what,
                name: name.to_owned(),
            });
        }
    }
    Ok(())
}

fn range(place: &Place, found: u64, least: u64, most: u64) -> Checked<()> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    Err(PolicyError::Range {
        place: place.clone(),
        found,
        least,
        most,
    })
}

fn count(place: &Place, found: usize, least: u64, most: u64) -> Checked<()> {
    range(place, u64::try_from(found).unwrap_or(u64::MAX), least, most)
}

/// Containers, models, registries, mounts: more than any pod has, few enough to walk.
const MAX_TABLES: u64 = 64;
const MAX_KEYS: u64 = 16;
const MAX_MIRRORS: u64 = 8;
/// TOML's integers end at 2^63.
const MAX_REVISION: u64 = i64::MAX as u64;
/// Patterns of variables and of kernel parameters.
const MAX_PATTERNS: u64 = 64;
/// 16 TiB: beyond any guest, far below what overflows a sum of [`MAX_TABLES`].
const MAX_MODEL_BYTES: u64 = 1 << 44;
/// TOML integers are signed.
const MAX_INTEGER: u64 = i64::MAX.unsigned_abs();
