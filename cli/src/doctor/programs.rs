//! The shim and QEMU.

use super::facts::Facts;
use super::host::Host;
use super::{Check, Finding};

/// The shim is where containerd finds it, and of this release.
pub(super) struct Shim;

impl Check for Shim {
    fn name(&self) -> &'static str {
        "shim"
    }

    fn run(&self, host: &Host, _: &Facts) -> Finding {
        let ours = env!("CARGO_PKG_VERSION");
        match host.ask(SHIM, &["-v"]) {
            Err(error) => Finding::failed(
                format!("{SHIM} does not run: {error}"),
                "install it into a directory of containerd's PATH, such as /usr/local/bin",
            ),
            Ok(answer) => {
                let version = answer.text.lines().next().unwrap_or_default().trim().to_owned();
                if version.ends_with(&format!(" {ours}")) {
                    Finding::ok(version)
                } else {
                    Finding::warning(
                        format!("the shim says {version:?}, this is cellactl {ours}"),
                        "install both from one release",
                    )
                }
            }
        }
    }
}

/// The shim takes its configuration.
pub(super) struct ShimConfig;

impl Check for ShimConfig {
    fn name(&self) -> &'static str {
        "configuration"
    }

    fn run(&self, host: &Host, facts: &Facts) -> Finding {
        let path = facts.config_path.display();
        if !facts.has_config {
            return Finding::failed(
                format!("{path} cannot be read"),
                "write it (`cellactl install` brings an example; docs/config.md has every key)",
            );
        }
        let real = host.path(&facts.config_path);
        match host.ask(SHIM, &["check-config", &real.to_string_lossy()]) {
            Ok(answer) if answer.succeeded => Finding::ok(format!("{path}: {}", answer.text.trim())),
            Ok(answer) => Finding::failed(answer.text.trim().to_owned(), format!("correct {path}; docs/config.md")),
            Err(_) => Finding::warning(format!("{path} was not checked: the shim does not run"), "see above"),
        }
    }
}

/// QEMU is new enough for confidential guests.
pub(super) struct QemuVersion;

impl Check for QemuVersion {
    fn name(&self) -> &'static str {
        "QEMU"
    }

    fn run(&self, host: &Host, facts: &Facts) -> Finding {
        let path = facts.path("qemu", QEMU);
        let least = if facts.tee() == "tdx" { LEAST_TDX } else { LEAST };
        let remedy = format!("install QEMU {}.{} or newer, or set qemu to its path", least.0, least.1);
        let answer = match host.ask(&path, &["--version"]) {
            Ok(answer) => answer,
            Err(error) => return Finding::failed(format!("{} does not run: {error}", path.display()), remedy),
        };
        match version(&answer.text, "version ") {
            Some(found) if found >= least => Finding::ok(format!("{}.{} ({})", found.0, found.1, path.display())),
            Some((major, minor)) => Finding::failed(format!("{major}.{minor} is too old ({})", path.display()), remedy),
            None => Finding::failed(format!("{} does not say its version", path.display()), remedy),
        }
    }
}

/// QEMU was built with the object that protects a guest.
pub(super) struct QemuObjects;

impl Check for QemuObjects {
    fn name(&self) -> &'static str {
        "QEMU TEE objects"
    }

    fn run(&self, host: &Host, facts: &Facts) -> Finding {
        let path = facts.path("qemu", QEMU);
        let Ok(answer) = host.ask(&path, &["-object", "help"]) else {
            return Finding::failed(format!("{} does not run", path.display()), "see above");
        };
        let has = |object: &str| answer.text.split_ascii_whitespace().any(|word| word == object);
        let found: Vec<_> = OBJECTS.into_iter().filter(|object| has(object)).collect();
        let wanted = match facts.tee() {
            "tdx" => "tdx-guest",
            _ => "sev-snp-guest",
        };
        match (found.is_empty(), has(wanted)) {
            (_, true) => Finding::ok(found.join(", ")),
            (_, false) if facts.wants_hardware() => Finding::failed(
                format!("this QEMU has no {wanted}"),
                "install a build with KVM and SEV-SNP or TDX support, 9.1 or newer, for TDX 10.1 or newer",
            ),
            (true, _) => Finding::warning("none: only the simulation can run", "no need for it in the simulation"),
            (false, _) => Finding::ok(found.join(", ")),
        }
    }
}

/// `9.2` behind `marker`.
pub(super) fn version(text: &str, marker: &str) -> Option<(u32, u32)> {
    let (_, rest) = text.split_once(marker)?;
    let rest = rest.trim_start_matches('v');
    let mut parts = rest.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

const SHIM: &str = "containerd-shim-cella-v2";
const QEMU: &str = "/usr/bin/qemu-system-x86_64";
/// The first with SEV-SNP upstream.
const LEAST: (u32, u32) = (9, 1);
/// The first with TDX upstream.
const LEAST_TDX: (u32, u32) = (10, 1);
const OBJECTS: [&str; 2] = ["sev-snp-guest", "tdx-guest"];
