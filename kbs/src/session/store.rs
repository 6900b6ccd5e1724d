//! Where sessions are: with this broker, or with all that share a database.

use std::sync::Arc;
use std::time::Duration;

use cella_attest::Tee;

use super::{Nonce, SessionFailure, SessionId, Sessions, SharedSessions};
use crate::clock::Clock;
use crate::facts::Facts;

/// The sessions of a broker.
pub enum SessionStore {
    /// In memory.
    Own(Sessions),
    /// In the database.
    Shared(SharedSessions),
}

/// What a session has proved.
#[derive(Debug)]
pub enum Proof {
    /// This.
    Facts(Arc<Facts>),
    /// What a token says, if it is good.
    Token(String),
}

impl SessionStore {
    /// How many have not proved themselves, as far as anybody knows, and how many have.
    pub fn counts(&self, clock: &dyn Clock) -> (usize, usize) {
        match self {
            Self::Own(sessions) => sessions.counts(),
            Self::Shared(sessions) => sessions.counts(clock.unix()),
        }
    }

    /// How long a session lasts.
    pub fn timeout(&self) -> Duration {
        match self {
            Self::Own(sessions) => sessions.timeout(),
            Self::Shared(sessions) => sessions.timeout(),
        }
    }

    /// Opens a session with a fresh nonce, for evidence of `tee`.
    pub fn open(&self, tee: Tee, clock: &dyn Clock) -> Result<(SessionId, Nonce), SessionFailure> {
        Ok(match self {
            Self::Own(sessions) => sessions.open(tee, clock.uptime())?,
            Self::Shared(sessions) => sessions.open(tee, clock.unix())?,
        })
    }

    /// The session's nonce, what evidence it is for, and how long the session has left. In memory this consumes the nonce; in a
    /// database [`prove`](Self::prove) does.
    pub fn spend(&self, id: &SessionId, clock: &dyn Clock) -> Result<(Nonce, Tee, Duration), SessionFailure> {
        match self {
            Self::Own(sessions) => Ok(sessions.spend(id, clock.uptime())?),
            Self::Shared(sessions) => sessions.spend(id, clock.unix()),
        }
    }

    /// Records what a session proved with its nonce, and the token that says the same.
    pub fn prove(
        &self,
        id: &SessionId,
        facts: Arc<Facts>,
        token: &str,
        clock: &dyn Clock,
    ) -> Result<(), SessionFailure> {
        match self {
            Self::Own(sessions) => Ok(sessions.prove(id, facts, clock.uptime())?),
            Self::Shared(sessions) => sessions.prove(id, token, clock.unix()),
        }
    }

    /// What a session has proved.
    pub fn proof(&self, id: &SessionId, clock: &dyn Clock) -> Result<Proof, SessionFailure> {
        match self {
            Self::Own(sessions) => Ok(Proof::Facts(sessions.facts(id, clock.uptime())?)),
            Self::Shared(sessions) => Ok(Proof::Token(sessions.token(id, clock.unix())?)),
        }
    }
}
