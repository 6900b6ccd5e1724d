//! containerd: its version, and what its configuration says about us.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use toml::Value;

use super::facts::{CRI_IMAGES, CRI_RUNTIME, Facts, table};
use super::host::Host;
use super::programs::version;
use super::{Check, Finding};

/// New enough for Task API v3.
pub(super) struct Version;

impl Check for Version {
    fn name(&self) -> &'static str {
        "containerd"
    }

    fn run(&self, host: &Host, _: &Facts) -> Finding {
        const REMEDY: &str =
            "install containerd 2.0 or newer: older ones do not speak the shim's protocol (Task API v3)";
        let answer = match host.ask("containerd", &["--version"]) {
            Ok(answer) => answer,
            Err(error) => return Finding::failed(format!("containerd does not run: {error}"), REMEDY),
        };
        // "containerd github.com/containerd/containerd/v2 2.1.9 <commit>", "containerd containerd.io v2.0.5 …"
        let word = answer.text.split_ascii_whitespace().nth(2).unwrap_or_default();
        match version(&format!(" {word}"), " ") {
            Some(found) if found >= (2, 0) => Finding::ok(word.to_owned()),
            Some(_) => Finding::failed(format!("{word} is too old"), REMEDY),
            None => Finding::failed(format!("it says {:?}", answer.text.trim()), REMEDY),
        }
    }
}

/// A runtime handler, with its snapshotter in both places.
pub(super) struct Runtimes;

impl Check for Runtimes {
    fn name(&self) -> &'static str {
        "runtime handler"
    }

    fn run(&self, _: &Host, facts: &Facts) -> Finding {
        if let Err(error) = &facts.containerd {
            return Finding::failed(error.clone(), "correct containerd's configuration first");
        }
        let handlers = facts.handlers();
        if handlers.is_empty() {
            return Finding::failed(
                "no handler has runtime_type io.containerd.cella.v2",
                "run `cellactl install`, or import deploy/containerd-cella.toml, and restart containerd",
            );
        }
        let platforms = facts.containerd_table(&["plugins", CRI_IMAGES, "runtime_platforms"]);
        for handler in &handlers {
            let own = handler.table.get("snapshotter").and_then(Value::as_str);
            let pull = platforms.and_then(|platforms| table(platforms, &[handler.name])?.get("snapshotter")?.as_str());
            if own.is_none_or(str::is_empty) || own != pull {
                return Finding::failed(
                    format!(
                        "handler {} has snapshotter {:?}, runtime_platforms.{0} has {:?}",
                        handler.name,
                        own.unwrap_or_default(),
                        pull.unwrap_or_default()
                    ),
                    "set both to \"cella\": one is used to pull, the other to run",
                );
            }
            if !passes_initdata(handler.table) {
                return Finding::failed(
                    format!("handler {} does not pass the initdata annotation on", handler.name),
                    format!("add {INITDATA:?} to its pod_annotations"),
                );
            }
        }
        let names: Vec<_> = handlers.iter().map(|handler| handler.name).collect();
        Finding::ok(names.join(", "))
    }
}

fn passes_initdata(handler: &toml::Table) -> bool {
    let patterns = handler.get("pod_annotations").and_then(Value::as_array);
    patterns
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => INITDATA.starts_with(prefix),
            None => pattern == INITDATA,
        })
}

/// The proxy plugin that leads to our snapshotter.
pub(super) struct ProxyPlugin;

impl Check for ProxyPlugin {
    fn name(&self) -> &'static str {
        "proxy plugin"
    }

    fn run(&self, host: &Host, facts: &Facts) -> Finding {
        let Some(address) = address(facts) else {
            return Finding::failed(
                "containerd's configuration has no [proxy_plugins.cella]",
                "run `cellactl install`, or import deploy/containerd-cella.toml, and restart containerd",
            );
        };
        let ours = host
            .text("/etc/cella/snapshotter.toml")
            .and_then(|text| text.parse::<toml::Table>().ok())
            .and_then(|table| table.get("address")?.as_str().map(str::to_owned))
            .unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
        if address == ours {
            Finding::ok(address.to_owned())
        } else {
            Finding::failed(
                format!("containerd asks {address}, the snapshotter listens on {ours}"),
                "make address of [proxy_plugins.cella] and of /etc/cella/snapshotter.toml the same",
            )
        }
    }
}

/// The labels by which the snapshotter knows what an image is.
pub(super) struct SnapshotAnnotations;

impl Check for SnapshotAnnotations {
    fn name(&self) -> &'static str {
        "image labels"
    }

    fn run(&self, _: &Host, facts: &Facts) -> Finding {
        let images = facts.containerd_table(&["plugins", CRI_IMAGES]);
        match images.and_then(|images| images.get("disable_snapshot_annotations")?.as_bool()) {
            Some(false) => Finding::ok("disable_snapshot_annotations = false"),
            found => Finding::failed(
                format!(
                    "disable_snapshot_annotations is {}",
                    found.map_or("not set, which means true".to_owned(), |on| on.to_string())
                ),
                "set it to false in [plugins.'io.containerd.cri.v1.images']: without labels the snapshotter cannot know the image",
            ),
        }
    }
}

/// The snapshotter itself.
pub(super) struct SnapshotterAnswers;

impl Check for SnapshotterAnswers {
    fn name(&self) -> &'static str {
        "snapshotter"
    }

    fn run(&self, host: &Host, facts: &Facts) -> Finding {
        const REMEDY: &str = "systemctl enable --now cella-snapshotter; journalctl -u cella-snapshotter";
        let address = address(facts).unwrap_or(DEFAULT_ADDRESS);
        if !host.is_socket(address) {
            return Finding::failed(format!("nothing listens on {address}"), REMEDY);
        }
        match greet(&host.path(address)) {
            Ok(()) => Finding::ok(format!("{address} answers")),
            Err(error) => Finding::failed(format!("{address} does not answer: {error}"), REMEDY),
        }
    }
}

/// HTTP/2's first words, which a gRPC server answers with its settings (RFC 9113, 3.4).
fn greet(path: &Path) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")?;
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let [.., kind, _, _, _, _, _] = head;
    if kind == SETTINGS {
        Ok(())
    } else {
        Err(std::io::Error::other("another protocol"))
    }
}

/// Whether processes may be made less likely to be killed than this one.
pub(super) struct OomScore;

impl Check for OomScore {
    fn name(&self) -> &'static str {
        "OOM score"
    }

    fn run(&self, host: &Host, facts: &Facts) -> Finding {
        let status = host.text("/proc/self/status").unwrap_or_default();
        let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
        let bits = bounding.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
        let has_capability = bits.is_none_or(|bits| bits >> CAP_SYS_RESOURCE & 1 == 1);
        let runtime = facts.containerd_table(&["plugins", CRI_RUNTIME]);
        let is_restricted = runtime.and_then(|runtime| runtime.get("restrict_oom_score_adj")?.as_bool()) == Some(true);
        match (has_capability, is_restricted) {
            (true, _) => Finding::ok("CAP_SYS_RESOURCE is there"),
            (false, true) => Finding::ok("no CAP_SYS_RESOURCE, restrict_oom_score_adj = true"),
            (false, false) => Finding::failed(
                "this host gives no CAP_SYS_RESOURCE, and restrict_oom_score_adj is not set",
                "set restrict_oom_score_adj = true in [plugins.'io.containerd.cri.v1.runtime']",
            ),
        }
    }
}

fn address(facts: &Facts) -> Option<&str> {
    facts
        .containerd_table(&["proxy_plugins", "cella"])?
        .get("address")?
        .as_str()
}

const DEFAULT_ADDRESS: &str = "/run/cella-snapshotter/snapshotter.sock";
const INITDATA: &str = "io.katacontainers.config.hypervisor.cc_init_data";
const PATIENCE: Duration = Duration::from_secs(2);
/// HTTP/2's frame type of that name.
const SETTINGS: u8 = 4;
const CAP_SYS_RESOURCE: u32 = 24;
