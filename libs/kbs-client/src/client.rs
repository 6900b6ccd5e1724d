//! The handshake: request, challenge, attestation.
use std::error::Error;
use std::time::Duration;

use cella_http::Client;
use serde::Serialize;
use serde_json::{Value, json};

use crate::commitment::Committed;
use crate::cookie::SessionCookie;
use crate::error::{GarbageKind, KbsError, Step};
use crate::exchange::Broker;
use crate::key::TeeKey;
use crate::session::{Binding, Session};
use crate::token::{KeyThumbprint, Token};
use crate::wire::{
    Attestation, Challenge, InitData, Request, RuntimeData, TeeEvidence, TokenAnswer, VERSION, report_data,
};

/// How patient the client is.
#[derive(Debug, Clone)]
pub struct Options {
    /// For one question and its whole answer. Default 30 s.
    pub request_timeout: Duration,
    /// How often a handshake or a fetch is tried while the broker cannot be reached or answers 500 and above; at least
    /// once. A refusal is never tried again. Default 3.
    pub tries: u32,
    /// Pause after the first try; the second pause is twice as long, and so on. Default 500 ms.
    pub backoff: Duration,
    /// Keys for the broker's tokens. Default none: then the token is believed because of the connection that it came over,
    /// and one that cannot be read is no error.
    pub token_keys: Vec<KeyThumbprint>,
    /// What the guest's key commits to, if to anything. See [`Session::binding`].
    pub commit_to: Option<Committed>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(30),
            tries: 3,
            backoff: Duration::from_millis(500),
            token_keys: Vec::new(),
            commit_to: None,
        }
    }
}

/// A client of one broker.
pub struct KbsClient {
    broker: Broker,
    tee: String,
}

impl KbsClient {
    /// A client that gives evidence of the kind `tee`, as in `snp`, to the broker that `http` talks to.
    pub fn new(http: Client, tee: &str) -> Self {
        Self::with_options(http, tee, Options::default())
    }

    /// [`KbsClient::new`] with another patience.
    pub fn with_options(http: Client, tee: &str, options: Options) -> Self {
        Self {
            broker: Broker::new(http, options),
            tee: tee.to_owned(),
        }
    }

    /// Attests with a fresh key. `init_data` is the exact text of the initdata document. `evidence` gets the report data
    /// and gives the `primary_evidence` for it; it runs again if the broker breaks off and the handshake starts anew.
    ///
    /// # Errors
    /// See [`KbsError`]. Takes at most `tries` times two `request_timeout`s, the evidence and the pauses.
    pub async fn attest<F, A, E>(&mut self, init_data: &str, mut evidence: F) -> Result<Session, KbsError>
    where
        F: FnMut([u8; 64]) -> A,
        A: Future<Output = Result<Value, E>>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let mut tries = 0;
        loop {
            let error = match self.handshake(init_data, &mut evidence).await {
                Ok(session) => return Ok(session),
                Err(error) => error,
            };
            tries += 1;
            match self.broker.pause_before(tries, &error) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error),
            }
        }
    }

    async fn handshake<F, A, E>(&self, init_data: &str, evidence: &mut F) -> Result<Session, KbsError>
    where
        F: FnMut([u8; 64]) -> A,
        A: Future<Output = Result<Value, E>>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let (key, opening) = match &self.broker.options.commit_to {
            Some(to) => TeeKey::committed(to).map(|(key, opening)| (key, Some(opening))),
            None => TeeKey::generate().map(|key| (key, None)),
        }
        .map_err(KbsError::Key)?;
        let (challenge, cookie) = self.challenge().await?;
        let report_data = report_data(&challenge.nonce, &key.public(), "");
        let primary_evidence = evidence(report_data)
            .await
            .map_err(|error| KbsError::Evidence(error.into()))?;
        let attestation = Attestation {
            init_data: Some(InitData {
                format: "toml".to_owned(),
                body: init_data.to_owned(),
            }),
            runtime_data: RuntimeData {
                nonce: challenge.nonce.clone(),
                tee_pubkey: key.public(),
            },
            tee_evidence: TeeEvidence {
                primary_evidence,
                additional_evidence: String::new(),
            },
        };
        let answer = self
            .broker
            .ask(&Step::Attest, Some(&cookie), Some(encode(&attestation)?))
            .await?;
        let TokenAnswer { token } = self.broker.parse(&Step::Attest, &answer)?;
        let pins = &self.broker.options.token_keys;
        let token = match Token::read(&token, pins, &key.public()) {
            Ok(token) => Some(token),
            Err(_) if pins.is_empty() => None,
            Err(source) => {
                let origin = self.broker.origin().clone();
                return Err(KbsError::Token { origin, source });
            }
        };
        let cookie = SessionCookie::from_answer(&answer.headers).unwrap_or(cookie);
        let binding = opening.map(|opening| Binding {
            nonce: challenge.nonce,
            tee_key: key.public(),
            opening,
        });
        Ok(Session::new(self.broker.clone(), key, cookie, token, binding))
    }

    async fn challenge(&self) -> Result<(Challenge, SessionCookie), KbsError> {
        let request = Request {
            version: VERSION.to_owned(),
            tee: self.tee.clone(),
            extra_params: json!({ "supported-hash-algorithms": [HASH] }),
        };
        let answer = self.broker.ask(&Step::Auth, None, Some(encode(&request)?)).await?;
        let challenge: Challenge = self.broker.parse(&Step::Auth, &answer)?;
        if challenge.nonce.is_empty() || challenge.nonce.len() > MAX_NONCE {
            return Err(self
                .broker
                .garbage(&Step::Auth, GarbageKind::Nonce { limit: MAX_NONCE }));
        }
        if challenge
            .extra_params
            .get("selected-hash-algorithm")
            .is_some_and(|selected| selected != HASH)
        {
            return Err(self.broker.garbage(&Step::Auth, GarbageKind::Hash));
        }
        let cookie = SessionCookie::from_answer(&answer.headers)
            .ok_or_else(|| self.broker.garbage(&Step::Auth, GarbageKind::NoCookie))?;
        Ok((challenge, cookie))
    }
}

/// The JSON of a message. It fails only for evidence that has no JSON form, which is the platform's doing.
fn encode(message: &impl Serialize) -> Result<Vec<u8>, KbsError> {
    serde_json::to_vec(message).map_err(|error| KbsError::Evidence(error.into()))
}

const HASH: &str = "sha384";
const MAX_NONCE: usize = 1024;
