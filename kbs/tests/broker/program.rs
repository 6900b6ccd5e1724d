//! The program itself: its commands, its exit codes, and what is left when it is killed.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::process::{Child, Command};
use tokio::time::{interval, timeout};

use crate::fixture::{Sent, auth_body, client, make_folder, send, sign};
use crate::guest::Guest;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

fn program() -> Command {
    piped(Command::new(env!("CARGO_BIN_EXE_cella-kbs")))
}

fn piped(mut command: Command) -> Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Exit code and everything said.
pub(crate) async fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = timeout(PATIENCE, program().args(arguments).output())
        .await
        .unwrap()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

/// Starts the broker and waits until it listens.
pub(crate) async fn serve(folder: &Path) -> (Child, cella_http::Client) {
    serve_by(program(), folder).await
}

/// The same with a command that ends in the program's name.
pub(crate) async fn serve_by(command: Command, folder: &Path) -> (Child, cella_http::Client) {
    let address_file = folder.join("state/address");
    if address_file.exists() {
        std::fs::remove_file(&address_file).unwrap();
    }
    let child = piped(command)
        .arg("serve")
        .arg("--config")
        .arg(folder.join("config.toml"))
        .spawn()
        .unwrap();
    let listening = async {
        let mut tick = interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            if let Ok(text) = std::fs::read_to_string(&address_file) {
                return text.trim().parse().unwrap();
            }
        }
    };
    let address = timeout(PATIENCE, listening).await.expect("the broker listens");
    (child, client(folder, address))
}

pub(crate) fn signal(child: &Child, name: &str) {
    let pid = child.id().unwrap().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-s", name, &pid])
            .status()
            .unwrap()
            .success()
    );
}

pub(crate) fn admin_token(folder: &Path) -> String {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    sign(
        folder,
        &json!({"aud": "cella-kbs", "sub": "ada", "iat": now, "exp": now + 120}),
    )
}

#[tokio::test]
async fn serves_and_ends_on_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("kbs");
    make_folder(dir.path());
    let (child, client) = serve(&folder).await;
    assert_eq!(send(&client, Sent::post("auth", auth_body())).await.status, 200);
    signal(&child, "TERM");
    let output = timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        said.contains(&format!("cella-kbs listening on {}", client.origin())),
        "{said}"
    );
    assert!(
        said.contains("evidence of a simulated platform is accepted") && said.contains("stopped"),
        "{said}"
    );
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("kbs");
    make_folder(dir.path());
    let rule = Guest::new().rule().to_string();
    let mut expected = Vec::new();
    for round in 0..3 {
        let (mut child, client) = serve(&folder).await;
        let token = admin_token(&folder);
        for index in 0..5 {
            let path = format!("demo/key-{round}/{index}");
            let bytes = format!("contents of {path}").into_bytes();
            expected.push((path.clone(), bytes.len()));
            let resource = Sent::post(&format!("resource/{path}"), bytes).bearer(&token);
            assert_eq!(send(&client, resource).await.status, 200);
            let rule = Sent::post(&format!("cella-rule/{path}"), rule.clone().into_bytes()).bearer(&token);
            assert_eq!(send(&client, rule).await.status, 200);
        }
        signal(&child, "KILL");
        timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    }
    let (_child, client) = serve(&folder).await;
    let token = admin_token(&folder);
    let listed = send(&client, Sent::get("cella-resources").bearer(&token)).await.body;
    let found: Vec<_> = listed["resources"].as_array().unwrap().iter().collect();
    assert_eq!(found.len(), expected.len());
    for (line, (path, bytes)) in found.iter().zip(&expected) {
        assert_eq!((&line["path"], &line["bytes"]), (&json!(path), &json!(bytes)));
        assert!(line["rule"]["allow-simulated"] == true);
    }
    // Three kills and four starts: still one chain, with a line for every change.
    let head = cella_kbs::audit::verify(&folder.join("state/audit.jsonl")).unwrap();
    assert_eq!(head.lines, 4 + 2 * 15);
}

#[tokio::test]
async fn audit_verify_names_the_changed_line() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("kbs");
    make_folder(dir.path());
    let (child, client) = serve(&folder).await;
    let token = admin_token(&folder);
    for index in 0..3 {
        let store = Sent::post(&format!("resource/demo/key/{index}"), b"x".to_vec()).bearer(&token);
        assert_eq!(send(&client, store).await.status, 200);
    }
    signal(&child, "TERM");
    timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();

    let log = folder.join("state/audit.jsonl");
    let (code, said) = run(&["audit-verify", log.to_str().unwrap()]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("ok: 4 lines, head "), "{said}");

    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, text.replace("demo/key/1", "demo/key/7")).unwrap();
    let (code, said) = run(&["audit-verify", log.to_str().unwrap()]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("is broken at line 4"), "{said}");
    let config = folder.join("config.toml");
    let (code, said) = run(&["serve", "--config", config.to_str().unwrap()]).await;
    assert_eq!(code, Some(1));
    assert!(
        said.contains("the audit log cannot be opened") && said.contains("is broken at line 4"),
        "{said}"
    );
}

#[tokio::test]
async fn unknown_keys_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let config = make_folder(dir.path());
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("allow-everything = true\n{text}")).unwrap();
    let (code, said) = run(&["serve", "--config", config.to_str().unwrap()]).await;
    assert_eq!(code, Some(1));
    assert!(
        said.contains("unknown field `allow-everything`") && said.contains("config.toml"),
        "{said}"
    );
}

#[tokio::test]
async fn t26_secrets_that_others_can_read_are_refused() {
    for (name, named) in [("storage.key", "storage.key"), ("server.key", "server.key")] {
        let dir = tempfile::tempdir().unwrap();
        let config = make_folder(dir.path());
        let path = dir.path().join("kbs").join(name);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let (code, said) = run(&["serve", "--config", config.to_str().unwrap()]).await;
        assert_eq!(code, Some(1));
        assert!(said.contains(named) && said.contains("has mode 0644"), "{said}");
    }
}

#[tokio::test]
async fn init_makes_a_folder_once() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("kbs");
    let arguments = [
        "init",
        "--dir",
        folder.to_str().unwrap(),
        "--name",
        "localhost",
        "--listen",
        "127.0.0.1:0",
    ];
    let (code, said) = run(&arguments).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said, format!("made {}\n", folder.join("config.toml").display()));
    let (code, said) = run(&arguments).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("this folder is initialised"), "{said}");
    let (mut child, client) = {
        let (child, _) = serve(&folder).await;
        let address = std::fs::read_to_string(folder.join("state/address")).unwrap();
        let port = address.trim().parse::<std::net::SocketAddr>().unwrap().port();
        let roots = cella_http::TlsRoots::from_pem(&std::fs::read_to_string(folder.join("ca.pem")).unwrap()).unwrap();
        let origin = format!("https://localhost:{port}").parse().unwrap();
        (
            child,
            cella_http::Client::new(origin, Some(roots), cella_http::ClientConfig::default()).unwrap(),
        )
    };
    assert_eq!(send(&client, Sent::post("auth", auth_body())).await.status, 200);
    signal(&child, "INT");
    assert_eq!(timeout(PATIENCE, child.wait()).await.unwrap().unwrap().code(), Some(0));
}
