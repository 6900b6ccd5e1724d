//! The runtime options of a `Create` request: `runtimeoptions.v1.Options`, which names the configuration.
//!
//! The message is decoded here by hand (three string fields), since no crate in the tree carries it. Bytes come from
//! containerd; a malformed message is an error, never a default.

use std::path::PathBuf;

use containerd_shim::protos::protobuf::well_known_types::any::Any;
use protobuf::CodedInputStream;

/// Where the configuration is found when nothing names another place.
pub const DEFAULT_CONFIG: &str = "/etc/cella/config.toml";

/// The message that containerd passes for every runtime but runc.
pub(crate) const OPTIONS_TYPE: &str = "runtimeoptions.v1.Options";
/// Longest options message that is decoded, in bytes.
const MAX_OPTIONS: usize = 256 * 1024;

/// Where the shim's configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// A file: `--runtime-config-path`, `ConfigPath` of containerd's runtime table, or the default.
    File(PathBuf),
    /// TOML text: the options table of containerd's own configuration, passed whole.
    Inline(String),
}

/// Runtime options that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// Another runtime's options.
    #[error(
        "runtime options have type {type_url:?}, expected \"runtimeoptions.v1.Options\": set ConfigPath (or --runtime-config-path)"
    )]
    Type {
        /// The type that was given.
        type_url: String,
    },
    /// Longer than any real configuration.
    #[error("runtime options are {bytes} bytes long, at most {MAX_OPTIONS} are read")]
    TooLong {
        /// Length of the message.
        bytes: usize,
    },
    /// Not a protobuf message.
    #[error("runtime options are not a runtimeoptions.v1.Options message")]
    Malformed {
        /// What the decoder says.
        #[source]
        source: protobuf::Error,
    },
    /// A path that depends on the shim's working directory.
    #[error("runtime option config_path {path:?} is not absolute")]
    RelativePath {
        /// The path that was given.
        path: String,
    },
}

/// The configuration that the options of a `Create` request name; [`DEFAULT_CONFIG`] where there are none.
///
/// # Errors
/// Options of another type, a message that does not decode, a relative path.
pub fn config_source(options: Option<&Any>) -> Result<ConfigSource, OptionsError> {
    let default = || ConfigSource::File(PathBuf::from(DEFAULT_CONFIG));
    let Some(any) = options.filter(|any| !any.type_url.is_empty()) else {
        return Ok(default());
    };
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    if name != OPTIONS_TYPE {
        return Err(OptionsError::Type {
            type_url: crate::untrusted::printable(&any.type_url, 128),
        });
    }
    if any.value.len() > MAX_OPTIONS {
        return Err(OptionsError::TooLong { bytes: any.value.len() });
    }
    let fields = decode(&any.value).map_err(|source| OptionsError::Malformed { source })?;
    if !fields.config_path.is_empty() {
        if !fields.config_path.starts_with('/') {
            return Err(OptionsError::RelativePath {
                path: fields.config_path,
            });
        }
        return Ok(ConfigSource::File(PathBuf::from(fields.config_path)));
    }
    if fields.config_body.trim().is_empty() {
        Ok(default())
    } else {
        Ok(ConfigSource::Inline(fields.config_body))
    }
}

#[derive(Default)]
struct Fields {
    config_path: String,
    config_body: String,
}

/// Fields: 1 type_url, 2 config_path, 3 config_body (bytes); others are skipped.
fn decode(bytes: &[u8]) -> Result<Fields, protobuf::Error> {
    const PATH: u32 = 2 << 3 | 2;
    const BODY: u32 = 3 << 3 | 2;
    let mut fields = Fields::default();
    let mut input = CodedInputStream::from_bytes(bytes);
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        match tag {
            PATH => fields.config_path = input.read_string()?,
            BODY => fields.config_body = input.read_string()?,
            other => protobuf::rt::skip_field_for_tag(other, &mut input)?,
        }
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(value: Vec<u8>) -> Any {
        Any {
            type_url: OPTIONS_TYPE.to_owned(),
            value,
            ..Default::default()
        }
    }

    fn field(number: u8, text: &str) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, text.len().try_into().unwrap()];
        out.extend_from_slice(text.as_bytes());
        out
    }

    #[test]
    fn no_options_mean_the_default_file() {
        let expected = ConfigSource::File(DEFAULT_CONFIG.into());
        assert_eq!(config_source(None).unwrap(), expected);
        assert_eq!(config_source(Some(&Any::default())).unwrap(), expected);
        assert_eq!(config_source(Some(&any(vec![]))).unwrap(), expected);
    }

    #[test]
    fn path_wins_over_body() {
        let mut bytes = field(1, "whatever");
        bytes.extend(field(3, "tee = \"sim\""));
        assert_eq!(
            config_source(Some(&any(bytes.clone()))).unwrap(),
            ConfigSource::Inline("tee = \"sim\"".into())
        );
        bytes.extend(field(2, "/etc/x.toml"));
        assert_eq!(
            config_source(Some(&any(bytes))).unwrap(),
            ConfigSource::File("/etc/x.toml".into())
        );
    }

    #[test]
    fn foreign_type_relative_path_and_truncation_are_refused() {
        let foreign = Any {
            type_url: "containerd.runc.v1.Options".into(),
            ..Default::default()
        };
        assert!(matches!(config_source(Some(&foreign)), Err(OptionsError::Type { .. })));
        assert!(matches!(
            config_source(Some(&any(field(2, "x.toml")))),
            Err(OptionsError::RelativePath { .. })
        ));
        let whole = field(2, "/etc/x.toml");
        for cut in 1..whole.len() {
            let result = config_source(Some(&any(whole[..cut].to_vec())));
            assert!(matches!(result, Err(OptionsError::Malformed { .. })), "cut at {cut}");
        }
        assert!(matches!(
            config_source(Some(&any(vec![0; MAX_OPTIONS + 1]))),
            Err(OptionsError::TooLong { .. })
        ));
    }
}
