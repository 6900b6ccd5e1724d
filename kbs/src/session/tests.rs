use super::*;
use crate::testing::facts;

const TIMEOUT: Duration = Duration::from_secs(300);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn attested(sessions: &Sessions, now: Duration) -> SessionId {
    let (id, _) = sessions.open(Tee::Snp, now).unwrap();
    sessions.spend(&id, now).unwrap();
    sessions.prove(&id, Arc::new(facts()), now).unwrap();
    id
}

#[test]
fn the_way_through() {
    let sessions = Sessions::new(TIMEOUT, 4);
    let (id, nonce) = sessions.open(Tee::Snp, at(0)).unwrap();
    assert_eq!(STANDARD.decode(nonce.as_str()).unwrap().len(), 32);
    assert_eq!(sessions.facts(&id, at(1)), Err(SessionError::Unproven));
    assert_eq!(sessions.spend(&id, at(1)).unwrap(), (nonce, Tee::Snp, at(299)));
    assert_eq!(sessions.facts(&id, at(1)), Err(SessionError::Unproven));
    sessions.prove(&id, Arc::new(facts()), at(2)).unwrap();
    assert_eq!(*sessions.facts(&id, at(3)).unwrap(), facts());
}

#[test]
fn t17_a_nonce_is_spent_once() {
    let sessions = Sessions::new(TIMEOUT, 4);
    let (id, _) = sessions.open(Tee::Snp, at(0)).unwrap();
    assert_eq!(sessions.prove(&id, Arc::new(facts()), at(0)), Err(SessionError::Spent));
    sessions.spend(&id, at(0)).unwrap();
    assert_eq!(sessions.spend(&id, at(0)), Err(SessionError::Spent));
    sessions.prove(&id, Arc::new(facts()), at(0)).unwrap();
    assert_eq!(sessions.spend(&id, at(0)), Err(SessionError::Spent));
    assert_eq!(sessions.prove(&id, Arc::new(facts()), at(0)), Err(SessionError::Spent));
    assert!(sessions.facts(&id, at(0)).is_ok());
}

#[test]
fn everything_times_out() {
    let sessions = Sessions::new(TIMEOUT, 4);
    let (challenged, _) = sessions.open(Tee::Snp, at(0)).unwrap();
    let (spent, _) = sessions.open(Tee::Snp, at(0)).unwrap();
    sessions.spend(&spent, at(299)).unwrap();
    let proven = attested(&sessions, at(0));
    assert_eq!(sessions.spend(&challenged, at(300)), Err(SessionError::Expired));
    assert_eq!(
        sessions.prove(&spent, Arc::new(facts()), at(300)),
        Err(SessionError::Unknown)
    );
    assert_eq!(sessions.facts(&proven, at(300)), Err(SessionError::Unknown));
    assert_eq!(sessions.lock().sessions.len(), 0);
    assert_eq!(sessions.lock().attested, 0);
    assert!(sessions.lock().order.is_empty());
}

#[test]
fn a_flood_neither_grows_nor_displaces_the_proven() {
    let sessions = Sessions::new(TIMEOUT, 3);
    let proven = attested(&sessions, at(0));
    let first = sessions.open(Tee::Snp, at(0)).unwrap().0;
    for _ in 0..100 {
        sessions.open(Tee::Snp, at(1)).unwrap();
    }
    assert_eq!(sessions.spend(&first, at(1)), Err(SessionError::Unknown));
    assert!(sessions.facts(&proven, at(1)).is_ok());
    assert_eq!(sessions.lock().sessions.len(), 4);
    assert_eq!(sessions.lock().order.len(), 4);
}

#[test]
fn the_proven_are_bounded_too() {
    let sessions = Sessions::new(TIMEOUT, 2);
    attested(&sessions, at(0));
    attested(&sessions, at(1));
    let (id, _) = sessions.open(Tee::Snp, at(2)).unwrap();
    sessions.spend(&id, at(2)).unwrap();
    assert_eq!(sessions.prove(&id, Arc::new(facts()), at(2)), Err(SessionError::Full));
    sessions.prove(&id, Arc::new(facts()), at(300)).unwrap();
}

#[test]
fn cookies() {
    let (id, _) = Sessions::new(TIMEOUT, 1).open(Tee::Snp, at(0)).unwrap();
    let cookie = id.cookie();
    assert_eq!(cookie.parse::<SessionId>().unwrap(), id);
    assert_eq!((cookie.len(), cookie.as_bytes()[12]), (32, b'4'));
    assert!(!format!("{id:?}").contains(&cookie) && !cookie.contains(&id.tag()));
    for text in [
        "",
        "00",
        &cookie[1..],
        &format!("{cookie}0"),
        &cookie.replace(|c: char| c.is_ascii_digit(), "z"),
    ] {
        assert_eq!(text.parse::<SessionId>(), Err(SessionError::Unknown));
    }
}
