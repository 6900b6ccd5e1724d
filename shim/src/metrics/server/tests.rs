use std::collections::BTreeSet;

use super::*;
use crate::metrics::global;

fn server(dir: &Path) -> Server {
    let facts = VmFacts {
        tee: "sim",
        accel: "tcg".into(),
        vcpus: 2,
        memory_mib: 1024,
    };
    Server::start(dir, global(), facts, Logger::root(slog::Discard, slog::o!())).unwrap()
}

async fn ask(dir: &Path, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(dir.join(SOCKET)).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_page_is_prometheus_text() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    server.handle().qemu(std::process::id());
    global().refused("Create", ttrpc::Code::PERMISSION_DENIED);
    let answer = ask(dir.path(), b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
    check(body);
    for line in [
        "cella_shim_info{version=\"0.1.0\",tee=\"sim\",accel=\"tcg\"} 1\n",
        "cella_vm_memory_bytes 1073741824\n",
        "cella_guest_up 0\n",
    ] {
        assert!(body.contains(line), "{line} in {body}");
    }
    assert!(body.contains("\ncella_vm_resident_memory_bytes "), "{body}");
}

#[tokio::test]
async fn the_trace_is_json() {
    let dir = tempfile::tempdir().unwrap();
    let _server = server(dir.path());
    drop(trace::global().step("qemu", "of a test"));
    let answer = ask(dir.path(), b"GET /trace HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"),
        "{head}"
    );
    let value: serde_json::Value = serde_json::from_str(body).unwrap();
    let spans = value["spans"].as_array().unwrap();
    let span = spans.iter().find(|span| span["subject"] == "of a test").unwrap();
    assert_eq!(span["name"], "qemu");
    assert!(span["end_us"].as_u64() >= span["start_us"].as_u64());
    assert!(value["now_us"].as_u64() >= span["end_us"].as_u64());
}

#[tokio::test]
async fn the_socket_is_private_and_goes_silent_with_its_server() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let mode = std::fs::metadata(dir.path().join(SOCKET)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(server);
    tokio::task::yield_now().await;
    let gone = timeout(Duration::from_secs(5), async {
        while UnixStream::connect(dir.path().join(SOCKET)).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    gone.await.unwrap();
}

#[tokio::test]
async fn other_requests_are_refused_and_floods_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    let _server = server(dir.path());
    for (request, status) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", "405"),
        (b"hello\r\n\r\n", "400"),
        (b"GET /metrics HTTP/2\r\n\r\n", "400"),
    ] {
        let answer = ask(dir.path(), request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    let flood = vec![b'x'; MAX_HEAD];
    assert!(ask(dir.path(), &flood).await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn silent_clients_do_not_keep_others_out_for_long() {
    let dir = tempfile::tempdir().unwrap();
    let _server = server(dir.path());
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS + 1 {
        silent.push(UnixStream::connect(dir.path().join(SOCKET)).await.unwrap());
    }
    let patience = CONNECTION * 4;
    let answer = timeout(patience, ask(dir.path(), b"GET /metrics HTTP/1.1\r\n\r\n"));
    assert!(answer.await.unwrap().starts_with("HTTP/1.1 200 "));
}

/// What a scraper checks: each family once, with help and type before its samples, names of the allowed letters, values that
/// are numbers, no sample twice, counters that say so.
fn check(text: &str) {
    let (mut families, mut samples) = (BTreeSet::new(), BTreeSet::new());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let (name, help) = line.strip_prefix("# HELP ").unwrap().split_once(' ').unwrap();
        assert!(!help.is_empty() && families.insert(name), "{line}");
        assert!(
            name.starts_with("cella_") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
            "{name}"
        );
        let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {name} ")).unwrap();
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        assert!(kind == "counter" || kind == "gauge", "{kind}");
        while let Some(sample) = lines.next_if(|line| !line.starts_with('#')) {
            let (series, value) = sample.rsplit_once(' ').unwrap();
            assert_eq!(series.split('{').next(), Some(name));
            assert!(value.parse::<f64>().unwrap() >= 0.0, "{sample}");
            assert!(samples.insert(series), "{series} twice");
        }
    }
}
