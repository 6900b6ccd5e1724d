//! What a broker needs that runs for years: keys that change, copies, a log that others can check, numbers to watch.

use serde_json::json;

use crate::fixture::{Fixture, Sent};
use crate::guest::Guest;

const KEY: &[u8] = b"thirty-two bytes of a model key.";

#[tokio::test]
async fn a_backup_brings_keys_rules_floors_and_tokens_into_a_new_broker() {
    let mut old = Fixture::new().await;
    let guest = Guest::new();
    old.store("demo/key/2", KEY, &guest.rule()).await;
    let admin = old.admin_token();
    let raise = Sent::post("cella-floor/resource/demo/key?version=2", Vec::new());
    assert_eq!(old.send(raise.bearer(&admin)).await.status, 200);
    let (_, token) = old.attested(&guest).await;
    let (backup, kind) = old.send_raw(Sent::get("cella-backup").bearer(&admin)).await;
    assert_eq!(kind, "application/octet-stream");
    assert!(!backup.windows(KEY.len()).any(|window| window == KEY));
    old.stop().await;

    let new = Fixture::new().await;
    let admin = new.admin_token();
    let restore = || Sent::post("cella-restore", backup.clone()).bearer(&admin);
    // The storage key is what a backup can be read with.
    let refused = new.send(restore()).await;
    let detail = "the backup was made with another storage key";
    assert_eq!(refused.refusal(), (400, "InvalidRequest", detail));
    let mut new = new;
    new.stop().await;
    std::fs::copy(old.folder().join("storage.key"), new.folder().join("storage.key")).unwrap();
    std::fs::remove_file(new.folder().join("state/kbs.redb")).unwrap();
    new.start().await;
    let restored = new.send(restore()).await;
    assert_eq!(restored.status, 200, "{:?}", restored.body);
    let again = new.send(restore()).await;
    let detail = "the broker holds something already: restore into a new one";
    assert_eq!(again.refusal(), (409, "InvalidRequest", detail));

    // A token of the old broker still opens what it opened there.
    let released = new.send(Sent::get("resource/demo/key/2").bearer(&token)).await;
    assert_eq!(released.status, 200, "{:?}", released.body);
    let lowered = Sent::post("cella-floor/resource/demo/key?version=1", Vec::new());
    assert_eq!(new.send(lowered.bearer(&admin)).await.status, 409);
    let events: Vec<_> = new.audit().into_iter().map(|line| line["event"].clone()).collect();
    assert!(events.contains(&json!("restore")), "{events:?}");
}

#[tokio::test]
async fn token_keys_change_without_a_gap() {
    let fixture = Fixture::new().await;
    let guest = Guest::new();
    fixture.store("a/b/c", KEY, &guest.rule()).await;
    let set = async || {
        fixture.send(Sent::get("cella-jwks")).await.body["keys"]
            .as_array()
            .unwrap()
            .clone()
    };
    let before = set().await;
    assert_eq!(before.len(), 1);
    assert!(before[0]["d"].is_null() && before[0]["use"] == "sig");
    let admin = fixture.admin_token();
    let rotated = fixture
        .send(Sent::post("cella-token-key", Vec::new()).bearer(&admin))
        .await;
    let both = set().await;
    assert_eq!(
        (both.len(), &both[0], &both[1]["kid"]),
        (2, &before[0], &rotated.body["kid"])
    );
    let (_, old_token) = fixture.attested(&guest).await;
    fixture.clock.advance(299);
    let (_, last_token) = fixture.attested(&guest).await;
    fixture.clock.advance(2);
    let (_, new_token) = fixture.attested(&guest).await;
    let ask = async |token: &str| {
        fixture
            .send(Sent::get("resource/a/b/c").bearer(token))
            .await
            .status
            .as_u16()
    };
    assert_eq!(ask(&old_token).await, 401, "it has ended");
    assert_eq!((ask(&last_token).await, ask(&new_token).await), (200, 200));
}

#[tokio::test]
async fn the_audit_log_can_be_read_by_admins_line_for_line() {
    let fixture = Fixture::new().await;
    fixture.store("a/b/c", KEY, &Guest::new().rule()).await;
    let admin = fixture.admin_token();
    let (all, kind) = fixture.send_raw(Sent::get("cella-audit").bearer(&admin)).await;
    assert_eq!(
        (all.clone(), kind.as_str()),
        (std::fs::read(fixture.audit_path()).unwrap(), "application/jsonl")
    );
    let (rest, _) = fixture.send_raw(Sent::get("cella-audit?from=2").bearer(&admin)).await;
    assert!(all.ends_with(&rest) && rest.starts_with(br#"{"seq":2,"#));
    let (none, _) = fixture.send_raw(Sent::get("cella-audit?from=3").bearer(&admin)).await;
    assert!(none.is_empty());
}

#[tokio::test]
async fn nothing_older_than_tls_1_3() {
    use rustls::pki_types::ServerName;
    let fixture = Fixture::new().await;
    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(fixture.folder().join("ca.pem")).unwrap();
    for certificate in rustls_pki_types::pem::PemObject::pem_slice_iter(&pem) {
        let certificate: rustls_pki_types::CertificateDer<'static> = certificate.unwrap();
        roots.add(certificate).unwrap();
    }
    for (version, works) in [(&rustls::version::TLS12, false), (&rustls::version::TLS13, true)] {
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let stream = tokio::net::TcpStream::connect(fixture.address()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connected = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config))
            .connect(name, stream)
            .await;
        assert_eq!(connected.is_ok(), works, "{connected:?}");
    }
}

#[tokio::test]
async fn numbers_for_prometheus_name_nobody() {
    let fixture = Fixture::new().await;
    let guest = Guest::new();
    fixture.store("a/b/c", KEY, &guest.rule()).await;
    let (cookie, _) = fixture.attested(&guest).await;
    assert_eq!(
        fixture.send(Sent::get("resource/a/b/c").cookie(&cookie)).await.status,
        200
    );
    assert_eq!(fixture.send(Sent::get("resource/a/b/c")).await.status, 401);
    let (text, kind) = fixture.get_page("/metrics").await;
    assert_eq!(kind, "text/plain; version=0.0.4");
    for line in [
        r#"cella_kbs_requests_total{endpoint="auth",outcome="ok"} 1"#,
        r#"cella_kbs_requests_total{endpoint="attest",outcome="ok"} 1"#,
        r#"cella_kbs_requests_total{endpoint="resource",outcome="ok"} 1"#,
        r#"cella_kbs_requests_total{endpoint="resource",outcome="refused"} 1"#,
        r#"cella_kbs_requests_total{endpoint="admin",outcome="ok"} 2"#,
        r#"cella_kbs_sessions{state="attested"} 1"#,
        "cella_kbs_audit_lines_total 5",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(!text.contains("a/b/c") && !text.contains("ada"));
}

#[tokio::test]
async fn one_source_is_rationed_and_told_to_come_again() {
    let fixture = Fixture::with(|config| config.limits.requests_per_second = 1).await;
    let client = fixture.client();
    let mut limited = 0;
    for _ in 0..12 {
        let answer = crate::fixture::send(&client, Sent::get("cella-jwks")).await;
        if answer.status == 503 {
            assert_eq!(
                answer.refusal(),
                (503, "Overloaded", "too many requests: try again later")
            );
            limited += 1;
        }
    }
    assert!((1..=2).contains(&limited), "{limited}");
    fixture.clock.advance(5);
    assert_eq!(fixture.send(Sent::get("cella-jwks")).await.status, 200);
}

#[tokio::test]
async fn one_source_has_so_many_connections() {
    let fixture = Fixture::with(|config| config.limits.connections_per_source = 2).await;
    // A connection goes back to its client when the body is read, and stays.
    let connect = async || {
        let client = fixture.client();
        let response = crate::fixture::try_send(&client, Sent::get("cella-jwks")).await.ok()?;
        response.bytes(1 << 16).await.ok().map(|_| client)
    };
    let (first, _second) = (connect().await.unwrap(), connect().await.unwrap());
    assert!(connect().await.is_none());
    drop(first);
    // The place is free when the broker has seen the end.
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(20));
    let free = async {
        while connect().await.is_none() {
            tick.tick().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), free)
        .await
        .unwrap();
}
