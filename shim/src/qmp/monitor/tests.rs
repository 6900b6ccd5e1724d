use slog::{Discard, o};
use tokio::io::AsyncReadExt;

use super::*;

const GREETING: &[u8] = b"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 2, \"minor\": 0, \"major\": 10}}}}\r\n";

fn log() -> Logger {
    Logger::root(Discard, o!())
}

/// QEMU's side of a monitor that has been greeted.
async fn greeted() -> (Monitor, mpsc::Receiver<Event>, UnixStream) {
    let (ours, mut qemu) = UnixStream::pair().unwrap();
    let side = async {
        qemu.write_all(GREETING).await.unwrap();
        assert_eq!(line(&mut qemu).await, "{\"execute\":\"qmp_capabilities\",\"id\":1}");
        qemu.write_all(b"{\"return\": {}, \"id\": 1}\r\n").await.unwrap();
    };
    let (started, ()) = tokio::join!(Monitor::start(ours, log()), side);
    let (monitor, events) = started.unwrap();
    (monitor, events, qemu)
}

async fn line(stream: &mut UnixStream) -> String {
    let mut out = Vec::new();
    loop {
        match stream.read_u8().await.unwrap() {
            b'\n' => return String::from_utf8(out).unwrap(),
            byte => out.push(byte),
        }
    }
}

#[tokio::test]
async fn commands_are_matched_by_id_and_events_pass_between() {
    let (monitor, mut events, mut qemu) = greeted().await;
    let side = async {
        assert_eq!(line(&mut qemu).await, "{\"execute\":\"query-status\",\"id\":2}");
        qemu.write_all(b"{\"event\": \"RESET\"}\n{\"return\": {\"status\": \"x\"}, \"id\": 99}\n")
            .await
            .unwrap();
        qemu.write_all(b"{\"return\": {\"sta").await.unwrap();
        qemu.write_all(b"tus\": \"running\"}, \"id\": 2}\n").await.unwrap();
    };
    let (status, ()) = tokio::join!(monitor.status(), side);
    assert_eq!(status.unwrap(), "running");
    assert_eq!(events.recv().await, Some(Event::Reset));
}

#[tokio::test]
async fn refusals_and_closing_have_their_variants() {
    let (monitor, _events, mut qemu) = greeted().await;
    let side = async {
        line(&mut qemu).await;
        qemu.write_all(b"{\"error\": {\"desc\": \"not now\"}, \"id\": 2}\n")
            .await
            .unwrap();
    };
    let (status, ()) = tokio::join!(monitor.status(), side);
    assert!(matches!(status, Err(MonitorError::Refused { command: "query-status", text }) if text == "not now"));
    let side = async {
        line(&mut qemu).await;
        drop(qemu);
    };
    let (quit, ()) = tokio::join!(monitor.quit(), side);
    quit.unwrap();
    assert!(matches!(monitor.status().await, Err(MonitorError::Closed)));
}

#[tokio::test]
async fn who_does_not_greet_is_refused() {
    for opening in [&b"{\"return\": {}}\n"[..], b""] {
        let (ours, mut qemu) = UnixStream::pair().unwrap();
        qemu.write_all(opening).await.unwrap();
        drop(qemu);
        assert!(matches!(
            Monitor::start(ours, log()).await,
            Err(MonitorError::NoGreeting)
        ));
    }
    let (ours, mut qemu) = UnixStream::pair().unwrap();
    qemu.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let refused = Monitor::start(ours, log()).await;
    assert!(matches!(
        refused,
        Err(MonitorError::Line {
            source: LineError::Json { .. }
        })
    ));
}

#[tokio::test]
async fn an_endless_line_is_cut_off() {
    let (ours, mut qemu) = UnixStream::pair().unwrap();
    let flood = tokio::spawn(async move { while qemu.write_all(&[b'a'; 4096]).await.is_ok() {} });
    let refused = Monitor::start(ours, log()).await;
    assert!(matches!(
        refused,
        Err(MonitorError::Line {
            source: LineError::TooLong
        })
    ));
    flood.await.unwrap();
}
