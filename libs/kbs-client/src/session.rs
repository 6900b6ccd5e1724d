//! An attested session: keys, as many as are wanted, over one connection.
use zeroize::Zeroizing;

use crate::cookie::SessionCookie;
use crate::error::{KbsError, Step};
use crate::exchange::Broker;
use crate::jwe::{self, Jwe};
use crate::key::TeeKey;
use crate::wire::ResourcePath;

/// What a successful attestation gives. Ends on the broker's side after some minutes; a resource is then refused.
pub struct Session {
    broker: Broker,
    key: TeeKey,
    cookie: SessionCookie,
}

impl Session {
    pub(crate) fn new(broker: Broker, key: TeeKey, cookie: SessionCookie) -> Self {
        Self { broker, key, cookie }
    }

    /// Fetches and decrypts the resource `<repo>/<type>/<tag>`.
    ///
    /// # Errors
    /// [`KbsError::Refused`] and [`KbsError::NotFound`] are the broker's decision and stay; see [`KbsError`] for the others.
    pub async fn resource(&mut self, path: &str) -> Result<Zeroizing<Vec<u8>>, KbsError> {
        let path: ResourcePath = path.parse().map_err(KbsError::Path)?;
        let step = Step::Resource(path.clone());
        let mut tries = 0;
        let answer = loop {
            let error = match self.broker.ask(&step, Some(&self.cookie), None).await {
                Ok(answer) => break answer,
                Err(error) => error,
            };
            tries += 1;
            match self.broker.pause_before(tries, &error) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error),
            }
        };
        let message: Jwe = self.broker.parse(&step, &answer)?;
        jwe::decrypt(&self.key, &message).map_err(|source| KbsError::Sealed {
            origin: self.broker.origin().clone(),
            path,
            source,
        })
    }
}
