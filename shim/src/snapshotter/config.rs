//! `/etc/cella/snapshotter.toml`: where to listen and where to keep the record. Nothing in it is measured.
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Deserialize;
use slog::Level;

/// Where the configuration lies when no other place is named.
pub const DEFAULT_PATH: &str = "/etc/cella/snapshotter.toml";

/// A validated configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Path of the Unix socket to listen on; absolute, at most 107 bytes.
    pub address: PathBuf,
    /// Folder of the record; absolute.
    pub root: PathBuf,
    /// containerd's own socket; absolute.
    pub containerd: PathBuf,
    /// The least severe level that is logged.
    pub log_level: Level,
}

/// The file. Every field may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct ConfigFile {
    /// Absolute path of the Unix socket; the same as `address` of `[proxy_plugins.cella]` in containerd's
    /// configuration. Default `/run/cella-snapshotter/snapshotter.sock`.
    address: Option<PathBuf>,
    /// Absolute path of the folder where snapshots are recorded: a few KiB for each layer, no image content but for a layer
    /// that containerd is unpacking. Default
    /// `/var/lib/cella/snapshotter`.
    root: Option<PathBuf>,
    /// Absolute path of containerd's socket, asked for the users that images name; without it only common names are known.
    /// Default `/run/containerd/containerd.sock`.
    containerd: Option<PathBuf>,
    /// `error`, `warn`, `info` or `debug`. Default `info`.
    log_level: Option<String>,
}

/// What the command line says in place of the file.
#[derive(Debug, Default)]
pub struct Overrides {
    /// In place of `address`.
    pub address: Option<PathBuf>,
    /// In place of `root`.
    pub root: Option<PathBuf>,
}

impl Config {
    /// Reads `path`, or [`DEFAULT_PATH`] if there is such a file, and puts `overrides` over it.
    ///
    /// # Errors
    /// When a named file is missing, a key is unknown, or a value is out of range.
    pub fn load(path: Option<&Path>, overrides: Overrides) -> Result<Self, ConfigError> {
        let (path, may_be_absent) = path.map_or((Path::new(DEFAULT_PATH), true), |path| (path, false));
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if may_be_absent && error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => {
                return Err(ConfigError::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let file: ConfigFile = toml::from_str(&text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        Self::validate(file, overrides)
    }

    fn validate(file: ConfigFile, overrides: Overrides) -> Result<Self, ConfigError> {
        let address = overrides
            .address
            .or(file.address)
            .unwrap_or_else(|| DEFAULT_ADDRESS.into());
        let root = overrides.root.or(file.root).unwrap_or_else(|| DEFAULT_ROOT.into());
        let containerd = file.containerd.unwrap_or_else(|| DEFAULT_CONTAINERD.into());
        for (key, path) in [("address", &address), ("root", &root), ("containerd", &containerd)] {
            if !path.is_absolute() {
                return Err(ConfigError::NotAbsolute {
                    key,
                    path: path.clone(),
                });
            }
        }
        if address.as_os_str().len() > MAX_ADDRESS {
            return Err(ConfigError::AddressTooLong { path: address });
        }
        let log_level = match file.log_level.as_deref() {
            None | Some("info") => Level::Info,
            Some("error") => Level::Error,
            Some("warn") => Level::Warning,
            Some("debug") => Level::Debug,
            Some(other) => {
                return Err(ConfigError::LogLevel {
                    level: other.to_owned(),
                });
            }
        };
        Ok(Self {
            address,
            root,
            containerd,
            log_level,
        })
    }
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("reading the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Not TOML, or a key that does not exist.
    #[error("the configuration {path} is not valid")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What and where.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A relative path would depend on who starts the program where.
    #[error("{key} must be an absolute path, not {path}")]
    NotAbsolute {
        /// Which key.
        key: &'static str,
        /// Its value.
        path: PathBuf,
    },
    /// The kernel takes no longer address.
    #[error("address is longer than the {MAX_ADDRESS} bytes that a Unix socket's can have: {path}")]
    AddressTooLong {
        /// Its value.
        path: PathBuf,
    },
    /// Not a level.
    #[error("log-level must be error, warn, info or debug, not {level:?}")]
    LogLevel {
        /// Its value.
        level: String,
    },
}

const DEFAULT_ADDRESS: &str = "/run/cella-snapshotter/snapshotter.sock";
const DEFAULT_CONTAINERD: &str = "/run/containerd/containerd.sock";
const DEFAULT_ROOT: &str = "/var/lib/cella/snapshotter";
const MAX_ADDRESS: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshotter.toml");
        fs::write(&path, text).unwrap();
        Config::load(Some(&path), Overrides::default())
    }

    #[test]
    fn defaults_and_values() {
        let config = load("").unwrap();
        assert_eq!(config.address, Path::new("/run/cella-snapshotter/snapshotter.sock"));
        assert_eq!(config.root, Path::new("/var/lib/cella/snapshotter"));
        assert_eq!(config.log_level, Level::Info);
        assert_eq!(config.containerd, Path::new("/run/containerd/containerd.sock"));
        let config = load("address = '/a'\nroot = '/b'\ncontainerd = '/c'\nlog-level = 'debug'\n").unwrap();
        assert_eq!(
            config,
            Config {
                address: "/a".into(),
                root: "/b".into(),
                containerd: "/c".into(),
                log_level: Level::Debug
            }
        );
    }

    #[test]
    fn the_command_line_wins() {
        let file = ConfigFile {
            address: Some("/a".into()),
            root: Some("/b".into()),
            containerd: None,
            log_level: None,
        };
        let overrides = Overrides {
            address: Some("/c".into()),
            root: None,
        };
        let config = Config::validate(file, overrides).unwrap();
        assert_eq!((config.address, config.root), ("/c".into(), "/b".into()));
    }

    #[test]
    fn unknown_keys_and_values_are_refused_by_name() {
        match load("adress = '/a'") {
            Err(ConfigError::Parse { source, .. }) => assert!(source.to_string().contains("adress"), "{source}"),
            other => panic!("{other:?}"),
        }
        assert!(matches!(
            load("root = 'a'"),
            Err(ConfigError::NotAbsolute { key: "root", .. })
        ));
        assert!(matches!(
            load("address = 'a'"),
            Err(ConfigError::NotAbsolute { key: "address", .. })
        ));
        assert!(matches!(load("log-level = 'loud'"), Err(ConfigError::LogLevel { .. })));
        let long = format!("address = '/{}'", "a".repeat(107));
        assert!(matches!(load(&long), Err(ConfigError::AddressTooLong { .. })));
        let missing = Config::load(Some(Path::new("/nonexistent/x.toml")), Overrides::default());
        assert!(matches!(missing, Err(ConfigError::Read { .. })));
    }
}
