//! What cannot be brought about from outside: a full disk.

use cella_attest::conditions::NoReferences;

use super::*;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::init::{InitOptions, init};
use crate::rule::Rule;
use crate::storage::StorageError;
use crate::testing::{AdminKey, facts};

const RESOURCE: &[u8] = b"a key of thirty-two bytes length";

struct Fixture {
    _dir: tempfile::TempDir,
    broker: Broker,
    path: ResourcePath,
}

/// A broker that holds one resource, releasable to the guest of [`facts`].
fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let options = InitOptions {
        dir: dir.path().join("kbs"),
        names: vec!["localhost".to_owned()],
        listen: "127.0.0.1:0".parse().unwrap(),
        simulated_root: None,
        tdx_collateral: None,
        simulated_tdx_root: None,
    };
    let config = Config::load(&init(&options).unwrap()).unwrap();
    let broker = Broker::open(&config, Arc::new(SystemClock::new())).unwrap();
    let path: ResourcePath = "demo/key/1".parse().unwrap();
    let rule = format!(
        r#"{{"launch-digests":["{}"],"policy-digests":["{}"],"allow-simulated":true}}"#,
        hex::encode(facts().launch_digest()),
        hex::encode(facts().initdata)
    );
    broker.storage.put_resource(&path, None, RESOURCE).unwrap();
    broker
        .storage
        .put_rule(&path, None, &Rule::from_json(rule.as_bytes()).unwrap())
        .unwrap();
    Fixture {
        _dir: dir,
        broker,
        path,
    }
}

fn attested(broker: &Broker) -> Credentials {
    let clock = broker.clock.as_ref();
    let (id, _) = broker.sessions.open(Tee::Snp, clock).unwrap();
    broker.sessions.spend(&id, clock).unwrap();
    broker.sessions.prove(&id, Arc::new(facts()), "", clock).unwrap();
    Credentials {
        cookie: Some(id.cookie()),
        bearer: None,
    }
}

#[test]
fn no_line_no_key() {
    let Fixture { _dir, mut broker, path } = fixture();
    let credentials = attested(&broker);
    assert!(broker.release(&credentials, &path, "ref").is_ok());
    let log = std::mem::replace(&mut broker.audit, AuditLog::failing());
    assert!(matches!(
        broker.release(&credentials, &path, "ref"),
        Err(Refusal::Audit(_))
    ));
    broker.audit = log;
    assert!(broker.release(&credentials, &path, "ref").is_ok());
}

#[test]
fn no_line_no_change() {
    let Fixture { _dir, mut broker, path } = fixture();
    let key = AdminKey::new();
    broker.admins.add_pem(&key.public_pem()).unwrap();
    let now = broker.clock.unix().as_secs();
    let claims = serde_json::json!({"aud": "cella-kbs", "sub": "ada", "iat": now, "exp": now + 60});
    let token = key.sign(&serde_json::json!({"alg": "EdDSA"}), &claims);
    let admin = broker
        .authenticate(&Credentials {
            cookie: None,
            bearer: Some(token),
        })
        .unwrap();

    broker.audit = AuditLog::failing();
    let rule = br#"{"launch-digests":[],"policy-digests":[]}"#;
    assert!(matches!(
        broker.store_resource(&admin, &path, None, b"other", "ref"),
        Err(Refusal::Audit(_))
    ));
    assert!(matches!(
        broker.store_rule(&admin, &path, None, rule, "ref"),
        Err(Refusal::Audit(_))
    ));
    assert!(matches!(
        broker.delete_rule(&admin, &path, "ref"),
        Err(Refusal::Audit(_))
    ));
    assert!(matches!(
        broker.delete_resource(&admin, &path, "ref"),
        Err(Refusal::Audit(_))
    ));
    let floor = "model/demo".parse().unwrap();
    assert!(matches!(
        broker.raise_floor(&admin, &floor, 2, "ref"),
        Err(Refusal::Audit(_))
    ));
    assert_eq!(broker.storage.floor(&floor).unwrap(), 0);
    assert_eq!(
        broker.storage.resource(&path).unwrap().unwrap().bytes.as_slice(),
        RESOURCE
    );
    let now = broker.clock.unix();
    assert_eq!(broker.rule(&path).unwrap().check(&facts(), now, &NoReferences), Ok(()));
}

#[test]
fn what_the_broker_fails_at_is_not_told() {
    let source = std::io::Error::other("canary");
    let refusal = Refusal::from(StorageError::File {
        path: "/canary".into(),
        source,
    });
    let (status, information) = refusal.answer("0011");
    assert_eq!((status.as_u16(), information.name()), (500, "Internal"));
    assert_eq!(information.detail, "storage failed (ref 0011)");
}
