//! Stands in for QEMU: console, monitor, pid file; ends by `quit` or when the guest powers off.

use std::path::PathBuf;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};

use super::{option_of, value_of};

pub(super) async fn run(arguments: &[String], mode: &str) -> i32 {
    if mode == "qemu-fails" {
        eprintln!("qemu-system-x86_64: -machine q35: no such machine");
        return 1;
    }
    std::fs::write(value_of(arguments, "-pidfile"), std::process::id().to_string()).unwrap();
    // The guest's power-off arrives as SIGTERM.
    let mut power_off = signal(SignalKind::terminate()).unwrap();
    let chardev = arguments
        .iter()
        .find(|argument| argument.starts_with("socket,id=console0"))
        .unwrap();
    let mut console = UnixStream::connect(option_of(chardev, "path")).await.unwrap();
    console
        .write_all(b"Booting...\r\nagent: hello\x1b[31m\r\n")
        .await
        .unwrap();
    let qmp: PathBuf = value_of(arguments, "-qmp")
        .strip_prefix("unix:")
        .unwrap()
        .split(',')
        .next()
        .unwrap()
        .into();
    let monitor = UnixStream::connect(qmp).await.unwrap();
    tokio::select! {
        _ = power_off.recv() => {
            console.write_all(b"reboot: Power down\r\n").await.unwrap();
            0
        }
        () = serve(monitor) => 0,
    }
}

/// Returns at `quit`.
async fn serve(monitor: UnixStream) {
    let mut monitor = BufReader::new(monitor);
    let greeting =
        "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 2, \"minor\": 0, \"major\": 10}}, \"capabilities\": []}}\r\n";
    monitor.write_all(greeting.as_bytes()).await.unwrap();
    let mut line = String::new();
    loop {
        line.clear();
        if monitor.read_line(&mut line).await.unwrap() == 0 {
            std::future::pending::<()>().await;
        }
        let command: serde_json::Value = serde_json::from_str(&line).unwrap();
        let answer = serde_json::json!({ "return": {}, "id": command["id"] });
        monitor.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
        if command["execute"] == "quit" {
            return;
        }
    }
}
