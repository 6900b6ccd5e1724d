//! Two brokers over one PostgreSQL database, behind one name as far as guests know: any of them may get any request.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cella_http::Client;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio::process::Child;
use tokio::time::timeout;

use crate::faults::{Seen, attest, lines, load};
use crate::fixture::{Answer, Sent, auth_body, make_folder, send};
use crate::guest::{Guest, flip_report_byte};
use crate::owners::Owner;
use crate::postgres::{PASSWORD, Postgres};
use crate::program::{PATIENCE, admin_token, run, serve, signal};

pub(crate) const KEY: &[u8] = b"thirty-two bytes of a model key.";
const SPENT: (u16, &str, &str) = (
    401,
    "AttestationError",
    "the nonce was already used: start again with /auth",
);
pub(crate) const AWAY: (u16, &str, &str) = (503, "StorageUnavailable", "storage failed");

/// A database and two folders of brokers that share it.
pub(crate) struct Replicas {
    _dir: tempfile::TempDir,
    pub(crate) postgres: Arc<Mutex<Postgres>>,
    pub(crate) one: PathBuf,
    two: PathBuf,
}

impl Replicas {
    fn new() -> Self {
        Self::over(Postgres::start(), |postgres| postgres.connection(), "")
    }

    pub(crate) fn over(postgres: Postgres, connection: impl Fn(&Postgres) -> String, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        make_folder(dir.path());
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        for (name, folder) in [("one", &one), ("two", &two)] {
            std::fs::create_dir(folder).unwrap();
            for entry in std::fs::read_dir(dir.path().join("kbs")).unwrap().flatten() {
                if entry.path().is_file() {
                    std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
                }
            }
            let config = folder.join("config.toml");
            let text = std::fs::read_to_string(&config).unwrap();
            let text = format!(
                "{text}\n[limits]\nrequests-per-second = 100000\n\
                 [postgres]\nconnection = \"connection\"\nreplica = \"{name}\"\n{more}"
            );
            std::fs::write(&config, text).unwrap();
            let path = folder.join("connection");
            std::fs::copy(folder.join("storage.key"), &path).unwrap();
            std::fs::write(&path, connection(&postgres)).unwrap();
        }
        Self {
            _dir: dir,
            postgres: Arc::new(Mutex::new(postgres)),
            one,
            two,
        }
    }

    /// Both, running.
    pub(crate) async fn serve(&self) -> [(Child, Client); 2] {
        [serve(&self.one).await, serve(&self.two).await]
    }

    /// Both logs are whole, and say whose they are. Gives all lines.
    pub(crate) fn audit(&self) -> Vec<Value> {
        let mut all = Vec::new();
        for (name, folder) in [("one", &self.one), ("two", &self.two)] {
            let log = folder.join("state/audit.jsonl");
            cella_kbs::audit::verify(&log).unwrap();
            let lines = lines(&log);
            assert!(lines.iter().all(|line| line["replica"] == name));
            all.extend(lines);
        }
        all
    }
}

pub(crate) async fn challenge(client: &Client) -> (String, String) {
    let answer = send(client, Sent::post("auth", auth_body())).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    let nonce = answer.body["nonce"].as_str().unwrap().to_owned();
    (answer.cookie.unwrap(), nonce)
}

pub(crate) async fn hand_in(client: &Client, cookie: &str, body: &Value) -> Answer {
    let body = body.to_string().into_bytes();
    send(client, Sent::post("attest", body).cookie(cookie)).await
}

pub(crate) async fn store(client: &Client, token: &str, path: &str, guest: &Guest) {
    let resource = Sent::post(&format!("resource/{path}"), KEY.to_vec()).bearer(token);
    assert_eq!(send(client, resource).await.status, 200);
    let rule = guest.rule().to_string().into_bytes();
    let rule = Sent::post(&format!("cella-rule/{path}"), rule).bearer(token);
    assert_eq!(send(client, rule).await.status, 200);
}

pub(crate) async fn ask(client: &Client, cookie: &str, path: &str) -> Answer {
    send(client, Sent::get(&format!("resource/{path}")).cookie(cookie)).await
}

pub(crate) fn of(lines: &[Value], event: &str, outcome: &str) -> usize {
    let of = |line: &&Value| line["event"] == event && line["outcome"] == outcome;
    lines.iter().filter(of).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn t17_one_handshake_goes_over_both_and_a_nonce_gives_one_token() {
    let replicas = Replicas::new();
    let [(mut child, one), (_other, two)] = replicas.serve().await;
    let (guest, token) = (Guest::new(), admin_token(&replicas.one));
    store(&one, &token, "a/b/1", &guest).await;

    let (cookie, nonce) = challenge(&one).await;
    assert_eq!(ask(&two, &cookie, "a/b/1").await.refusal().1, "TokenNotFound");
    let body = guest.attestation(&nonce);
    let mut flipped = body.clone();
    flip_report_byte(&mut flipped, 0x90);
    assert_eq!(hand_in(&one, &cookie, &flipped).await.status, 401);
    let answer = hand_in(&two, &cookie, &body).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    let ear = answer.body["token"].as_str().unwrap().to_owned();
    for client in [&one, &two] {
        assert_eq!(hand_in(client, &cookie, &body).await.refusal(), SPENT);
        let by_token = send(client, Sent::get("resource/a/b/1").bearer(&ear)).await;
        for released in [ask(client, &cookie, "a/b/1").await, by_token] {
            assert_eq!(released.status, 200, "{:?}", released.body);
        }
    }
    // At once, to both: one of them gives a token.
    for _ in 0..10 {
        let (cookie, nonce) = challenge(&two).await;
        let body = guest.attestation(&nonce);
        let (a, b) = tokio::join!(hand_in(&one, &cookie, &body), hand_in(&two, &cookie, &body));
        let (won, lost) = if a.status == 200 { (a, b) } else { (b, a) };
        assert_eq!(won.status, 200, "{:?}", won.body);
        assert_eq!(lost.refusal(), SPENT);
    }
    let keys = async |client: &Client| send(client, Sent::get("cella-jwks")).await.body;
    assert_eq!(keys(&one).await, keys(&two).await);

    // A broker that is started again goes on with the sessions of before.
    signal(&child, "KILL");
    timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    let (child, one) = serve(&replicas.one).await;
    assert_eq!(ask(&one, &cookie, "a/b/1").await.status, 200);
    assert_eq!(hand_in(&one, &cookie, &body).await.refusal(), SPENT);

    let lines = replicas.audit();
    assert_eq!(of(&lines, "release", "allowed"), 5);
    // What lies in the database is sealed, and the password is in nobody's sight.
    for secret in [KEY, ear.as_bytes(), guest.rule().to_string().as_bytes()] {
        let secret = hex::encode(&secret[..24]);
        let found = format!("SELECT count(*) FROM cella_kbs WHERE position('\\x{secret}'::bytea in value) > 0");
        assert_eq!(replicas.postgres.lock().unwrap().ask(&found), "0\n");
    }
    let process = PathBuf::from(format!("/proc/{}", child.id().unwrap()));
    for file in ["cmdline", "environ"] {
        let text = std::fs::read(process.join(file)).unwrap();
        assert!(!String::from_utf8_lossy(&text).contains(PASSWORD));
    }
    signal(&child, "TERM");
    let output = timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(!String::from_utf8(output.stderr).unwrap().contains(PASSWORD));
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_floors_that_both_raise_at_once_only_grow() {
    let replicas = Replicas::new();
    let [(_a, one), (_b, two)] = replicas.serve().await;
    let token = admin_token(&replicas.one);
    let raise = async |client: &Client, to: u64| {
        let path = format!("cella-floor/model/demo?version={to}");
        send(client, Sent::post(&path, Vec::new()).bearer(&token)).await
    };
    let floor = async |client: &Client| {
        let floors = send(client, Sent::get("cella-floors").bearer(&token)).await.body;
        floors["floors"][0]["floor"].as_u64().unwrap_or(0)
    };
    // Upwards by steps of both, so that each often offers less than what the other has just raised to.
    let rise = async |client: &Client, by: u64| {
        let mut seen = 0;
        for to in (1..=40).map(|step| 1 + step * by % 41) {
            let answer = raise(client, to).await;
            let now = floor(client).await;
            assert!(now >= seen, "{now} after {seen}");
            seen = now;
            match answer.status.as_u16() {
                200 => assert!(now >= to),
                409 => assert!(now > to, "{now} {:?}", answer.body),
                other => panic!("{other}: {:?}", answer.body),
            }
        }
    };
    tokio::join!(rise(&one, 3), rise(&two, 7), rise(&one, 5), rise(&two, 2));
    for client in [&one, &two] {
        assert_eq!(floor(client).await, 41);
        assert_eq!(raise(client, 40).await.status, 409);
    }
    replicas.audit();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owners_yes_to_one_counts_with_the_other() {
    let replicas = Replicas::new();
    let [(_a, one), (_b, two)] = replicas.serve().await;
    let (guest, token) = (Guest::new(), admin_token(&replicas.one));
    store(&one, &token, "a/b/1", &guest).await;
    let alice = Owner::new("alice", 1);
    let owners = json!({"owners": [{"name": "alice", "key": hex::encode(alice.public())}]});
    let owners = Sent::post("cella-owners/a/b/1", owners.to_string().into_bytes()).bearer(&token);
    assert_eq!(send(&two, owners).await.status, 200);
    let cookie = attest(&one, &guest).await;
    let missing = ask(&one, &cookie, "a/b/1").await;
    assert_eq!(missing.refusal(), (401, "PolicyDeny", "approval missing: alice"));
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let word = alice.word(&guest, 1, now, 600).to_string().into_bytes();
    assert_eq!(send(&two, Sent::post("cella-approval/a/b/1", word)).await.status, 200);
    for client in [&one, &two] {
        assert_eq!(ask(client, &cookie, "a/b/1").await.status, 200);
    }
}

/// Writes until told to stop; what was acknowledged, by path.
async fn write(client: &Client, token: &str, repository: &str, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    for round in 0_u32.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let path = format!("{repository}/key/{}", round % 5);
        let body = format!("{path} in round {round}").into_bytes();
        let answer = send(client, Sent::post(&format!("resource/{path}"), body).bearer(token)).await;
        if answer.status == 200 {
            seen.stored.insert(path, answer.body["version"].as_u64().unwrap());
        } else {
            assert_eq!(answer.refusal(), AWAY);
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_database_loses_nothing_and_is_said() {
    let replicas = Replicas::new();
    let [(_a, one), (_b, two)] = replicas.serve().await;
    let (guest, token) = (Guest::new(), admin_token(&replicas.one));
    store(&one, &token, "a/b/1", &guest).await;
    let before = attest(&one, &guest).await;
    let (cookie, nonce) = challenge(&one).await;
    let body = guest.attestation(&nonce);

    replicas.postgres.lock().unwrap().stop("INT");
    let begun = Instant::now();
    assert_eq!(hand_in(&two, &cookie, &body).await.refusal(), AWAY);
    assert_eq!(ask(&one, &before, "a/b/1").await.refusal(), AWAY);
    let resource = Sent::post("resource/a/b/2", KEY.to_vec()).bearer(&token);
    assert_eq!(send(&one, resource).await.refusal(), AWAY);
    assert!(begun.elapsed().as_secs() < 30);
    replicas.postgres.lock().unwrap().resume();
    // The evidence that was not looked at to its end is still good for its nonce, once.
    assert_eq!(hand_in(&two, &cookie, &body).await.status, 200);
    assert_eq!(hand_in(&one, &cookie, &body).await.refusal(), SPENT);
    for client in [&one, &two] {
        assert_eq!(ask(client, &before, "a/b/1").await.status, 200);
        assert_eq!(ask(client, &cookie, "a/b/1").await.status, 200);
    }
    let no_such = ask(&one, &cookie, "a/b/2").await;
    assert_eq!(no_such.refusal(), (404, "InvalidRequestPath", "no such resource"));

    // Crashes of the database while both write.
    let stop = AtomicBool::new(false);
    let crash = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(700)).await;
            let postgres = replicas.postgres.clone();
            let crash = move || {
                let mut postgres = postgres.lock().unwrap();
                postgres.stop("QUIT");
                postgres.resume();
            };
            tokio::task::spawn_blocking(crash).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        stop.store(true, Ordering::Relaxed);
    };
    let (first, second, ()) = tokio::join!(
        write(&one, &token, "one", &stop),
        write(&two, &token, "two", &stop),
        crash
    );
    let listed = send(&one, Sent::get("cella-resources").bearer(&token)).await.body;
    let stored: Vec<_> = first.stored.into_iter().chain(second.stored).collect();
    assert!(stored.len() == 10, "{stored:?}");
    for (path, acknowledged) in stored {
        let mut there = listed["resources"].as_array().unwrap().iter();
        let line = there.find(|line| line["path"] == path.as_str()).unwrap();
        assert!(line["version"].as_u64().unwrap() >= acknowledged, "{path}");
    }
    assert_eq!(of(&replicas.audit(), "release", "allowed"), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_loses_nothing_that_it_acknowledged() {
    let replicas = Replicas::new();
    let [(mut child, one), (_b, two)] = replicas.serve().await;
    let (guest, token) = (Guest::new(), admin_token(&replicas.one));
    store(&two, &token, "demo/released/1", &guest).await;
    let seen = Arc::new(Mutex::new(Seen::default()));
    for round in 0..3 {
        let cookie = attest(&two, &guest).await;
        let text = std::fs::read_to_string(replicas.one.join("state/address")).unwrap();
        let before = seen.lock().unwrap().released;
        let mut tasks = load(&replicas.one, text.trim().parse().unwrap(), &token, &cookie, &seen);
        let under_way = async {
            while seen.lock().unwrap().released < before + 5 + 7 * round {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, under_way).await.expect("the load runs");
        signal(&child, "KILL");
        timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
        while let Some(ended) = timeout(PATIENCE, tasks.join_next()).await.unwrap() {
            ended.unwrap();
        }
        child = serve(&replicas.one).await.0;
    }
    drop(one);
    let listed = send(&two, Sent::get("cella-resources").bearer(&token)).await.body;
    let seen = seen.lock().unwrap();
    assert!(seen.stored.len() > 3, "{:?}", seen.stored);
    for (path, acknowledged) in &seen.stored {
        let mut there = listed["resources"].as_array().unwrap().iter();
        let line = there.find(|line| line["path"] == path.as_str()).unwrap();
        assert!(line["version"].as_u64().unwrap() >= *acknowledged, "{path}");
    }
    let lines = replicas.audit();
    assert!(of(&lines, "release", "allowed") >= seen.released);
}

/// A certificate authority and a certificate of its for a name: roots, certificate and key, in PEM.
fn certificates(name: &str) -> (String, String, String) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    (root, leaf.pem(), key.serialize_pem())
}

async fn refused(folder: &Path) -> String {
    let config = folder.join("config.toml");
    let (code, said) = run(&["serve", "--config", config.to_str().unwrap()]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(!said.contains(PASSWORD), "{said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tcp_the_servers_certificate_is_verified() {
    let (root, certificate, key) = certificates("db.example.org");
    let replicas = Replicas::over(
        Postgres::with_tls(&certificate, &key),
        |postgres| postgres.connection_over_tls("db.example.org"),
        "ca = \"pg-ca.pem\"\n",
    );
    for folder in [&replicas.one, &replicas.two] {
        std::fs::write(folder.join("pg-ca.pem"), &root).unwrap();
    }
    let [(_a, one), (second, two)] = replicas.serve().await;
    let (guest, token) = (Guest::new(), admin_token(&replicas.one));
    store(&one, &token, "a/b/1", &guest).await;
    let cookie = attest(&two, &guest).await;
    assert_eq!(ask(&one, &cookie, "a/b/1").await.status, 200);
    let over = "SELECT string_agg(DISTINCT version, ',') FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                WHERE application_name = 'cella-kbs'";
    assert_eq!(replicas.postgres.lock().unwrap().ask(over), "TLSv1.3\n");

    let folder = &replicas.two;
    drop((second, two));
    std::fs::write(folder.join("pg-ca.pem"), certificates("db.example.org").0).unwrap();
    let said = refused(folder).await;
    // Another key under the same name.
    assert!(said.contains("invalid peer certificate: BadSignature"), "{said}");
    std::fs::write(folder.join("pg-ca.pem"), &root).unwrap();
    let other = replicas
        .postgres
        .lock()
        .unwrap()
        .connection_over_tls("other.example.org");
    std::fs::write(folder.join("connection"), other).unwrap();
    let said = refused(folder).await;
    assert!(said.contains("not valid for name"), "{said}");
    let wrong = replicas.postgres.lock().unwrap().connection_over_tls("db.example.org") + "x";
    std::fs::write(folder.join("connection"), wrong).unwrap();
    let said = refused(folder).await;
    assert!(said.contains("password authentication failed"), "{said}");
    let config = std::fs::read_to_string(folder.join("config.toml")).unwrap();
    std::fs::write(folder.join("config.toml"), config.replace("ca = \"pg-ca.pem\"", "")).unwrap();
    let said = refused(folder).await;
    assert!(said.contains("postgres.ca must name the roots"), "{said}");
}
