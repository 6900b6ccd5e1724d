//! From the serialised form to the validated policy: every rule of `cella.toml` is in this file.

use std::collections::{BTreeSet, HashSet};
use std::str::FromStr;

use super::{ContainerPolicy, Kbs, Memlock, ModelMount, ModelPolicy, Policy, Registry, Signals, Stdio, Tmpfs, User};
use crate::POLICY_VERSION;
use crate::check::DEFAULT_MOUNTS;
use crate::error::{Place, PolicyError};
use crate::file::{
    ContainerFile, KbsFile, MemlockFile, ModelFile, PolicyFile, RegistryFile, SignalsFile, StdioFile, UserFile,
};
use crate::names::{
    DigestRef, Endpoint, GuestPath, KeyId, NameError, RegistryName, Scheme, is_container_name, is_hostname,
    is_repository,
};
use crate::pem::CertificatePem;

type Checked<T> = Result<T, PolicyError>;

pub(super) fn policy(file: PolicyFile) -> Checked<Policy> {
    if file.version != POLICY_VERSION {
        return Err(PolicyError::Version { found: file.version });
    }
    let document = Place::new("top level");
    count(&document.with("registry"), file.registry.len(), 0, MAX_TABLES)?;
    count(&document.with("container"), file.container.len(), 1, MAX_TABLES)?;
    count(&document.with("model"), file.model.len(), 0, MAX_TABLES)?;

    let kbs = kbs(file.kbs)?;
    let registries = file.registry.into_iter().map(registry).collect::<Checked<Vec<_>>>()?;
    unique("registry", registries.iter().map(|registry| registry.name.as_str()))?;
    let models = file
        .model
        .into_iter()
        .map(|file| model(file, &registries))
        .collect::<Checked<Vec<_>>>()?;
    unique("model", models.iter().map(|model| model.name.as_str()))?;
    let containers = file
        .container
        .into_iter()
        .map(|file| container(file, &registries, &models))
        .collect::<Checked<Vec<_>>>()?;
    unique("container", containers.iter().map(|container| container.name.as_str()))?;
    Ok(Policy {
        kbs,
        registries,
        containers,
        models,
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
    let ca = authority(&place, file.ca)?.ok_or(PolicyError::NoAuthority { place })?;
    Ok(Kbs { url, ca })
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
    Ok(Registry {
        name: name_,
        endpoint,
        ca,
    })
}

fn model(file: ModelFile, registries: &[Registry]) -> Checked<ModelPolicy> {
    let place = Place::new(format!("model {:?}", file.name));
    if !is_repository(&file.name) {
        let error = NameError::new(
            "model",
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
    Ok(ModelPolicy {
        name: file.name,
        version: file.version,
        artifact,
        keys,
        bytes: file.bytes,
    })
}

fn container(file: ContainerFile, registries: &[Registry], models: &[ModelPolicy]) -> Checked<ContainerPolicy> {
    let place = Place::new(format!("container {:?}", file.name));
    if !is_container_name(&file.name) {
        let error = NameError::new(
            "container",
            &file.name,
            "must be 1 to 63 of A-Z a-z 0-9 . _ - and begin with a letter or digit",
        );
        return Err(PolicyError::Name { place, error });
    }
    let image = reference(&place.with("image"), &file.image, registries)?;
    count(&place.with("image-keys"), file.image_keys.len(), 0, MAX_KEYS)?;
    let image_keys = keys(&place, "image-keys", &file.image_keys)?;
    let require_encrypted = file.require_encrypted.unwrap_or(!image_keys.is_empty());
    if require_encrypted && image_keys.is_empty() {
        return Err(PolicyError::EncryptedWithoutKey { place });
    }
    arguments(&place, &file.args)?;
    environment(&place, &file.env)?;
    let capabilities = listed(&file.capabilities, |index, text: &String| {
        text.parse().map_err(|error| PolicyError::Capability {
            place: place.at("capabilities", index),
            error,
        })
    })?;
    let (mounts, tmpfs) = mounts(&place, &file, models)?;
    Ok(ContainerPolicy {
        image,
        image_keys,
        require_encrypted,
        cwd: name(&place.with("cwd"), &file.cwd)?,
        user: user(&place, &file.user)?,
        capabilities,
        terminal: file.terminal,
        readonly_rootfs: file.readonly_rootfs,
        hostname: hostname(&place, &file.hostname)?,
        stdio: match file.stdio {
            StdioFile::Allow => Stdio::Allow,
            StdioFile::Deny => Stdio::Deny,
        },
        memlock: memlock(&place, &file.memlock_bytes)?,
        signals: signals(&place, &file.signals)?,
        mounts,
        tmpfs,
        name: file.name,
        args: file.args,
        env: file.env,
    })
}

fn arguments(place: &Place, args: &[String]) -> Checked<()> {
    count(&place.with("args"), args.len(), 1, MAX_STRINGS)?;
    for (index, arg) in args.iter().enumerate() {
        if arg.contains('\0') {
            return Err(PolicyError::Text {
                place: place.at("args", index),
                rule: "holds a NUL character",
            });
        }
    }
    if args.first().is_some_and(String::is_empty) {
        return Err(PolicyError::Text {
            place: place.at("args", 0),
            rule: "the program's name is empty",
        });
    }
    Ok(())
}

fn environment(place: &Place, env: &[String]) -> Checked<()> {
    count(&place.with("env"), env.len(), 0, MAX_STRINGS)?;
    let mut seen = HashSet::new();
    for (index, entry) in env.iter().enumerate() {
        let place = place.at("env", index);
        if entry.contains('\0') {
            return Err(PolicyError::Text {
                place,
                rule: "holds a NUL character",
            });
        }
        let variable = match entry.split_once('=') {
            Some((variable, _)) if !variable.is_empty() => variable,
            _ => {
                return Err(PolicyError::Text {
                    place,
                    rule: "must be NAME=value",
                });
            }
        };
        if !seen.insert(variable) {
            return Err(PolicyError::Duplicate {
                place,
                what: "variable",
                name: variable.to_owned(),
            });
        }
    }
    Ok(())
}

fn user(place: &Place, file: &UserFile) -> Checked<User> {
    count(
        &place.with("user additional-gids"),
        file.additional_gids.len(),
        0,
        MAX_GROUPS,
    )?;
    for id in [file.uid, file.gid].iter().chain(&file.additional_gids) {
        // All ones means "leave it as it is" to setresuid and setresgid.
        range(&place.with("user"), u64::from(*id), 0, u64::from(u32::MAX) - 1)?;
    }
    let additional_gids = file
        .additional_gids
        .iter()
        .copied()
        .filter(|gid| *gid != file.gid)
        .collect();
    Ok(User {
        uid: file.uid,
        gid: file.gid,
        additional_gids,
    })
}

fn hostname(place: &Place, text: &str) -> Checked<Option<String>> {
    if text.is_empty() {
        return Ok(None);
    }
    if !is_hostname(text) {
        let error = NameError::new("host name", text, "must be 1 to 64 of A-Z a-z 0-9 . -");
        return Err(PolicyError::Name {
            place: place.with("hostname"),
            error,
        });
    }
    Ok(Some(text.to_owned()))
}

fn memlock(place: &Place, file: &MemlockFile) -> Checked<Memlock> {
    let place = place.with("memlock-bytes");
    match file {
        MemlockFile::Bytes(bytes) => {
            range(&place, *bytes, 0, MAX_INTEGER)?;
            Ok(Memlock::Bytes(*bytes))
        }
        MemlockFile::Word(word) if word == "unlimited" => Ok(Memlock::Unlimited),
        MemlockFile::Word(word) => Err(PolicyError::Choice {
            place,
            found: word.clone(),
            expected: "a number or \"unlimited\"",
        }),
    }
}

fn signals(place: &Place, file: &SignalsFile) -> Checked<Signals> {
    match file {
        SignalsFile::Word(word) if word == "any" => Ok(Signals::Any),
        SignalsFile::Word(word) => Err(PolicyError::Choice {
            place: place.with("signals"),
            found: word.clone(),
            expected: "\"any\" or a list of names",
        }),
        SignalsFile::List(list) => listed(list, |index, text: &String| {
            text.parse().map_err(|error| PolicyError::Signal {
                place: place.at("signals", index),
                error,
            })
        })
        .map(Signals::Only),
    }
}

/// Mount points: none twice, none inside another, none over what the agent itself mounts.
fn mounts(place: &Place, file: &ContainerFile, models: &[ModelPolicy]) -> Checked<(Vec<ModelMount>, Vec<Tmpfs>)> {
    count(&place.with("mount"), file.mount.len(), 0, MAX_TABLES)?;
    count(&place.with("tmpfs"), file.tmpfs.len(), 0, MAX_TABLES)?;
    let mut taken = Vec::new();
    let mut mounts = Vec::new();
    for (index, mount) in file.mount.iter().enumerate() {
        let place = place.at("mount", index);
        let destination = destination(&place, &mount.destination, &mut taken)?;
        if !models.iter().any(|model| model.name == mount.model) {
            return Err(PolicyError::Dangling {
                place,
                what: "model",
                name: mount.model.clone(),
            });
        }
        mounts.push(ModelMount {
            destination,
            model: mount.model.clone(),
        });
    }
    let mut tmpfs = Vec::new();
    for (index, entry) in file.tmpfs.iter().enumerate() {
        let place = place.at("tmpfs", index);
        range(&place.with("size-mib"), entry.size_mib, 1, MAX_TMPFS_MIB)?;
        let destination = destination(&place, &entry.destination, &mut taken)?;
        tmpfs.push(Tmpfs {
            destination,
            size_mib: entry.size_mib,
        });
    }
    Ok((mounts, tmpfs))
}

fn destination(place: &Place, text: &str, taken: &mut Vec<GuestPath>) -> Checked<GuestPath> {
    let path: GuestPath = name(&place.with("destination"), text)?;
    let overlap = |other: &str| PolicyError::Overlap {
        place: place.clone(),
        path: path.to_string(),
        other: other.to_owned(),
    };
    if path.is_root() {
        return Err(overlap("the container's root"));
    }
    for (reserved, _) in DEFAULT_MOUNTS {
        let reserved: GuestPath = name(place, reserved)?;
        if path.is_within(&reserved) {
            return Err(overlap(reserved.as_str()));
        }
    }
    if let Some(other) = taken
        .iter()
        .find(|other| path.is_within(other) || other.is_within(&path))
    {
        return Err(overlap(other.as_str()));
    }
    taken.push(path.clone());
    Ok(path)
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
const MAX_STRINGS: u64 = 1024;
const MAX_GROUPS: u64 = 64;
/// 16 TiB: beyond any guest, far below what overflows a sum of [`MAX_TABLES`].
const MAX_MODEL_BYTES: u64 = 1 << 44;
/// 1 TiB.
const MAX_TMPFS_MIB: u64 = 1 << 20;
/// TOML integers are signed.
const MAX_INTEGER: u64 = i64::MAX.unsigned_abs();
