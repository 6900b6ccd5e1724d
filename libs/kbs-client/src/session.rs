//! An attested session: keys, as many as are wanted, over one connection.
use std::time::Instant;

use zeroize::Zeroizing;

use crate::commitment::Opening;
use crate::cookie::SessionCookie;
use crate::error::{KbsError, Step};
use crate::exchange::Broker;
use crate::jwe::{self, Jwe};
use crate::key::{TeeKey, TeePubKey};
use crate::token::Token;
use crate::wire::ResourcePath;

/// What a successful attestation gives. Ends on the broker's side after some minutes; a resource is then refused.
pub struct Session {
    broker: Broker,
    key: TeeKey,
    cookie: SessionCookie,
    token: Option<Token>,
    binding: Option<Binding>,
    since: Instant,
}

/// What leads from a session's evidence to what its key commits to. Public, all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The broker's nonce.
    pub nonce: String,
    /// The guest's key of the session: with the nonce, and no additional evidence, it makes the report data.
    pub tee_key: TeePubKey,
    /// Shows what the key commits to.
    pub opening: Opening,
}

impl Session {
    pub(crate) fn new(
        broker: Broker,
        key: TeeKey,
        cookie: SessionCookie,
        token: Option<Token>,
        binding: Option<Binding>,
    ) -> Self {
        Self {
            broker,
            key,
            cookie,
            token,
            binding,
            since: Instant::now(),
        }
    }

    /// What the broker's token says; `None` where no key for tokens is pinned and the token is not one that can be read.
    pub fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// How the session's evidence vouches for [`crate::Options::commit_to`]; `None` where that is not set.
    pub fn binding(&self) -> Option<&Binding> {
        self.binding.as_ref()
    }

    /// Whether the token has ended, counted by the monotonic clock from its arrival.
    pub fn has_ended(&self) -> bool {
        self.token
            .as_ref()
            .is_some_and(|token| self.since.elapsed() >= token.lifetime)
    }

    /// Fetches and decrypts the resource `<repo>/<type>/<tag>`.
    ///
    /// # Errors
    /// [`KbsError::Refused`] and [`KbsError::NotFound`] are the broker's decision and stay; [`KbsError::Expired`] without
    /// asking once the token has ended; see [`KbsError`] for the others.
    pub async fn resource(&mut self, path: &str) -> Result<Zeroizing<Vec<u8>>, KbsError> {
        let path: ResourcePath = path.parse().map_err(KbsError::Path)?;
        if self.has_ended() {
            let origin = self.broker.origin().clone();
            return Err(KbsError::Expired { origin });
        }
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
