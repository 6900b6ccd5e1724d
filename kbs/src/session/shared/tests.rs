use zeroize::Zeroizing;

use super::*;
use crate::storage::{KeyRing, StorageKey};

const TIMEOUT: Duration = Duration::from_secs(300);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(1_800_000_000 + seconds)
}

struct Fixture {
    dir: tempfile::TempDir,
    key: Zeroizing<String>,
}

impl Fixture {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            key: StorageKey::generate().unwrap(),
        }
    }

    /// What brokers share is the same whichever database it is in.
    fn storage(&self) -> Arc<Storage> {
        let ring = KeyRing::new(StorageKey::parse(self.key.as_bytes()).unwrap(), Vec::new());
        Arc::new(Storage::open(&self.dir.path().join("db"), ring).unwrap())
    }
}

fn pair(bound: usize) -> (SharedSessions, SharedSessions) {
    let storage = Fixture::new().storage();
    let sessions = || SharedSessions::new(storage.clone(), TIMEOUT, bound).unwrap();
    (sessions(), sessions())
}

fn refused<T: std::fmt::Debug>(result: Result<T, SessionFailure>) -> SessionError {
    match result {
        Err(SessionFailure::Refused(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_handshake_goes_on_with_another_broker() {
    let (one, two) = pair(4);
    let (id, nonce) = one.open(Tee::Tdx, at(0)).unwrap();
    assert_eq!(STANDARD.decode(nonce.as_str()).unwrap().len(), 32);
    let id: SessionId = id.cookie().parse().unwrap();
    assert_eq!(refused(two.token(&id, at(1))), SessionError::Unproven);
    assert_eq!(
        two.spend(&id, at(1)).unwrap(),
        (nonce, Tee::Tdx, Duration::from_secs(299))
    );
    two.prove(&id, "token", at(2)).unwrap();
    assert_eq!(one.token(&id, at(3)).unwrap(), "token");
    assert_eq!((one.counts(at(3)), two.counts(at(3))), ((0, 0), (0, 1)));
    assert_eq!(two.counts(at(300)), (0, 0));
}

#[test]
fn t17_a_nonce_gives_one_token_whoever_is_asked() {
    let (one, two) = pair(4);
    let (id, _) = one.open(Tee::Snp, at(0)).unwrap();
    // Both have verified the same evidence before either has said so.
    one.spend(&id, at(1)).unwrap();
    two.spend(&id, at(1)).unwrap();
    two.prove(&id, "first", at(1)).unwrap();
    assert_eq!(refused(one.prove(&id, "second", at(1))), SessionError::Spent);
    for sessions in [&one, &two] {
        assert_eq!(refused(sessions.spend(&id, at(2))), SessionError::Spent);
        assert_eq!(sessions.token(&id, at(2)).unwrap(), "first");
    }
}

#[test]
fn everything_times_out_and_what_is_spent_stays_known_for_an_hour() {
    let (one, two) = pair(4);
    let (id, _) = one.open(Tee::Snp, at(0)).unwrap();
    one.prove(&id, "token", at(0)).unwrap();
    assert_eq!(refused(one.spend(&id, at(300))), SessionError::Expired);
    assert_eq!(refused(one.token(&id, at(300))), SessionError::Expired);
    let later = |sessions: &SharedSessions, seconds| {
        let (id, _) = sessions.open(Tee::Snp, at(seconds)).unwrap();
        sessions.prove(&id, "token", at(seconds)).unwrap();
        sessions.storage.names(Table::Sessions).unwrap().len()
    };
    // A broker whose clock is almost an hour ahead.
    assert_eq!(later(&two, 3800), 2);
    assert_eq!(refused(one.spend(&id, at(1))), SessionError::Spent);
    assert_eq!(later(&two, 3961), 2);
}

#[test]
fn only_tickets_of_these_brokers_count() {
    let (one, _) = pair(4);
    let (stranger, _) = pair(4);
    let (id, _) = stranger.open(Tee::Snp, at(0)).unwrap();
    assert_eq!(refused(one.spend(&id, at(0))), SessionError::Unknown);
    let (id, _) = one.open(Tee::Snp, at(0)).unwrap();
    let cookie = id.cookie();
    for index in 0..cookie.len() {
        let mut changed = cookie.clone().into_bytes();
        changed[index] = if changed[index] == b'0' { b'1' } else { b'0' };
        let changed: SessionId = String::from_utf8(changed).unwrap().parse().unwrap();
        assert_eq!(refused(one.spend(&changed, at(0))), SessionError::Unknown, "{index}");
        let cut = cookie[..index].parse::<SessionId>();
        assert!(cut.is_err() || index == 32, "{index}");
    }
    let name: SessionId = cookie[..32].parse().unwrap();
    assert_eq!(refused(one.spend(&name, at(0))), SessionError::Unknown);
    assert!(one.spend(&id, at(0)).is_ok());
}

#[test]
fn tickets_outlive_the_change_of_the_storage_key() {
    let fixture = Fixture::new();
    let (id, nonce) = {
        let one = SharedSessions::new(fixture.storage(), TIMEOUT, 4).unwrap();
        one.open(Tee::Snp, at(0)).unwrap()
    };
    let new = StorageKey::generate().unwrap();
    let key = |text: &str| StorageKey::parse(text.as_bytes()).unwrap();
    let ring = KeyRing::new(key(&new), vec![key(&fixture.key)]);
    let storage = Storage::open(&fixture.dir.path().join("db"), ring).unwrap();
    let two = SharedSessions::new(Arc::new(storage), TIMEOUT, 4).unwrap();
    assert_eq!(two.spend(&id, at(1)).unwrap().0, nonce);
}

#[test]
fn a_broker_takes_so_many_at_once() {
    let (one, two) = pair(2);
    let prove = |sessions: &SharedSessions, seconds| {
        let (id, _) = sessions.open(Tee::Snp, at(seconds)).unwrap();
        sessions.prove(&id, "token", at(seconds))
    };
    prove(&one, 0).unwrap();
    prove(&one, 1).unwrap();
    assert_eq!(refused(prove(&one, 299)), SessionError::Full);
    prove(&two, 299).unwrap();
    prove(&one, 300).unwrap();
}
