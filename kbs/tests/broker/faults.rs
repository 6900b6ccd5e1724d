//! A broker that is killed while it writes, and one whose disk is full: no key lost, none released without its line, and one
//! chain in the audit log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use cella_http::Client;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::fixture::{Sent, auth_body, client, make_folder, send, try_send};
use crate::guest::Guest;
use crate::program::{PATIENCE, admin_token, serve, serve_by, signal};

const KEY: &[u8] = b"thirty-two bytes of a model key.";

/// The handshake; gives the session's cookie.
pub(crate) async fn attest(client: &Client, guest: &Guest) -> String {
    let challenge = send(client, Sent::post("auth", auth_body())).await;
    let (cookie, nonce) = (
        challenge.cookie.unwrap(),
        challenge.body["nonce"].as_str().unwrap().to_owned(),
    );
    let body = guest.attestation_as_trustee(&nonce).to_string().into_bytes();
    let answer = send(client, Sent::post("attest", body).cookie(&cookie)).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    cookie
}

pub(crate) fn lines(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Acknowledged versions by path, and how many keys were released.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) stored: BTreeMap<String, u64>,
    pub(crate) released: usize,
}

/// Writers and readers that go on until the broker is gone.
pub(crate) fn load(
    folder: &Path,
    address: std::net::SocketAddr,
    token: &str,
    cookie: &str,
    seen: &Arc<Mutex<Seen>>,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for writer in 0..3 {
        let (client, token, seen) = (client(folder, address), token.to_owned(), seen.clone());
        tasks.spawn(async move {
            for round in 0_u32.. {
                let path = format!("demo/key-{writer}/{}", round % 7);
                let body = format!("{path} in round {round}").into_bytes();
                let request = Sent::post(&format!("resource/{path}"), body).bearer(&token);
                let Ok(response) = try_send(&client, request).await else {
                    return;
                };
                let Ok(body) = response.bytes(1 << 16).await else {
                    return;
                };
                let stored: Value = serde_json::from_slice(&body).unwrap();
                let version = stored["version"].as_u64().unwrap();
                seen.lock().unwrap().stored.insert(path, version);
            }
        });
    }
    for _ in 0..2 {
        let (client, cookie, seen) = (client(folder, address), cookie.to_owned(), seen.clone());
        tasks.spawn(async move {
            loop {
                let request = Sent::get("resource/demo/released/1").cookie(&cookie);
                let Ok(response) = try_send(&client, request).await else {
                    return;
                };
                assert_eq!(response.status, 200);
                if response.bytes(1 << 16).await.is_err() {
                    return;
                }
                seen.lock().unwrap().released += 1;
            }
        });
    }
    tasks
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_of_writes_nothing_that_was_acknowledged_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("kbs");
    let config = make_folder(dir.path());
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\n[limits]\nrequests-per-second = 100000\n")).unwrap();
    let guest = Guest::new();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let mut released = 0;
    for round in 0..4 {
        let (mut child, first) = serve(&folder).await;
        let address = std::fs::read_to_string(folder.join("state/address"))
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let token = admin_token(&folder);
        let resource = Sent::post("resource/demo/released/1", KEY.to_vec()).bearer(&token);
        assert_eq!(send(&first, resource).await.status, 200);
        let rule = Sent::post("cella-rule/demo/released/1", guest.rule().to_string().into_bytes()).bearer(&token);
        assert_eq!(send(&first, rule).await.status, 200);
        let cookie = attest(&first, &guest).await;
        let before = seen.lock().unwrap().released;
        let mut tasks = load(&folder, address, &token, &cookie, &seen);
        // Well under way, at another place each time.
        let under_way = async {
            while seen.lock().unwrap().released < before + 5 + 7 * round {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, under_way).await.expect("the load runs");
        signal(&child, "KILL");
        timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
        while timeout(PATIENCE, tasks.join_next())
            .await
            .unwrap()
            .transpose()
            .unwrap()
            .is_some()
        {}
        released = seen.lock().unwrap().released;
    }
    let (_child, client) = serve(&folder).await;
    let token = admin_token(&folder);
    let listed = send(&client, Sent::get("cella-resources").bearer(&token)).await.body;
    let versions: BTreeMap<_, _> = listed["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            (
                entry["path"].as_str().unwrap().to_owned(),
                entry["version"].as_u64().unwrap(),
            )
        })
        .collect();
    let stored = std::mem::take(&mut seen.lock().unwrap().stored);
    assert!(stored.len() > 3, "{stored:?}");
    for (path, acknowledged) in &stored {
        assert!(
            versions[path] >= *acknowledged,
            "{path}: {} after {acknowledged}",
            versions[path]
        );
    }
    // Every version that is there, and every key that left, has its line; the lines are one chain.
    let log = folder.join("state/audit.jsonl");
    cella_kbs::audit::verify(&log).unwrap();
    let lines = lines(&log);
    let of = |event: &str| {
        lines
            .iter()
            .filter(|line| line["event"] == event && line["outcome"] == "allowed")
            .count()
    };
    assert!(of("release") >= released, "{} lines for {released} keys", of("release"));
    for (path, version) in versions {
        let recorded = |line: &&Value| {
            line["event"] == "store-resource" && line["kid"] == path.as_str() && line["version"] == version
        };
        assert!(lines.iter().any(|line| recorded(&line)), "{path} {version}");
    }
}

/// A file system of 4 MiB in a mount namespace of its own, which lives as long as this does.
struct SmallDisk {
    holder: Child,
    user: bool,
}

impl SmallDisk {
    async fn mount(at: &Path) -> Self {
        let id = std::process::Command::new("id").arg("-u").output().unwrap();
        let user = id.stdout.trim_ascii() != b"0";
        let mut command = Command::new("unshare");
        command.arg("--mount");
        if user {
            command.args(["--user", "--map-root-user"]);
        }
        let script = "mount -t tmpfs -o size=4m,mode=700 none \"$0\" && echo mounted && exec sleep 600";
        let mut holder = command
            .args(["sh", "-c", script])
            .arg(at)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut said = String::new();
        let stdout = holder.stdout.take().unwrap();
        timeout(PATIENCE, BufReader::new(stdout).read_line(&mut said))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(said, "mounted\n");
        Self { holder, user }
    }

    /// A command that runs in there.
    fn enter(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().unwrap().to_string(), "--mount"]);
        if self.user {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg(program);
        command
    }

    async fn run(&self, program: &str, arguments: &[&str]) -> Vec<u8> {
        let output = self.enter(program).args(arguments).output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }
}

/// The folder of a broker whose state is on the disk.
fn on_disk(dir: &Path) -> (PathBuf, PathBuf) {
    let config = make_folder(dir);
    let disk = dir.join("disk");
    std::fs::create_dir(&disk).unwrap();
    let text = std::fs::read_to_string(&config).unwrap();
    let state = format!("state-dir = \"{}\"", disk.join("state").display());
    std::fs::write(&config, text.replace("state-dir = \"state\"", &state)).unwrap();
    (dir.join("kbs"), disk)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_releases_nothing_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, disk) = on_disk(dir.path());
    let small = SmallDisk::mount(&disk).await;
    let filler = disk.join("filler");
    let filler = filler.to_str().unwrap();
    let guest = Guest::new();
    let token = admin_token(&folder);
    let program = env!("CARGO_BIN_EXE_cella-kbs");

    let (mut child, client) = serve_by(small.enter(program), &folder).await;
    let resource = Sent::post("resource/a/b/1", KEY.to_vec()).bearer(&token);
    assert_eq!(send(&client, resource).await.status, 200);
    let rule = Sent::post("cella-rule/a/b/1", guest.rule().to_string().into_bytes()).bearer(&token);
    assert_eq!(send(&client, rule).await.status, 200);
    let cookie = attest(&client, &guest).await;
    let ask = async |client: &Client, cookie: &str| send(client, Sent::get("resource/a/b/1").cookie(cookie)).await;
    assert_eq!(ask(&client, &cookie).await.status, 200);

    // All that is left, to the last byte: then a line has no room.
    small
        .run(
            "sh",
            &["-c", "cat /dev/zero >\"$0\" 2>/dev/null; sync; test -s \"$0\"", filler],
        )
        .await;
    let mut refused = 0;
    let mut released = 1;
    for _ in 0..200 {
        let answer = ask(&client, &cookie).await;
        match answer.status.as_u16() {
            200 => released += 1,
            500 => {
                assert_eq!(answer.refusal(), (500, "Internal", "audit log failed"));
                refused += 1;
            }
            other => panic!("{other}: {:?}", answer.body),
        }
        if refused == 3 {
            break;
        }
    }
    assert_eq!(
        refused, 3,
        "the page of the log that was begun may hold some more lines, and no more"
    );
    let store = Sent::post("resource/a/b/2", vec![7; 60_000]).bearer(&token);
    assert_eq!(send(&client, store).await.status, 500);

    signal(&child, "TERM");
    timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    small.run("rm", &[filler]).await;
    let (mut child, client) = serve_by(small.enter(program), &folder).await;
    let cookie = attest(&client, &guest).await;
    assert_eq!(ask(&client, &cookie).await.status, 200);
    let listed = send(&client, Sent::get("cella-resources").bearer(&token)).await.body;
    assert_eq!(listed["resources"][0]["bytes"], json!(KEY.len()));
    assert_eq!(listed["resources"].as_array().unwrap().len(), 1);
    let store = Sent::post("resource/a/b/2", vec![7; 60_000]).bearer(&token);
    assert_eq!(send(&client, store).await.status, 200);
    signal(&child, "TERM");
    timeout(PATIENCE, child.wait()).await.unwrap().unwrap();

    let log = dir.path().join("audit.jsonl");
    std::fs::write(
        &log,
        small
            .run("cat", &[disk.join("state/audit.jsonl").to_str().unwrap()])
            .await,
    )
    .unwrap();
    cella_kbs::audit::verify(&log).unwrap();
    let released_lines = lines(&log)
        .iter()
        .filter(|line| line["event"] == "release" && line["outcome"] == "allowed")
        .count();
    // The line that did not fit was cut off at the start; one more key after it.
    assert_eq!(released_lines, released + 1);
}
