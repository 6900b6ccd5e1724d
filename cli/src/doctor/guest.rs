//! The guest image: whether it is there, and whether it is the one that was published.

use std::path::PathBuf;

use ring::digest;

use super::facts::Facts;
use super::host::Host;
use super::{Check, Finding};
use crate::files;

/// Kernel, initramfs and command line.
pub(super) struct Image;

impl Check for Image {
    fn name(&self) -> &'static str {
        "guest image"
    }

    fn run(&self, host: &Host, facts: &Facts) -> Finding {
        let dir = facts.path("guest-image", DEFAULT);
        let missing: Vec<_> = PARTS.into_iter().filter(|part| !host.is_file(dir.join(part))).collect();
        if missing.is_empty() {
            Finding::ok(dir.display().to_string())
        } else {
            Finding::failed(
                format!("{} has no {}", dir.display(), missing.join(", ")),
                "install the guest image (`make guest-image` builds it), or set guest-image to its directory",
            )
        }
    }
}

/// Their digests, against published ones.
pub(super) struct Digest {
    pub(super) reference: Option<PathBuf>,
}

impl Check for Digest {
    fn name(&self) -> &'static str {
        "guest digest"
    }

    fn run(&self, host: &Host, facts: &Facts) -> Finding {
        let dir = facts.path("guest-image", DEFAULT);
        let mut digests = Vec::new();
        for part in PARTS {
            match files::read(&host.path(dir.join(part)), MAX_PART) {
                Ok(bytes) => digests.push((part, hex::encode(digest::digest(&digest::SHA256, &bytes)))),
                Err(error) => return Finding::failed(error.to_string(), "see above"),
            }
        }
        let shown = |digests: &[(&str, String)]| {
            let all: Vec<_> = digests
                .iter()
                .map(|(part, digest)| format!("{part} {digest}"))
                .collect();
            all.join(", ")
        };
        // Beside the image where a release puts it, unless another is named.
        let beside = Some(dir.join("SHA256SUMS")).filter(|path| host.is_file(path));
        let Some(path) = self.reference.clone().or(beside) else {
            return Finding::warning(
                format!("sha256 {}", shown(&digests)),
                "compare with what was published: --reference FILE, or SHA256SUMS beside the image",
            );
        };
        let Some(reference) = host.text(&path) else {
            return Finding::failed(
                format!("{} cannot be read", path.display()),
                "name the file with the published digests",
            );
        };
        let differ: Vec<_> = digests
            .iter()
            .filter(|(part, digest)| !names(&reference, part, digest))
            .map(|(part, _)| *part)
            .collect();
        if differ.is_empty() {
            return Finding::ok(format!("as published in {}: {}", path.display(), shown(&digests)));
        }
        Finding::failed(
            format!(
                "{} {} not what {} publishes",
                differ.join(", "),
                if differ.len() == 1 { "is" } else { "are" },
                path.display()
            ),
            "install the image again: owners' rules name its launch digest, and release no key to another",
        )
    }
}

/// Whether a list of digests has `digest` for the file `part`.
fn names(reference: &str, part: &str, digest: &str) -> bool {
    reference.lines().any(|line| {
        let mut words = line.split_ascii_whitespace();
        let (sum, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        sum.eq_ignore_ascii_case(digest) && name.trim_start_matches('*').rsplit('/').next() == Some(part)
    })
}

const DEFAULT: &str = "/usr/share/cella/guest";
const PARTS: [&str; 3] = ["vmlinuz", "initrd", "cmdline"];
const MAX_PART: u64 = 512 << 20;
