//! Programs that stand in for the real ones. Which, and how they misbehave, comes from two environment variables that the
//! scripts of [`crate::host`] set, since the shim clears the environment.

mod agent;
mod exec;
mod nonsense;
mod qemu;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixListener;

/// Longest life of a stand-in: a test that forgot one does not keep it for ever.
const LIFETIME: Duration = Duration::from_secs(120);

/// Not a test: the entry point of the stand-ins.
#[test]
fn program() {
    let Ok(program) = std::env::var("CELLA_FAKE_PROGRAM") else {
        return;
    };
    let mode = std::env::var("CELLA_FAKE_MODE").unwrap_or_default();
    let arguments: Vec<String> = std::env::var("CELLA_FAKE_ARGUMENTS")
        .unwrap()
        .split('\u{1f}')
        .map(str::to_owned)
        .collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let code = runtime.block_on(async {
        let run = async {
            match program.as_str() {
                "qemu" => qemu::run(&arguments, &mode).await,
                "vsock" => agent::run(&arguments, &mode).await,
                "platform" => platform(&arguments).await,
                "parent" => parent().await,
                other => panic!("no stand-in {other}"),
            }
        };
        tokio::time::timeout(LIFETIME, run).await.unwrap_or(99)
    });
    // Not through libtest, which would print.
    std::process::exit(code);
}

/// The value after `switch`.
fn value_of<'a>(arguments: &'a [String], switch: &str) -> &'a str {
    let at = arguments.iter().position(|argument| argument == switch).unwrap();
    &arguments[at + 1]
}

/// The value of `key` in `key=value,…`.
fn option_of(options: &str, key: &str) -> PathBuf {
    let prefix = format!("{key}=");
    options
        .split(',')
        .find_map(|option| option.strip_prefix(&prefix))
        .unwrap()
        .into()
}

async fn platform(arguments: &[String]) -> i32 {
    assert!(Path::new(value_of(arguments, "--firmware")).exists());
    let _listener = UnixListener::bind(value_of(arguments, "--socket")).unwrap();
    std::future::pending().await
}

/// Stands in for the shim itself: starts a child as the shim does, says which, and waits to be killed.
async fn parent() -> i32 {
    let log = slog::Logger::root(slog::Discard, slog::o!());
    let spawner = cella_shim::process::Spawner::start().unwrap();
    let program = cella_shim::process::Program {
        name: "sleep",
        path: "/bin/sleep".into(),
        arguments: vec!["100".into()],
    };
    let child = spawner.spawn(&program, &log).await.unwrap();
    let file = std::env::var("CELLA_FAKE_FILE").unwrap();
    std::fs::write(format!("{file}.new"), serde_json::to_vec(child.identity()).unwrap()).unwrap();
    std::fs::rename(format!("{file}.new"), file).unwrap();
    std::future::pending().await
}
