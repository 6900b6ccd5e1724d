//! `cella-kbs init`: everything a broker needs to start, in one folder.
//!
//! Makes a certificate authority of its own, a server certificate under it, an admin's key pair, a storage key and a
//! configuration. All files get mode 0600, their folder 0700. Nothing is overwritten. The configuration is written
//! last: a folder that has it is complete.
//!
//! | file | what | who needs it |
//! |---|---|---|
//! | `config.toml` | see the README | `serve` |
//! | `ca.pem` | the authority's certificate | goes into workload policies and to `cellactl`; public |
//! | `ca.key` | its key | only to renew `server.pem`; keep it offline |
//! | `server.pem`, `server.key` | TLS identity | `serve` |
//! | `storage.key` | seals the database | `serve`; without it the database is lost |
//! | `admin.key` | signs admin tokens | `cellactl`; move it to the admin's desk |
//! | `admin.pub` | verifies them | `serve` |
//! | `state/` | database, audit log, address | `serve` |

use std::fs::DirBuilder;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use crate::files::{self, FileError};
use crate::storage::{KeyFormatError, StorageKey};

/// How long the authority's certificate is valid.
const CA_DAYS: i64 = 3650;
/// How long the server's certificate is valid.
const SERVER_DAYS: i64 = 730;
/// By how much a guest's clock may be behind.
const CLOCK_SLACK_DAYS: i64 = 1;

/// What to make.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// The folder. Made if it is not there.
    pub dir: PathBuf,
    /// DNS names and addresses that the server's certificate is for.
    pub names: Vec<String>,
    /// Address to listen on.
    pub listen: SocketAddr,
    /// A development root, for simulated platforms.
    pub simulated_root: Option<PathBuf>,
    /// Intel's collateral, or a development authority's: a file or a folder.
    pub tdx_collateral: Option<PathBuf>,
    /// A development root, for simulated TDX platforms.
    pub simulated_tdx_root: Option<PathBuf>,
}

/// Makes the folder's files; gives the path of the configuration.
pub fn init(options: &InitOptions) -> Result<PathBuf, InitError> {
    let config = options.dir.join("config.toml");
    if config.exists() {
        return Err(InitError::Exists { path: config });
    }
    let given = |path: &Option<PathBuf>| path.as_deref().map(absolute).transpose();
    let root = given(&options.simulated_root)?;
    let tdx = [given(&options.tdx_collateral)?, given(&options.simulated_tdx_root)?];
    let mut folder = DirBuilder::new();
    folder.recursive(true).mode(0o700);
    for path in [options.dir.clone(), options.dir.join("state")] {
        folder
            .create(&path)
            .map_err(|source| InitError::Folder { path, source })?;
    }
    let write = |name: &str, contents: &str| files::create_private(&options.dir.join(name), contents.as_bytes());

    let ca = authority()?;
    let server_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let server = server_params(&options.names)?.signed_by(&server_key, &ca)?;
    write("ca.pem", &ca.as_ref().pem())?;
    write("ca.key", &Zeroizing::new(ca.key().serialize_pem()))?;
    write("server.pem", &server.pem())?;
    write("server.key", &Zeroizing::new(server_key.serialize_pem()))?;

    let admin = KeyPair::generate_for(&PKCS_ED25519)?;
    write("admin.key", &Zeroizing::new(admin.serialize_pem()))?;
    write("admin.pub", &admin.public_key_pem())?;
    write("storage.key", &StorageKey::generate()?)?;
    write("config.toml", &config_text(options.listen, root.as_deref(), &tdx))?;
    Ok(config)
}

fn authority() -> Result<CertifiedIssuer<'static, KeyPair>, InitError> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "cella-kbs CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = validity(CA_DAYS);
    Ok(CertifiedIssuer::self_signed(
        params,
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
    )?)
}

fn server_params(names: &[String]) -> Result<CertificateParams, InitError> {
    let first = names.first().ok_or(InitError::NoName)?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, first.as_str());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = validity(SERVER_DAYS);
    Ok(params)
}

fn validity(days: i64) -> (OffsetDateTime, OffsetDateTime) {
    let now = OffsetDateTime::now_utc();
    (now - Duration::days(CLOCK_SLACK_DAYS), now + Duration::days(days))
}

/// The path from the root folder: the configuration's own relative paths count from its folder, an argument's from
/// where the command runs.
fn absolute(path: &Path) -> Result<PathBuf, InitError> {
    std::path::absolute(path).map_err(|source| InitError::Folder {
        path: path.to_owned(),
        source,
    })
}

fn config_text(listen: SocketAddr, simulated_root: Option<&Path>, tdx: &[Option<PathBuf>; 2]) -> String {
    let mut text = format!(
        r#"# Configuration of cella-kbs. Relative paths count from this file's folder. See README.md.
listen = "{listen}"
address-file = "state/address"
state-dir = "state"
storage-key = "storage.key"
admin-keys = ["admin.pub"]
"#
    );
    if let Some(root) = simulated_root {
        let root = toml::Value::String(root.display().to_string());
        text.push_str("# Development only: evidence under this root proves nothing about hardware.\n");
        text.push_str(&format!("simulated-root = {root}\n"));
    }
    if tdx.iter().any(Option::is_some) {
        text.push_str("\n[tdx]\n");
    }
    for (key, path) in ["collateral", "simulated-root"].into_iter().zip(tdx) {
        if let Some(path) = path {
            let path = toml::Value::String(path.display().to_string());
            text.push_str(&format!("{key} = {path}\n"));
        }
    }
    text.push_str("\n[tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n");
    text
}

/// The folder could not be made complete. What was made so far is left for inspection; remove it and start again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// A broker is there already.
    #[error("{} exists: this folder is initialised; remove it or choose another one", path.display())]
    Exists {
        /// Its configuration.
        path: PathBuf,
    },
    /// A certificate without a name is for nobody.
    #[error("no name for the server's certificate")]
    NoName,
    /// A folder cannot be made, or a path not be resolved.
    #[error("making {}", path.display())]
    Folder {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("a file cannot be written")]
    File(#[from] FileError),
    /// A key or certificate cannot be made, or a name is not one.
    #[error("a key or certificate cannot be made")]
    Certificate(#[from] rcgen::Error),
    /// The system gives no randomness.
    #[error("the storage key cannot be made")]
    StorageKey(#[from] KeyFormatError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::os::unix::fs::MetadataExt;

    fn options(dir: &Path) -> InitOptions {
        InitOptions {
            dir: dir.join("kbs"),
            names: vec!["localhost".to_owned(), "10.0.2.2".to_owned()],
            listen: "127.0.0.1:0".parse().unwrap(),
            simulated_root: Some("/dev root/\"ark\".pem".into()),
            tdx_collateral: Some("/dev root/collateral".into()),
            simulated_tdx_root: Some("/dev root/tdx.pem".into()),
        }
    }

    #[test]
    fn makes_a_complete_and_private_folder_once() {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path());
        let config = Config::load(&init(&options).unwrap()).unwrap();
        assert_eq!(config.simulated_root.as_deref(), options.simulated_root.as_deref());
        assert_eq!(config.tdx.collateral, options.tdx_collateral);
        assert_eq!(config.tdx.simulated_root, options.simulated_tdx_root);
        assert_eq!(config.listen, options.listen);
        for entry in std::fs::read_dir(&options.dir).unwrap() {
            let metadata = entry.unwrap().metadata().unwrap();
            assert_eq!(metadata.mode() & 0o777, if metadata.is_dir() { 0o700 } else { 0o600 });
        }
        assert!(matches!(init(&options), Err(InitError::Exists { .. })));
    }

    #[test]
    fn refuses_what_is_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let none = InitOptions {
            names: vec![],
            ..options(dir.path())
        };
        assert!(matches!(init(&none), Err(InitError::NoName)));
        let dir = tempfile::tempdir().unwrap();
        let bad = InitOptions {
            names: vec!["näme".to_owned()],
            ..options(dir.path())
        };
        assert!(matches!(init(&bad), Err(InitError::Certificate(_))));
    }
}
