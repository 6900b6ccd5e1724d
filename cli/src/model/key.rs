//! The key under which a model is sealed: its file, its name at the broker, and how it gets there.

use std::path::{Path, PathBuf};

use cella_policy::KeyId;
use cella_seal::Kek;
use zeroize::Zeroizing;

use crate::kbs::{Admin, AdminError, Broker};
use crate::keyfile::{self, KeyFileError};

/// A key that may have to be made.
#[derive(Debug, clap::Args)]
pub(crate) struct KeyArgs {
    /// Name of the key at the broker: kbs:///repository/type/tag.
    #[arg(long, value_name = "KBS_URI")]
    pub(super) key: KeyId,
    /// File of the key: 32 raw bytes, mode 0600. Made when it is not there.
    #[arg(long, visible_alias = "kek", value_name = "FILE")]
    pub(super) key_file: PathBuf,
}

/// The broker that shall have the key.
#[derive(Debug, clap::Args)]
pub(crate) struct RegisterArgs {
    /// Store the key at this broker, https://host:port, unless it holds one of that name already.
    #[arg(long, value_name = "URL", requires_all = ["kbs_ca", "admin_key"])]
    kbs: Option<String>,
    /// PEM of the authority that signed the broker's certificate.
    #[arg(long, value_name = "PEM", requires = "kbs")]
    kbs_ca: Option<PathBuf>,
    /// The broker's administrator's Ed25519 key, PKCS#8 PEM, mode 0600.
    #[arg(long, value_name = "FILE", requires = "kbs")]
    admin_key: Option<PathBuf>,
    /// At the end, have the broker refuse every policy that names an older version of the model. Never lowered again.
    #[arg(long, requires = "kbs")]
    raise_floor: bool,
}

/// What was done about the key.
pub(super) struct Ready {
    pub(super) kek: Kek,
    broker: Option<Admin>,
    raise_floor: bool,
}

/// The key from its file, or a fresh one, which the broker holds if one was named.
pub(super) async fn ready(key: &KeyArgs, register: &RegisterArgs) -> Result<Ready, KeyError> {
    let path = &key.key_file;
    let broker = register.broker()?;
    let held = match &broker {
        Some(broker) => broker.holds(&key.key).await?,
        None => false,
    };
    // A fresh key in place of the broker's would lock out whatever is sealed under that one.
    if held && !path.exists() {
        return Err(KeyError::Held {
            key: key.key.to_string(),
            path: path.clone(),
        });
    }
    let file = keyfile::load_or_create(path)?;
    if file.created {
        eprintln!(
            "made the key file {}: keep a copy where you keep secrets",
            path.display()
        );
    }
    if let Some(broker) = &broker {
        if held {
            eprintln!("the broker holds {} already: it is left as it is", key.key);
        } else {
            let bytes = Zeroizing::new(file.kek.expose().to_vec());
            let version = broker.store(&key.key, &bytes).await?;
            eprintln!(
                "the broker holds {} as version {version}; it is released to nobody before `cellactl kbs set-rule`",
                key.key
            );
        }
    }
    Ok(Ready {
        kek: file.kek,
        broker,
        raise_floor: register.raise_floor,
    })
}

impl Ready {
    /// What is left to do when the model is where it shall be.
    pub(super) async fn finish(&self, name: &str, version: u64) -> Result<(), KeyError> {
        if let (Some(broker), true) = (&self.broker, self.raise_floor) {
            broker.raise_floor(&format!("model/{name}"), version).await?;
            eprintln!("model/{name}: nothing below {version} is let in");
        }
        Ok(())
    }
}

impl RegisterArgs {
    fn broker(&self) -> Result<Option<Admin>, KeyError> {
        let (Some(url), Some(ca), Some(admin_key)) = (&self.kbs, &self.kbs_ca, &self.admin_key) else {
            return Ok(None);
        };
        let broker = Broker {
            url: url.clone(),
            ca: ca.clone(),
            admin_key: admin_key.clone(),
        };
        Ok(Some(Admin::new(broker)?))
    }
}

/// The key of a model that is to be opened.
pub(super) fn load(path: &Path) -> Result<Kek, KeyError> {
    Ok(keyfile::load(path)?)
}

/// Why there is no key, or not where it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum KeyError {
    /// The file.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The broker.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The broker has one, and its file is not here.
    #[error(
        "the broker holds {key} already, and there is no {}: a new key would lock out what is sealed under that one; \
         give its file, or name another key",
        path.display()
    )]
    Held { key: String, path: PathBuf },
}
