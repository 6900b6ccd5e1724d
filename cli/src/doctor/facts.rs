//! What several checks look at, read once: the shim's configuration and containerd's, leniently.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::host::Host;

/// The configurations.
pub(super) struct Facts {
    pub(super) config_path: PathBuf,
    /// The shim's configuration, as far as it is TOML.
    config: Table,
    pub(super) has_config: bool,
    /// "snp" or "tdx", as the shim would choose for "auto"; "" where the host has neither.
    host_tee: &'static str,
    /// containerd's, with every file that it imports; the error says why there is none.
    pub(super) containerd: Result<Table, String>,
}

/// A handler of containerd's that runs our shim.
pub(super) struct Handler<'a> {
    pub(super) name: &'a str,
    pub(super) table: &'a Table,
}

impl Facts {
    pub(super) fn gather(host: &Host, config: &Path, containerd: &Path) -> Self {
        let text = host.text(config);
        Self {
            config_path: config.to_owned(),
            has_config: text.is_some(),
            host_tee: match (host.parameter(SNP), host.parameter(TDX)) {
                (true, _) => "snp",
                (false, true) => "tdx",
                (false, false) => "",
            },
            config: text.and_then(|text| text.parse().ok()).unwrap_or_default(),
            containerd: dump(host, containerd),
        }
    }

    /// "snp", "tdx", "sim", "sim-tdx"; "auto" and "" (where the configuration does not say) are what the host has.
    pub(super) fn tee(&self) -> &str {
        match self.text("tee").unwrap_or_default() {
            "auto" | "" if self.host_tee.is_empty() => "auto",
            "auto" | "" => self.host_tee,
            tee => tee,
        }
    }

    /// Whether real hardware is asked for.
    pub(super) fn wants_hardware(&self) -> bool {
        !self.tee().starts_with("sim")
    }

    /// Whether guests are TDX's, or imitate them.
    pub(super) fn wants_tdx(&self) -> bool {
        matches!(self.tee(), "tdx" | "sim-tdx")
    }

    pub(super) fn path(&self, key: &str, default: &str) -> PathBuf {
        PathBuf::from(self.text(key).unwrap_or(default))
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.config.get(key)?.as_str()
    }

    pub(super) fn number(&self, key: &str, default: u64) -> u64 {
        let number = self.config.get(key).and_then(Value::as_integer);
        number.and_then(|number| u64::try_from(number).ok()).unwrap_or(default)
    }

    /// The table at `path` in containerd's configuration.
    pub(super) fn containerd_table(&self, path: &[&str]) -> Option<&Table> {
        table(self.containerd.as_ref().ok()?, path)
    }

    /// The handlers that run our shim.
    pub(super) fn handlers(&self) -> Vec<Handler<'_>> {
        let runtimes = self.containerd_table(&["plugins", CRI_RUNTIME, "containerd", "runtimes"]);
        let tables = runtimes.into_iter().flatten().filter_map(|(name, value)| {
            let table = value.as_table()?;
            let ours = table.get("runtime_type").and_then(Value::as_str) == Some(RUNTIME);
            ours.then_some(Handler { name, table })
        });
        tables.collect()
    }
}

/// The table at `path`.
pub(super) fn table<'a>(table: &'a Table, path: &[&str]) -> Option<&'a Table> {
    path.iter().try_fold(table, |table, key| table.get(*key)?.as_table())
}

/// The whole configuration: containerd itself merges what is imported and fills in its defaults.
fn dump(host: &Host, path: &Path) -> Result<Table, String> {
    let real = host.path(path);
    let real = real.to_string_lossy();
    let mut arguments = vec!["config", "dump"];
    if host.exists(path) {
        arguments.splice(0..0, ["--config", &real]);
    }
    let answer = host
        .ask("containerd", &arguments)
        .map_err(|error| format!("`containerd config dump`: {error}"))?;
    // Warnings come first, on standard error or before the configuration.
    let text = answer.text;
    let begins = text.find("version = ").unwrap_or(0);
    let whole = text.get(begins..).unwrap_or_default();
    let toml: String = whole
        .lines()
        .filter(|line| !line.starts_with("time=") && !line.starts_with("containerd:"))
        .map(|line| format!("{line}\n"))
        .collect();
    if !answer.succeeded {
        let line = text.lines().last().unwrap_or_default();
        return Err(format!("`containerd config dump` failed: {line}"));
    }
    toml.parse()
        .map_err(|error: toml::de::Error| format!("`containerd config dump` is not TOML: {}", error.message()))
}

/// Whether KVM runs SNP guests.
pub(super) const SNP: &str = "/sys/module/kvm_amd/parameters/sev_snp";
/// Whether KVM runs TDX guests.
pub(super) const TDX: &str = "/sys/module/kvm_intel/parameters/tdx";
/// The runtime that a handler names.
pub(super) const RUNTIME: &str = "io.containerd.cella.v2";
pub(super) const CRI_RUNTIME: &str = "io.containerd.cri.v1.runtime";
pub(super) const CRI_IMAGES: &str = "io.containerd.cri.v1.images";
