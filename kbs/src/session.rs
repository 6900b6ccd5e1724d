//! Sessions of the RCAR handshake: who was challenged, with which nonce, and what they proved.
//!
//! ```text
//!            /auth                 first /attest               evidence verified
//!   (none) ───────▶ Challenged ──────────────────▶ Spent ───────────────────────────▶ Attested
//!                       │                            │                                    │
//!                       └──────────── timeout, counted from /auth, from any state ────────┘──▶ (none)
//! ```
//! A nonce is consumed by the first `/attest` that shows its session, whatever the body holds, so evidence can be
//! tried once (threat T17). A session that failed stays `Spent` until it times out, to answer a second try with the
//! true reason. Nothing leads back.
//!
//! The store is bounded. When unproven sessions (`Challenged`, `Spent`) reach the bound, the oldest of them goes:
//! whoever floods `/auth` delays others but cannot shut them out or push out a guest that has proved itself. When
//! proven sessions reach the bound, the newest is refused.
//!
//! No I/O; time is passed in.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cella_attest::Tee;
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};

use crate::facts::Facts;
use crate::storage::StorageError;

mod shared;
mod store;

pub use shared::SharedSessions;
pub use store::{Proof, SessionStore};

/// Length of a ticket's MAC.
const MAC_LEN: usize = 32;

/// Name of a session, and its ticket where brokers share sessions: the value of its cookie. Whoever shows it is the session, so
/// it has no `Display`; logs carry the [tag](Self::tag).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId {
    name: [u8; 16],
    ticket: Option<Ticket>,
}

/// What a cookie says beside the session's name. It is believed for its MAC: see [`SharedSessions`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Ticket {
    /// What evidence the session is for.
    tee: u8,
    /// When it ends, in Unix seconds.
    ends: u64,
    mac: [u8; MAC_LEN],
}

impl SessionId {
    fn random(rng: &dyn SecureRandom) -> Result<Self, SessionError> {
        let mut bytes = [0; 16];
        rng.fill(&mut bytes).map_err(|_| SessionError::Random)?;
        // UUID version 4, as clients of the protocol are used to.
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Ok(Self {
            name: bytes,
            ticket: None,
        })
    }

    /// The cookie's value: 32 lower-case hex digits, with a ticket 114.
    pub fn cookie(&self) -> String {
        let mut cookie = hex::encode(self.name);
        if let Some(Ticket { tee, ends, mac }) = &self.ticket {
            cookie.push_str(&hex::encode([&[*tee], ends.to_be_bytes().as_slice(), mac].concat()));
        }
        cookie
    }

    /// A name for logs, from which the cookie cannot be had: 16 hex digits.
    pub fn tag(&self) -> String {
        let digest = digest::digest(&digest::SHA256, &self.name);
        hex::encode(digest.as_ref().get(..8).unwrap_or_default())
    }
}

impl FromStr for SessionId {
    type Err = SessionError;

    fn from_str(text: &str) -> Result<Self, SessionError> {
        fn part<const N: usize>(digits: &str) -> Result<[u8; N], SessionError> {
            let mut bytes = [0; N];
            hex::decode_to_slice(digits, &mut bytes).map_err(|_| SessionError::Unknown)?;
            Ok(bytes)
        }
        let (name, ticket) = text.split_at_checked(32).ok_or(SessionError::Unknown)?;
        let ticket = match ticket {
            "" => None,
            ticket => {
                let (tee, rest) = ticket.split_at_checked(2).ok_or(SessionError::Unknown)?;
                let (ends, mac) = rest.split_at_checked(16).ok_or(SessionError::Unknown)?;
                let [tee] = part(tee)?;
                Some(Ticket {
                    tee,
                    ends: u64::from_be_bytes(part(ends)?),
                    mac: part(mac)?,
                })
            }
        };
        Ok(Self {
            name: part(name)?,
            ticket,
        })
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({})", self.tag())
    }
}

/// A challenge: 32 random bytes in base64, which is the form that both ends hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonce(String);

impl Nonce {
    fn random(rng: &dyn SecureRandom) -> Result<Self, SessionError> {
        let mut bytes = [0; 32];
        rng.fill(&mut bytes).map_err(|_| SessionError::Random)?;
        Ok(Self(STANDARD.encode(bytes)))
    }

    /// The text sent in the challenge.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// All sessions.
pub struct Sessions {
    timeout: Duration,
    bound: usize,
    rng: SystemRandom,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    sessions: HashMap<SessionId, Session>,
    /// In order of creation, so also of expiry: the timeout is one for all.
    order: VecDeque<SessionId>,
    attested: usize,
}

struct Session {
    expires: Duration,
    state: State,
}

enum State {
    Challenged(Nonce, Tee),
    Spent,
    Attested(Arc<Facts>),
}

impl Sessions {
    /// An empty store. `bound` is the most sessions that have proved themselves, and the most that have not.
    pub fn new(timeout: Duration, bound: usize) -> Self {
        Self {
            timeout,
            bound,
            rng: SystemRandom::new(),
            inner: Mutex::default(),
        }
    }

    /// How many have not proved themselves, and how many have; expired ones that nobody has looked at are among them.
    pub fn counts(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.sessions.len() - inner.attested, inner.attested)
    }

    /// How long a session lasts.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Opens a session with a fresh nonce, for evidence of `tee`.
    pub fn open(&self, tee: Tee, now: Duration) -> Result<(SessionId, Nonce), SessionError> {
        let id = SessionId::random(&self.rng)?;
        let nonce = Nonce::random(&self.rng)?;
        let mut inner = self.lock();
        inner.sweep(now);
        if inner.sessions.len() - inner.attested >= self.bound {
            inner.evict_oldest_unproven();
        }
        let session = Session {
            expires: now + self.timeout,
            state: State::Challenged(nonce.clone(), tee),
        };
        inner.sessions.insert(id, session);
        inner.order.push_back(id);
        Ok((id, nonce))
    }

    /// Consumes the session's nonce; gives it, what evidence it is for, and how long the session has left.
    pub fn spend(&self, id: &SessionId, now: Duration) -> Result<(Nonce, Tee, Duration), SessionError> {
        let mut inner = self.lock();
        let session = inner.live(id, now)?;
        match std::mem::replace(&mut session.state, State::Spent) {
            State::Challenged(nonce, tee) => Ok((nonce, tee, session.expires.saturating_sub(now))),
            proven => {
                // A second attempt does not take away what the first one proved.
                session.state = proven;
                Err(SessionError::Spent)
            }
        }
    }

    /// Records what a session proved with the nonce it spent.
    pub fn prove(&self, id: &SessionId, facts: Arc<Facts>, now: Duration) -> Result<(), SessionError> {
        let mut inner = self.lock();
        inner.sweep(now);
        if inner.attested >= self.bound {
            return Err(SessionError::Full);
        }
        let session = inner.live(id, now)?;
        match session.state {
            State::Spent => {
                session.state = State::Attested(facts);
                inner.attested += 1;
                Ok(())
            }
            State::Challenged(..) | State::Attested(_) => Err(SessionError::Spent),
        }
    }

    /// What a session has proved.
    pub fn facts(&self, id: &SessionId, now: Duration) -> Result<Arc<Facts>, SessionError> {
        match &self.lock().live(id, now)?.state {
            State::Attested(facts) => Ok(facts.clone()),
            State::Challenged(..) | State::Spent => Err(SessionError::Unproven),
        }
    }

    /// Every critical section leaves the map whole, so a panic elsewhere does not make it unusable.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn live(&mut self, id: &SessionId, now: Duration) -> Result<&mut Session, SessionError> {
        match self.sessions.get_mut(id) {
            Some(session) if now < session.expires => Ok(session),
            Some(_) => Err(SessionError::Expired),
            None => Err(SessionError::Unknown),
        }
    }

    /// Forgets what has timed out. Each session is looked at once in its life, at the front of the queue.
    fn sweep(&mut self, now: Duration) {
        while let Some(id) = self.order.front() {
            if self.sessions.get(id).is_some_and(|session| now < session.expires) {
                return;
            }
            if let Some(Session {
                state: State::Attested(_),
                ..
            }) = self.sessions.remove(id)
            {
                self.attested -= 1;
            }
            self.order.pop_front();
        }
    }

    fn evict_oldest_unproven(&mut self) {
        let unproven = |id: &SessionId| {
            self.sessions
                .get(id)
                .is_some_and(|session| !matches!(session.state, State::Attested(_)))
        };
        if let Some(index) = self.order.iter().position(unproven)
            && let Some(id) = self.order.remove(index)
        {
            self.sessions.remove(&id);
        }
    }
}

/// A session does not allow what was asked of it. The texts go to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// Never opened, forgotten, or not the form of a session cookie.
    #[error("no such session: start again with /auth")]
    Unknown,
    /// Its time is over.
    #[error("the session has expired: start again with /auth")]
    Expired,
    /// Its nonce was used.
    #[error("the nonce was already used: start again with /auth")]
    Spent,
    /// It has given no valid evidence.
    #[error("the session is not attested")]
    Unproven,
    /// As many proven sessions as the configuration allows.
    #[error("too many sessions: try again later")]
    Full,
    /// The operating system gave no randomness.
    #[error("no randomness")]
    Random,
}

/// A session does not allow what was asked of it, or cannot be looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionFailure {
    /// It does not.
    #[error("{0}")]
    Refused(#[from] SessionError),
    /// The database.
    #[error("storage failed")]
    Storage(#[from] StorageError),
}

#[cfg(test)]
mod tests;
