//! The one line that containerd's main configuration needs: the import of the drop-in.
//!
//! The rest of the file is the operator's, to the byte. A file of an older version is refused and not touched: containerd takes
//! a version 3 drop-in for the version of everything, and would no longer understand the operator's own tables.

use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

/// Where the drop-in goes.
pub(super) const DROP_IN: &str = "/etc/containerd/conf.d/cella.toml";

#[derive(Deserialize)]
struct Main {
    version: Option<Spanned<i64>>,
    imports: Option<Spanned<Vec<String>>>,
}

/// The main configuration `text` with the import, or a new one.
pub(super) fn added(text: Option<&str>) -> Result<String, ImportsError> {
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else {
        return Ok(format!("version = 3\nimports = [{PATTERN:?}]\n"));
    };
    let main: Main = toml::from_str(text).map_err(|source| ImportsError::Form { source })?;
    let version = match &main.version {
        Some(version) if *version.get_ref() == VERSION => version,
        Some(version) => {
            return Err(ImportsError::Version {
                version: *version.get_ref(),
            });
        }
        None => return Err(ImportsError::Version { version: 1 }),
    };
    let mut out = text.to_owned();
    match &main.imports {
        Some(imports) if imports.get_ref().iter().any(|pattern| matches(pattern)) => {}
        Some(imports) => {
            let all: Vec<_> = imports
                .get_ref()
                .iter()
                .map(String::as_str)
                .chain([PATTERN])
                .map(|pattern| toml::Value::from(pattern).to_string())
                .collect();
            out.replace_range(imports.span(), &format!("[{}]", all.join(", ")));
        }
        None => {
            // Behind the version's line: a top-level key must come before the first table.
            let rest = text.get(version.span().end..).unwrap_or_default();
            let at = rest.find('\n').map_or(text.len(), |end| version.span().end + end);
            out.insert_str(at, &format!("\nimports = [{PATTERN:?}]"));
        }
    }
    Ok(out)
}

/// Whether an import finds the drop-in: the file itself, or the pattern of its directory. Relative ones count from the main file.
fn matches(pattern: &str) -> bool {
    let path = Path::new("/etc/containerd").join(pattern);
    path == Path::new(DROP_IN) || path == Path::new(PATTERN) || path == Path::new("/etc/containerd/conf.d/*")
}

/// A main configuration that cannot be changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ImportsError {
    /// Not TOML.
    #[error("/etc/containerd/config.toml is not a configuration of containerd's")]
    Form { source: toml::de::Error },
    /// Of containerd 1.x.
    #[error(
        "/etc/containerd/config.toml has version {version}, the drop-in needs 3: `containerd config migrate` writes it anew; look at \
         what it prints, put it in place and run this again"
    )]
    Version { version: i64 },
}

const PATTERN: &str = "/etc/containerd/conf.d/*.toml";
const VERSION: i64 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_import_is_added_and_nothing_else_is_changed() {
        for (before, after) in [
            (
                "version = 3 # mine\n[grpc]\n",
                "version = 3 # mine\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n[grpc]\n",
            ),
            (
                "version = 3",
                "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]",
            ),
            (
                "# x\nimports = [ 'a.toml', # y\n \"b\" ] # z\nversion = 3\n",
                "# x\nimports = [\"a.toml\", \"b\", \"/etc/containerd/conf.d/*.toml\"] # z\nversion = 3\n",
            ),
            (
                "version = 3\nimports = []\n",
                "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n",
            ),
        ] {
            let got = added(Some(before)).unwrap();
            assert_eq!(got, after);
            assert_eq!(added(Some(&got)).unwrap(), after, "a second time changes nothing");
        }
    }

    #[test]
    fn an_import_that_finds_the_drop_in_is_enough() {
        for pattern in [
            "conf.d/*.toml",
            "/etc/containerd/conf.d/*.toml",
            "/etc/containerd/conf.d/cella.toml",
            "conf.d/*",
        ] {
            let text = format!("imports = [\"{pattern}\"]\nversion = 3\n");
            assert_eq!(added(Some(&text)).unwrap(), text);
        }
    }

    #[test]
    fn no_file_becomes_a_small_one_and_old_versions_are_refused() {
        assert!(added(None).unwrap().starts_with("version = 3\nimports = "));
        assert!(matches!(
            added(Some("version = 2\n")),
            Err(ImportsError::Version { version: 2 })
        ));
        assert!(matches!(
            added(Some("[grpc]\n")),
            Err(ImportsError::Version { version: 1 })
        ));
        assert!(matches!(added(Some("version = ")), Err(ImportsError::Form { .. })));
    }
}
