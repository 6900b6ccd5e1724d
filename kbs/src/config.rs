//! The configuration of `cella-kbs serve`: the file as written, and the validated form made from it.
//!
//! The file is TOML in kebab-case. Keys that this version does not know are refused by name, so that a typing error
//! cannot weaken a rule in silence. Relative paths count from the folder of the file. Nothing in it is secret and
//! nothing in it is measured; secrets are in files of their own, named here.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::files::{self, FileError};

/// The validated configuration.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the bound address is written when the listener is ready.
    pub address_file: Option<PathBuf>,
    /// Folder of the database.
    pub state_dir: PathBuf,
    /// The audit log.
    pub audit_log: PathBuf,
    /// The key that seals stored resources.
    pub storage_key: PathBuf,
    /// Keys that sealed earlier and now only open.
    pub earlier_storage_keys: Vec<PathBuf>,
    /// Public keys of the admins, at least one.
    pub admin_keys: Vec<PathBuf>,
    /// The development root whose evidence is accepted too, marked `simulated`.
    pub simulated_root: Option<PathBuf>,
    /// Whether evidence of Milan is looked at. Each rule must allow it too.
    pub allow_milan: bool,
    /// Public keys of those whose reference values are taken.
    pub reference_signers: Vec<PathBuf>,
    /// The database, where several brokers share one.
    pub postgres: Option<Postgres>,
    /// More about SEV-SNP.
    pub snp: Snp,
    /// More about TDX.
    pub tdx: Tdx,
    /// The server's certificate chain and key.
    pub tls: TlsFiles,
    /// Bounds on what peers can hold.
    pub limits: Limits,
    /// Bounds on how long. The file has no keys for them.
    pub deadlines: Deadlines,
}

/// Where the server's TLS identity is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct TlsFiles {
    /// PEM, leaf first.
    pub certificate: PathBuf,
    /// PEM, mode 0600.
    pub key: PathBuf,
}

/// A PostgreSQL database in place of the embedded one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Postgres {
    /// A file with a connection string, mode 0600.
    pub connection: PathBuf,
    /// PEM roots of the server's certificate, where it is not on a Unix socket.
    pub ca: Option<PathBuf>,
    /// The name of this broker among those that share the database, in its audit log.
    pub replica: String,
}

/// What SEV-SNP evidence is judged by, beside roots.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[non_exhaustive]
pub struct Snp {
    /// AMD's revocation lists, DER, of any products.
    pub crls: Vec<PathBuf>,
    /// Refuse evidence for whose root there is no list.
    pub require_crl: bool,
}

/// What TDX evidence is judged by.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[non_exhaustive]
pub struct Tdx {
    /// Intel's collateral: a file, or a folder of files.
    pub collateral: Option<PathBuf>,
    /// How old collateral may be, even if Intel says that it holds for longer.
    pub collateral_max_age_hours: u64,
    /// The development root whose evidence is accepted too, marked `simulated`.
    pub simulated_root: Option<PathBuf>,
}

impl Default for Tdx {
    /// Intel's own term.
    fn default() -> Self {
        Self {
            collateral: None,
            collateral_max_age_hours: 720,
            simulated_root: None,
        }
    }
}

/// Bounds on what peers can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// From `/auth` to the end of the session, and the lifetime of a token.
    pub session_timeout: Duration,
    /// Sessions that wait for evidence, and, counted apart, sessions that gave it.
    pub sessions: usize,
    /// TCP connections at once.
    pub connections: usize,
    /// Of one source: an IPv4 address or an IPv6 /64.
    pub connections_per_source: usize,
    /// Of one source, which may save up those of ten seconds.
    pub requests_per_second: u32,
}

/// How long peers can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deadlines {
    /// For the TLS handshake. 10 s.
    pub handshake: Duration,
    /// For the headers of a request, counted from the end of the one before: so also how long a connection may idle.
    /// 30 s.
    pub headers: Duration,
    /// For a body. 30 s.
    pub body: Duration,
    /// For a connection in all; a guest needs seconds. 15 min.
    pub connection: Duration,
    /// For requests that are under way when a connection is asked to end. 5 s.
    pub drain: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            headers: Duration::from_secs(30),
            body: Duration::from_secs(30),
            connection: Duration::from_secs(15 * 60),
            drain: Duration::from_secs(5),
        }
    }
}

impl Config {
    /// Reads and validates a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = files::read_text(path).map_err(|source| ConfigError::File { source })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        Self::parse(&text, folder)
    }

    /// Validates the text of a file whose relative paths count from `folder`. Opens nothing.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, ConfigError> {
        let file: ConfigFile = toml::from_str(text).map_err(|source| ConfigError::Syntax {
            source: Box::new(source),
        })?;
        let at = |path: PathBuf| folder.join(path);
        if file.admin_keys.is_empty() {
            return Err(ConfigError::NoAdminKey);
        }
        within(
            "tdx.collateral-max-age-hours",
            file.tdx.collateral_max_age_hours,
            1,
            8760,
        )?;
        let state_dir = at(file.state_dir);
        if let Some(Postgres { replica, .. }) = &file.postgres {
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
            if !(1..=64).contains(&replica.len()) || !replica.bytes().all(plain) {
                return Err(ConfigError::Replica);
            }
        }
        Ok(Self {
            listen: file.listen,
            address_file: file.address_file.map(at),
            audit_log: file.audit_log.map_or_else(|| state_dir.join("audit.jsonl"), at),
            state_dir,
            storage_key: at(file.storage_key),
            earlier_storage_keys: file.earlier_storage_keys.into_iter().map(at).collect(),
            admin_keys: file.admin_keys.into_iter().map(at).collect(),
            simulated_root: file.simulated_root.map(at),
            allow_milan: file.allow_milan,
            reference_signers: file.reference_signers.into_iter().map(at).collect(),
            postgres: file.postgres.map(|postgres| Postgres {
                connection: at(postgres.connection),
                ca: postgres.ca.map(at),
                ..postgres
            }),
            snp: Snp {
                crls: file.snp.crls.into_iter().map(at).collect(),
                ..file.snp
            },
            tdx: Tdx {
                collateral: file.tdx.collateral.map(at),
                simulated_root: file.tdx.simulated_root.map(at),
                ..file.tdx
            },
            tls: TlsFiles {
                certificate: at(file.tls.certificate),
                key: at(file.tls.key),
            },
            limits: file.limits.validate()?,
            deadlines: Deadlines::default(),
        })
    }
}

/// The file, as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ConfigFile {
    listen: SocketAddr,
    address_file: Option<PathBuf>,
    state_dir: PathBuf,
    audit_log: Option<PathBuf>,
    storage_key: PathBuf,
    #[serde(default)]
    earlier_storage_keys: Vec<PathBuf>,
    admin_keys: Vec<PathBuf>,
    simulated_root: Option<PathBuf>,
    #[serde(default)]
    allow_milan: bool,
    #[serde(default)]
    reference_signers: Vec<PathBuf>,
    postgres: Option<Postgres>,
    #[serde(default)]
    snp: Snp,
    #[serde(default)]
    tdx: Tdx,
    tls: TlsFiles,
    #[serde(default)]
    limits: LimitsFile,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct LimitsFile {
    session_timeout_seconds: u64,
    sessions: usize,
    connections: usize,
    connections_per_source: usize,
    requests_per_second: u32,
}

impl Default for LimitsFile {
    fn default() -> Self {
        Self {
            session_timeout_seconds: 300,
            sessions: 4096,
            connections: 256,
            connections_per_source: 128,
            requests_per_second: 100,
        }
    }
}

impl LimitsFile {
    fn validate(self) -> Result<Limits, ConfigError> {
        within("limits.session-timeout-seconds", self.session_timeout_seconds, 10, 3600)?;
        within("limits.sessions", self.sessions as u64, 1, 65_536)?;
        within("limits.connections", self.connections as u64, 1, 4096)?;
        let per_source = self.connections_per_source as u64;
        within("limits.connections-per-source", per_source, 1, 4096)?;
        let rate = u64::from(self.requests_per_second);
        within("limits.requests-per-second", rate, 1, 100_000)?;
        Ok(Limits {
            session_timeout: Duration::from_secs(self.session_timeout_seconds),
            sessions: self.sessions,
            connections: self.connections,
            connections_per_source: self.connections_per_source,
            requests_per_second: self.requests_per_second,
        })
    }
}

fn within(key: &'static str, value: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(ConfigError::OutOfRange { key, value, min, max })
    }
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration cannot be read")]
    File {
        /// Why, with the path.
        #[source]
        source: FileError,
    },
    /// Not TOML, a key unknown, missing or of the wrong type: the cause names it and its line.
    #[error("the configuration is not valid")]
    Syntax {
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A number outside its range.
    #[error("{key} is {value}; it must be from {min} to {max}")]
    OutOfRange {
        /// Which key.
        key: &'static str,
        /// As written.
        value: u64,
        /// Smallest value accepted.
        min: u64,
        /// Largest value accepted.
        max: u64,
    },
    /// A name that cannot be told apart in a log.
    #[error("postgres.replica must be 1 to 64 characters of A-Z a-z 0-9 _ . -")]
    Replica,
    /// Nobody could ever store a key.
    #[error("admin-keys is empty: name at least one public key file")]
    NoAdminKey,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"
        listen = "127.0.0.1:0"
        state-dir = "state"
        storage-key = "storage.key"
        admin-keys = ["admin.pub"]
        tls = { certificate = "server.pem", key = "/abs/server.key" }
    "#;

    #[test]
    fn defaults_and_relative_paths() {
        let config = Config::parse(MINIMAL, Path::new("/etc/kbs")).unwrap();
        assert_eq!(config.audit_log, Path::new("/etc/kbs/state/audit.jsonl"));
        assert_eq!(config.tls.certificate, Path::new("/etc/kbs/server.pem"));
        assert_eq!(config.tls.key, Path::new("/abs/server.key"));
        assert!(config.postgres.is_none());
        assert!(config.snp.crls.is_empty() && !config.snp.require_crl && config.reference_signers.is_empty());
        assert!(config.tdx.collateral.is_none() && config.tdx.simulated_root.is_none());
        assert_eq!(config.tdx.collateral_max_age_hours, 720);
        assert!(!config.allow_milan && config.simulated_root.is_none() && config.address_file.is_none());
        let limits = Limits {
            session_timeout: Duration::from_secs(300),
            sessions: 4096,
            connections: 256,
            connections_per_source: 128,
            requests_per_second: 100,
        };
        assert_eq!(config.limits, limits);
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        for (extra, name) in [
            ("allow-everything = true\n", "allow-everything"),
            ("[limits]\nsession-timeout = 3\n", "session-timeout"),
            ("[tls]\nciphers = 3\n", "ciphers"),
            ("[snp]\nroots = 3\n", "roots"),
            ("[tdx]\nallow-debug = true\n", "allow-debug"),
            ("[postgres]\npassword = \"hunter2\"\n", "password"),
        ] {
            let text = if extra.starts_with("[tls]") {
                extra.to_owned()
            } else {
                format!("{MINIMAL}\n{extra}")
            };
            match Config::parse(&text, Path::new(".")) {
                Err(ConfigError::Syntax { source }) => {
                    assert!(
                        source.message().contains(&format!("unknown field `{name}`")),
                        "{source}"
                    );
                }
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn ranges() {
        for (line, key) in [
            ("session-timeout-seconds = 9", "limits.session-timeout-seconds"),
            ("session-timeout-seconds = 3601", "limits.session-timeout-seconds"),
            ("sessions = 0", "limits.sessions"),
            ("connections = 4097", "limits.connections"),
            ("connections-per-source = 0", "limits.connections-per-source"),
            ("requests-per-second = 100001", "limits.requests-per-second"),
        ] {
            match Config::parse(&format!("{MINIMAL}\n[limits]\n{line}"), Path::new(".")) {
                Err(ConfigError::OutOfRange { key: found, .. }) => assert_eq!(found, key),
                other => panic!("{line}: {other:?}"),
            }
        }
        for hours in [0, 8761] {
            let text = format!("{MINIMAL}\n[tdx]\ncollateral-max-age-hours = {hours}");
            let refused = Config::parse(&text, Path::new("."));
            assert!(matches!(
                refused,
                Err(ConfigError::OutOfRange {
                    key: "tdx.collateral-max-age-hours",
                    ..
                })
            ));
        }
        let none = MINIMAL.replace(r#"["admin.pub"]"#, "[]");
        assert!(matches!(
            Config::parse(&none, Path::new(".")),
            Err(ConfigError::NoAdminKey)
        ));
    }

    #[test]
    fn a_replica_has_a_name() {
        let parse = |name: &str| {
            let text = format!("{MINIMAL}\n[postgres]\nconnection = \"connection\"\nreplica = \"{name}\"\n");
            Config::parse(&text, Path::new("/etc/kbs"))
        };
        let postgres = parse("berlin-1").unwrap().postgres.unwrap();
        assert_eq!(postgres.connection, Path::new("/etc/kbs/connection"));
        assert!(postgres.ca.is_none() && postgres.replica == "berlin-1");
        for name in ["", "a b", "a/b", &"x".repeat(65)] {
            assert!(matches!(parse(name), Err(ConfigError::Replica)), "{name}");
        }
    }

    /// The README is the reference for operators: it names every key.
    #[test]
    fn the_readme_names_every_key() {
        let readme = include_str!("../README.md");
        for key in [
            "listen",
            "address-file",
            "state-dir",
            "audit-log",
            "storage-key",
            "earlier-storage-keys",
            "admin-keys",
            "simulated-root",
            "allow-milan",
            "reference-signers",
            "snp.crls",
            "snp.require-crl",
            "tdx.collateral",
            "tdx.collateral-max-age-hours",
            "tdx.simulated-root",
            "postgres.connection",
            "postgres.ca",
            "postgres.replica",
            "tls.certificate",
            "tls.key",
            "limits.session-timeout-seconds",
            "limits.sessions",
            "limits.connections",
            "limits.connections-per-source",
            "limits.requests-per-second",
        ] {
            assert!(readme.contains(&format!("| `{key}` |")), "{key}");
        }
    }
}
