//! Sessions of brokers that share a database, any of which may get any request of a guest.
//!
//! ```text
//!            /auth                     evidence verified
//!   (none) ───────▶ a ticket in the cookie ───────▶ Attested: an entry in the database
//!                       └──────────── timeout, counted from /auth ───────┘──▶ (none)
//! ```
//! A challenge is kept by nobody. The cookie is a *ticket*: the session's random name, what evidence it is for and when it ends,
//! authenticated with a key that all brokers derive from the storage key; the nonce is derived from the ticket and that key. So
//! whoever floods `/auth` fills nothing and pushes nobody out.
//!
//! Good evidence makes the session's entry, under the condition that there is none: a nonce gives one token, whichever
//! brokers it is shown to, and however often (threat T17). Evidence that is refused leaves the ticket as it was, since the entry of
//! each try would be room that anybody can fill. The entry holds the token, sealed. It stays for an hour after its session, so
//! that brokers whose clocks differ by less agree on what is spent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cella_attest::Tee;
use ring::hmac;
use ring::rand::SystemRandom;

use super::{MAC_LEN, Nonce, SessionError, SessionFailure, SessionId, Ticket};
use crate::storage::backend::Table;
use crate::storage::{Storage, StorageError};

/// For how long an entry stays after its session has ended.
const KEPT_S: u64 = 3600;
/// From one look for old entries to the next.
const SWEEP_S: u64 = 60;

/// The sessions in a database.
pub struct SharedSessions {
    storage: Arc<Storage>,
    /// The current one first; the others open tickets of brokers whose storage key is another one still.
    keys: Vec<hmac::Key>,
    timeout: Duration,
    bound: usize,
    rng: SystemRandom,
    here: Mutex<Here>,
}

/// What this broker did.
#[derive(Default)]
struct Here {
    /// When the sessions end that proved themselves here.
    ends: VecDeque<u64>,
    swept: u64,
}

impl SharedSessions {
    /// The sessions in `storage`. `bound` is how many may prove themselves at this broker within the lifetime of one.
    pub fn new(storage: Arc<Storage>, timeout: Duration, bound: usize) -> Result<Self, StorageError> {
        Ok(Self {
            keys: storage.ticket_keys()?,
            storage,
            timeout,
            bound,
            rng: SystemRandom::new(),
            here: Mutex::default(),
        })
    }

    /// How many sessions that proved themselves here have not ended. Those that wait are not known to anybody.
    pub fn counts(&self, unix: Duration) -> (usize, usize) {
        let mut here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
        here.forget(unix.as_secs());
        (0, here.ends.len())
    }

    /// How long a session lasts.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// A ticket with a nonce of its own.
    pub fn open(&self, tee: Tee, unix: Duration) -> Result<(SessionId, Nonce), SessionError> {
        let SessionId { name, .. } = SessionId::random(&self.rng)?;
        let key = self.keys.first().ok_or(SessionError::Random)?;
        let (tee, ends) = (number(tee), unix.saturating_add(self.timeout).as_secs());
        let mac = mac(key, &name, tee, ends);
        let ticket = Some(Ticket { tee, ends, mac });
        Ok((SessionId { name, ticket }, nonce(key, &name, tee, ends)))
    }

    /// The nonce of a ticket that has given no token yet, what evidence it is for, and how long it has left.
    pub fn spend(&self, id: &SessionId, unix: Duration) -> Result<(Nonce, Tee, Duration), SessionFailure> {
        let (key, ticket, tee) = self.check(id, unix)?;
        if self.storage.read(Table::Sessions, &entry(id, ticket.ends))?.is_some() {
            return Err(SessionError::Spent.into());
        }
        let left = Duration::from_secs(ticket.ends).saturating_sub(unix);
        Ok((nonce(key, &id.name, ticket.tee, ticket.ends), tee, left))
    }

    /// Makes the session's entry, for which `token` was issued. Of several that try, one does.
    pub fn prove(&self, id: &SessionId, token: &str, unix: Duration) -> Result<(), SessionFailure> {
        let (_, ticket, _) = self.check(id, unix)?;
        let now = unix.as_secs();
        let sweep = {
            let mut here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
            here.forget(now);
            if here.ends.len() >= self.bound {
                return Err(SessionError::Full.into());
            }
            let due = now.saturating_sub(here.swept) >= SWEEP_S;
            if due {
                here.swept = now;
            }
            due
        };
        if sweep {
            let bound = format!("{:016x}", now.saturating_sub(KEPT_S));
            self.storage.remove_before(Table::Sessions, &bound)?;
        }
        let key = entry(id, ticket.ends);
        self.storage.transact(|transaction| {
            if transaction.get(Table::Sessions, &key)?.is_some() {
                return Err(SessionFailure::Refused(SessionError::Spent));
            }
            Ok(transaction.put(Table::Sessions, &key, token.as_bytes())?)
        })?;
        let mut here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
        here.ends.push_back(ticket.ends);
        Ok(())
    }

    /// The token that was issued in a session.
    pub fn token(&self, id: &SessionId, unix: Duration) -> Result<String, SessionFailure> {
        let (_, ticket, _) = self.check(id, unix)?;
        let key = entry(id, ticket.ends);
        let token = self.storage.read(Table::Sessions, &key)?;
        let token = token.ok_or(SessionError::Unproven)?;
        String::from_utf8(token.to_vec()).map_err(|_| StorageError::NotAuthentic { path: key }.into())
    }

    /// A ticket that one of these brokers has made and that has time left.
    fn check<'a>(
        &'a self,
        id: &'a SessionId,
        unix: Duration,
    ) -> Result<(&'a hmac::Key, &'a Ticket, Tee), SessionError> {
        let ticket = id.ticket.as_ref().ok_or(SessionError::Unknown)?;
        let input = input(b"ticket", &id.name, ticket.tee, ticket.ends);
        let made = |key: &&hmac::Key| hmac::verify(key, &input, &ticket.mac).is_ok();
        let key = self.keys.iter().find(made).ok_or(SessionError::Unknown)?;
        if unix.as_secs() >= ticket.ends {
            return Err(SessionError::Expired);
        }
        let tee = TEES.get(usize::from(ticket.tee)).ok_or(SessionError::Unknown)?;
        Ok((key, ticket, *tee))
    }
}

impl Here {
    fn forget(&mut self, now: u64) {
        while self.ends.front().is_some_and(|ends| *ends <= now) {
            self.ends.pop_front();
        }
    }
}

/// In tickets by their place.
const TEES: [Tee; 2] = [Tee::Snp, Tee::Tdx];

fn number(tee: Tee) -> u8 {
    match tee {
        Tee::Snp => 0,
        Tee::Tdx => 1,
    }
}

/// In order of the sessions' ends.
fn entry(id: &SessionId, ends: u64) -> String {
    format!("{ends:016x}-{}", hex::encode(id.name))
}

/// All parts but the first have a fixed length.
fn input(purpose: &[u8], name: &[u8; 16], tee: u8, ends: u64) -> Vec<u8> {
    [purpose, &[0], name, &[tee], &ends.to_be_bytes()].concat()
}

fn mac(key: &hmac::Key, name: &[u8; 16], tee: u8, ends: u64) -> [u8; MAC_LEN] {
    let mut mac = [0; MAC_LEN];
    let whole = hmac::sign(key, &input(b"ticket", name, tee, ends));
    mac.iter_mut().zip(whole.as_ref()).for_each(|(to, from)| *to = *from);
    mac
}

fn nonce(key: &hmac::Key, name: &[u8; 16], tee: u8, ends: u64) -> Nonce {
    Nonce(STANDARD.encode(hmac::sign(key, &input(b"nonce", name, tee, ends))))
}

#[cfg(test)]
mod tests;
