//! The broker for other commands: keys stored beside sealing, floors raised beside a push.

use std::path::PathBuf;

use cella_policy::KeyId;

use super::client::{AdminClient, ClientError, ResourcePath};
use super::{BrokerArgs, KEY_LEN, PeerArgs};

/// Which broker, and the key of who asks.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) url: String,
    pub(crate) ca: PathBuf,
    pub(crate) admin_key: PathBuf,
}

/// A broker, and the right to administer it.
pub(crate) struct Admin {
    client: AdminClient,
}

impl Admin {
    /// Nothing is asked yet.
    pub(crate) fn new(broker: Broker) -> Result<Self, AdminError> {
        let args = BrokerArgs {
            peer: PeerArgs {
                url: broker.url,
                ca: broker.ca,
            },
            admin_key: broker.admin_key,
            subject: SUBJECT.to_owned(),
        };
        Ok(Self {
            client: AdminClient::new(&args)?,
        })
    }

    /// Whether it holds a key of that name.
    pub(crate) async fn holds(&self, key: &KeyId) -> Result<bool, AdminError> {
        let listed = self.client.list().await?;
        Ok(listed
            .iter()
            .any(|entry| entry.path == key.path() && entry.bytes.is_some()))
    }

    /// Stores a key, and looks whether it is there; gives the version that it has now.
    pub(crate) async fn store(&self, key: &KeyId, bytes: &[u8]) -> Result<u64, AdminError> {
        let resource = ResourcePath::from(key.clone());
        let version = self.client.set_key(&resource, None, bytes).await?;
        let listed = self.client.list().await?;
        match listed.iter().find(|entry| entry.path == key.path()) {
            Some(entry) if entry.bytes == Some(KEY_LEN) && entry.version >= Some(version) => Ok(version),
            _ => Err(AdminError::NotStored { key: key.to_string() }),
        }
    }

    /// Raises a floor.
    pub(crate) async fn raise_floor(&self, name: &str, version: u64) -> Result<(), AdminError> {
        let path = format!("cella-floor/{name}?version={version}");
        self.client.post(&path, Vec::new()).await?;
        Ok(())
    }
}

/// Why the broker did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AdminError {
    /// It says no, or cannot be reached.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It said yes and does not hold it.
    #[error("the broker took {key} and does not hold it")]
    NotStored { key: String },
}

const SUBJECT: &str = "cellactl";
