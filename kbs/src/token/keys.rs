//! The keys that sign tokens: kept in the database, where every broker that shares it finds them, and replaced in time.
//!
//! ```text
//!  rotate        activates = rotate + 300 s                            retires = successor's activates + 3600 s
//!    │ published ──────▶│ signs ─────────▶ until its successor activates ── verifies only ──▶│ forgotten
//! ```
//! A key is in the published set before it signs, for as long as others may keep that set, and after it has stopped to, for as
//! long as a token lives. No clock but the broker's is in it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Proven, TokenError, TokenKey, TokenKeyError};
use crate::clock::Clock;
use crate::facts::Facts;
use crate::storage::backend::Table;
use crate::storage::{Storage, StorageError};

/// From a key's publication to its first signature.
const OVERLAP_S: u64 = 300;
/// Longest life of a token (`limits.session-timeout-seconds` is bounded by it).
const TOKEN_S: u64 = 3600;
/// For how long keys are used as they were read. Far less than the overlap.
const CACHED: Duration = Duration::from_secs(10);

/// The keys that sign and verify tokens now.
pub struct TokenKeys {
    storage: Arc<Storage>,
    clock: Arc<dyn Clock>,
    cache: Mutex<Option<Cached>>,
}

struct Cached {
    read_at: Duration,
    keys: Arc<Vec<Known>>,
}

struct Known {
    activates: u64,
    key: TokenKey,
}

/// A key as it is stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    activates: u64,
    pkcs8: Zeroizing<String>,
}

impl TokenKeys {
    /// The keys in the database; makes the first one if there is none.
    pub fn open(storage: Arc<Storage>, clock: Arc<dyn Clock>) -> Result<Self, TokenKeysError> {
        let first = record(0)?;
        storage.transact(|transaction| {
            if transaction.get(Table::TokenKeys, &name(1))?.is_none() && storage.names(Table::TokenKeys)?.is_empty() {
                transaction.put(Table::TokenKeys, &name(1), &first)?;
            }
            Ok::<_, StorageError>(())
        })?;
        let keys = Self {
            storage,
            clock,
            cache: Mutex::new(None),
        };
        keys.known()?;
        Ok(keys)
    }

    /// Makes a token with the newest key that signs. See [`TokenKey::issue`].
    pub fn issue(&self, facts: &Facts, nonce: &str, session: &str, lifetime: u64) -> Result<String, TokenKeysError> {
        let now = self.now();
        let keys = self.known()?;
        // In order of activation. The first one was active from the beginning.
        let signing = keys.iter().rfind(|known| known.activates <= now).or(keys.first());
        let signing = signing.ok_or(TokenKeysError::Key(TokenKeyError))?;
        Ok(signing.key.issue(facts, nonce, session, now, lifetime.min(TOKEN_S))?)
    }

    /// Checks a token against every key whose tokens may still live.
    pub fn verify(&self, token: &str) -> Result<Proven, TokenKeysError> {
        let now = self.now();
        let keys = self.known()?;
        let mut refusal = TokenError::Signature;
        for (index, known) in keys.iter().enumerate().rev() {
            if is_retired(&keys, index, now) {
                continue;
            }
            match known.key.verify(token, now) {
                Err(TokenError::Signature) => {}
                Ok(proven) => return Ok(proven),
                Err(other) => {
                    refusal = other;
                    break;
                }
            }
        }
        Err(refusal.into())
    }

    /// Makes a key that will sign after the overlap, and forgets those that are retired. Gives its id and when it activates.
    pub fn rotate(&self) -> Result<(String, u64), TokenKeysError> {
        let now = self.now();
        let activates = now.saturating_add(OVERLAP_S);
        let fresh = record(activates)?;
        let id = parse(&fresh)?.key.id();
        let keys = self.read()?;
        let retired = (0..keys.len()).filter(|&index| is_retired(&keys, index, now)).count();
        self.storage.transact(|transaction| {
            let names = self.storage.names(Table::TokenKeys)?;
            for name in names.iter().take(retired) {
                transaction.remove(Table::TokenKeys, name);
            }
            let last = names.last().and_then(|name| name.parse().ok()).unwrap_or(0_u64);
            let next = name(last.saturating_add(1));
            // Somebody else's rotation in the same moment: once more, behind it.
            if transaction.get(Table::TokenKeys, &next)?.is_none() {
                transaction.put(Table::TokenKeys, &next, &fresh)?;
            }
            Ok::<_, StorageError>(())
        })?;
        self.forget();
        Ok((id, activates))
    }

    /// Reads the keys again before they are used next.
    pub(crate) fn forget(&self) {
        *self.cache.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The JSON Web Key Set (RFC 7517) of all keys whose tokens are to be believed, now or soon.
    pub fn jwks(&self) -> Result<Value, TokenKeysError> {
        let now = self.now();
        let keys = self.known()?;
        let live = |(index, known): (usize, &Known)| (!is_retired(&keys, index, now)).then(|| known.key.jwk());
        Ok(json!({ "keys": keys.iter().enumerate().filter_map(live).collect::<Vec<_>>() }))
    }

    fn now(&self) -> u64 {
        self.clock.unix().as_secs()
    }

    /// The keys, as read a moment ago.
    fn known(&self) -> Result<Arc<Vec<Known>>, TokenKeysError> {
        let uptime = self.clock.uptime();
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = cache
            .as_ref()
            .filter(|cached| uptime.saturating_sub(cached.read_at) < CACHED)
        {
            return Ok(cached.keys.clone());
        }
        let keys = Arc::new(self.read()?);
        *cache = Some(Cached {
            read_at: uptime,
            keys: keys.clone(),
        });
        Ok(keys)
    }

    fn read(&self) -> Result<Vec<Known>, TokenKeysError> {
        let mut keys = Vec::new();
        for value in self.storage.values(Table::TokenKeys)? {
            keys.push(parse(&value)?);
        }
        Ok(keys)
    }
}

/// Whether every token of a key has ended: its successor has signed for longer than a token lives.
fn is_retired(keys: &[Known], index: usize, now: u64) -> bool {
    keys.get(index + 1)
        .is_some_and(|successor| successor.activates.saturating_add(TOKEN_S) <= now)
}

/// In order of numbers as of texts.
fn name(number: u64) -> String {
    format!("{number:020}")
}

fn record(activates: u64) -> Result<Zeroizing<Vec<u8>>, TokenKeysError> {
    let record = Record {
        activates,
        pkcs8: Zeroizing::new(STANDARD.encode(&*TokenKey::generate()?)),
    };
    serde_json::to_vec(&record)
        .map(Zeroizing::new)
        .map_err(|_| TokenKeysError::Key(TokenKeyError))
}

fn parse(value: &[u8]) -> Result<Known, TokenKeysError> {
    let bad = TokenKeysError::Key(TokenKeyError);
    let Ok(Record { activates, pkcs8 }) = serde_json::from_slice(value) else {
        return Err(bad);
    };
    let Ok(der) = STANDARD.decode(pkcs8.as_bytes()).map(Zeroizing::new) else {
        return Err(bad);
    };
    let key = TokenKey::from_pkcs8(&der)?;
    Ok(Known { activates, key })
}

/// A token is not made or not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenKeysError {
    /// Refused, or not made.
    #[error("{0}")]
    Token(#[from] TokenError),
    /// What is stored is no key.
    #[error("a stored token key cannot be used")]
    Key(#[from] TokenKeyError),
    /// The database.
    #[error("storage failed")]
    Storage(#[from] StorageError),
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::storage::{KeyRing, StorageKey};
    use crate::testing::facts;

    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn unix(&self) -> Duration {
            Duration::from_secs(1_800_000_000 + self.0.load(Ordering::SeqCst))
        }

        fn uptime(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::SeqCst))
        }
    }

    fn ids(keys: &TokenKeys) -> Vec<String> {
        let set = keys.jwks().unwrap();
        let keys = set["keys"].as_array().unwrap();
        keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }

    fn signer(token: &str) -> String {
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
        let header: Value = serde_json::from_slice(&header).unwrap();
        header["kid"].as_str().unwrap().to_owned()
    }

    #[test]
    fn a_new_key_is_published_signs_and_takes_over_without_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        let text = StorageKey::generate().unwrap();
        let ring = KeyRing::new(StorageKey::parse(text.as_bytes()).unwrap(), Vec::new());
        let storage = Arc::new(Storage::open(&dir.path().join("db"), ring).unwrap());
        let clock = Arc::new(Hand(AtomicU64::new(0)));
        let at = |second: u64| clock.0.store(second, Ordering::SeqCst);
        let open = || TokenKeys::open(storage.clone(), clock.clone()).unwrap();
        // Two brokers on one database.
        let (one, two) = (open(), open());
        let issue = |keys: &TokenKeys| keys.issue(&facts(), "bm9uY2U=", "0011223344556677", 3600).unwrap();
        let old = ids(&one);
        assert_eq!((old.len(), &old), (1, &ids(&two)));
        assert_eq!(signer(&issue(&one)), old[0]);

        let (new, activates) = one.rotate().unwrap();
        assert_eq!(activates, 1_800_000_000 + OVERLAP_S);
        at(11);
        for keys in [&one, &two] {
            assert_eq!(ids(keys), [old[0].clone(), new.clone()]);
            assert_eq!(signer(&issue(keys)), old[0]);
        }
        at(OVERLAP_S - 1);
        let last = issue(&two);
        assert_eq!(signer(&last), old[0]);
        at(OVERLAP_S);
        let token = issue(&two);
        assert_eq!(signer(&token), new);
        for token in [&token, &last] {
            assert!(one.verify(token).is_ok() && two.verify(token).is_ok());
        }
        // The last token of the old key lives to its end; then the key is gone, and the next rotation forgets it.
        at(OVERLAP_S + TOKEN_S - 2);
        assert!(one.verify(&last).is_ok());
        at(OVERLAP_S + TOKEN_S);
        assert!(matches!(
            one.verify(&last),
            Err(TokenKeysError::Token(TokenError::Signature))
        ));
        assert_eq!(ids(&one), std::slice::from_ref(&new));
        assert_eq!(storage.names(Table::TokenKeys).unwrap().len(), 2);
        let (third, _) = two.rotate().unwrap();
        assert_eq!(storage.names(Table::TokenKeys).unwrap().len(), 2);
        assert_eq!(ids(&open()), [new, third]);
    }
}
