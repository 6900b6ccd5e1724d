//! The service as containerd meets it: gRPC over the socket.
use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use prost::Message;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use super::*;
use crate::snapshotter::proto::{
    CommitRequest, CreateRequest, Empty, Info, InfoKind, InfoResponse, KeyRequest, ListResponse, MountsResponse,
    PlainRequest, UpdateRequest, UsageResponse,
};

const LAYER: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

struct Fixture {
    folder: tempfile::TempDir,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let snapshotter = Snapshotter::open(&folder.path().join("root")).unwrap();
        let server = Server::bind(&folder.path().join("run/s.sock")).unwrap();
        let (stop, stopped) = oneshot::channel();
        let log = Logger::root(slog::Discard, slog::o!());
        let server = tokio::spawn(async move {
            let nobody = Path::new("/nonexistent/containerd.sock");
            server
                .serve(snapshotter, nobody, log, async move { drop(stopped.await) })
                .await;
        });
        Self { folder, stop, server }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("run/s.sock")
    }

    async fn connect(&self) -> Client {
        let stream = UnixStream::connect(self.socket()).await.unwrap();
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        Client(sender)
    }

    async fn stop(self) -> tempfile::TempDir {
        self.stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(3), self.server)
            .await
            .expect("stops at once when idle")
            .unwrap();
        self.folder
    }
}

struct Client(SendRequest<Full<Bytes>>);

impl Client {
    async fn raw(&mut self, call: &str, body: Bytes) -> Result<Bytes, Status> {
        let request = http::Request::post(format!(
            "http://localhost/containerd.services.snapshots.v1.Snapshots/{call}"
        ))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(body))
        .unwrap();
        let response = self.0.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let early = Status::from_header_map(response.headers());
        let body = response.into_body().collect().await.unwrap();
        let late = body.trailers().and_then(Status::from_header_map);
        let status = early.or(late).expect("a gRPC status");
        if status.code() == Code::Ok {
            Ok(body.to_bytes())
        } else {
            Err(status)
        }
    }

    async fn stream<A: Message + Default>(&mut self, call: &str, request: &impl Message) -> Result<Vec<A>, Status> {
        let mut body = BytesMut::new();
        body.put_u8(0);
        body.put_u32(request.encoded_len().try_into().unwrap());
        request.encode(&mut body).unwrap();
        let answer = self.raw(call, body.freeze()).await?;
        let (mut rest, mut messages) = (answer.as_ref(), Vec::new());
        while let Some((head, tail)) = rest.split_at_checked(5) {
            assert_eq!(head[0], 0, "not compressed");
            let length = u32::from_be_bytes(head[1..].try_into().unwrap()).try_into().unwrap();
            messages.push(A::decode(&tail[..length]).unwrap());
            rest = &tail[length..];
        }
        Ok(messages)
    }

    async fn call<A: Message + Default>(&mut self, call: &str, request: &impl Message) -> Result<A, Status> {
        let mut messages = self.stream(call, request).await?;
        assert_eq!(messages.len(), 1);
        Ok(messages.remove(0))
    }

    async fn pull(&mut self) -> Status {
        self.call::<MountsResponse>("Prepare", &create("k8s.io/1/extract-1-x c", "", layer_labels()))
            .await
            .unwrap_err()
    }
}

fn create(key: &str, parent: &str, labels: BTreeMap<String, String>) -> CreateRequest {
    CreateRequest {
        snapshotter: "cella".to_owned(),
        key: key.to_owned(),
        parent: parent.to_owned(),
        labels,
    }
}

fn key(key: &str) -> KeyRequest {
    KeyRequest { key: key.to_owned() }
}

fn layer_labels() -> BTreeMap<String, String> {
    [
        ("containerd.io/snapshot.ref", LAYER),
        ("containerd.io/snapshot/cri.image-ref", "localhost:5000/demo/app:1"),
        ("containerd.io/snapshot/cri.manifest-digest", LAYER),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

#[tokio::test]
async fn every_call_of_a_pull_and_a_container() {
    let fixture = Fixture::new();
    let mut client = fixture.connect().await;
    assert_eq!(client.pull().await.code(), Code::AlreadyExists);
    assert_eq!(client.pull().await.code(), Code::AlreadyExists);

    let stat: InfoResponse = client.call("Stat", &key(LAYER)).await.unwrap();
    let layer = stat.info.unwrap();
    assert_eq!((layer.name.as_str(), layer.kind()), (LAYER, InfoKind::Committed));
    assert_eq!(layer.labels, layer_labels());
    assert!(layer.created_at.unwrap().seconds > 1_600_000_000);

    let prepared: MountsResponse = client
        .call("Prepare", &create("c", LAYER, BTreeMap::new()))
        .await
        .unwrap();
    assert_eq!(
        prepared.mounts[0].options[2],
        format!("x-cella.image=localhost:5000/demo/app@{LAYER}")
    );
    assert_eq!(
        client.call::<MountsResponse>("Mounts", &key("c")).await.unwrap(),
        prepared
    );
    let view: MountsResponse = client.call("View", &create("v", LAYER, BTreeMap::new())).await.unwrap();
    assert_eq!(view, prepared);

    let list: Vec<ListResponse> = client.stream("List", &PlainRequest {}).await.unwrap();
    let names: Vec<_> = list[0]
        .info
        .iter()
        .map(|info| (info.name.as_str(), info.kind()))
        .collect();
    assert_eq!(
        names,
        [
            ("c", InfoKind::Active),
            (LAYER, InfoKind::Committed),
            ("v", InfoKind::View)
        ]
    );
    let usage: UsageResponse = client.call("Usage", &key("c")).await.unwrap();
    assert_eq!((usage.size, usage.inodes), (0, 0));

    let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let info = Some(Info {
        name: "c".to_owned(),
        labels: labels.clone(),
        ..Info::default()
    });
    let update = UpdateRequest {
        info,
        update_mask: None,
    };
    assert_eq!(
        client
            .call::<InfoResponse>("Update", &update)
            .await
            .unwrap()
            .info
            .unwrap()
            .labels,
        labels
    );

    client.call::<Empty>("Cleanup", &PlainRequest {}).await.unwrap();
    for name in ["v", "c", LAYER] {
        client.call::<Empty>("Remove", &key(name)).await.unwrap();
    }
    assert!(
        client
            .stream::<ListResponse>("List", &PlainRequest {})
            .await
            .unwrap()
            .is_empty()
    );
    fixture.stop().await;
}

#[tokio::test]
async fn refusals_have_the_code_that_containerd_acts_upon() {
    let fixture = Fixture::new();
    let mut client = fixture.connect().await;
    client.pull().await;
    client
        .call::<MountsResponse>("Prepare", &create("c", LAYER, BTreeMap::new()))
        .await
        .unwrap();
    for (call, name, code) in [
        ("Stat", "nobody", Code::NotFound),
        ("Mounts", "nobody", Code::NotFound),
        ("Mounts", LAYER, Code::FailedPrecondition),
        ("Usage", "nobody", Code::NotFound),
        ("Remove", "nobody", Code::NotFound),
        ("Remove", LAYER, Code::FailedPrecondition),
        ("Nothing", "c", Code::Unimplemented),
    ] {
        assert_eq!(
            client.call::<Empty>(call, &key(name)).await.unwrap_err().code(),
            code,
            "{call} {name}"
        );
    }
    for (name, parent, code) in [
        ("c", LAYER, Code::AlreadyExists),
        ("d", "c", Code::InvalidArgument),
        ("d", "nobody", Code::NotFound),
    ] {
        let refused = client
            .call::<MountsResponse>("Prepare", &create(name, parent, BTreeMap::new()))
            .await;
        assert_eq!(refused.unwrap_err().code(), code, "{name} {parent}");
    }
    let commit = client
        .call::<Empty>(
            "Commit",
            &CommitRequest {
                name: "n".to_owned(),
                key: "c".to_owned(),
                labels: BTreeMap::new(),
            },
        )
        .await
        .unwrap_err();
    assert_eq!(commit.code(), Code::Unimplemented);
    let mut labels = layer_labels();
    labels.remove("containerd.io/snapshot/cri.image-ref");
    let kept = client
        .call::<MountsResponse>("Prepare", &create("default/7/extract-1-x c", "", labels))
        .await;
    assert_eq!(kept.unwrap_err().code(), Code::AlreadyExists);
    fixture.stop().await;
}

#[tokio::test]
async fn an_image_of_another_snapshotter_is_unpacked_into_nothing() {
    let fixture = Fixture::new();
    let mut client = fixture.connect().await;
    let (extraction, layer) = (format!("k8s.io/8/extract-1-x {LAYER}"), format!("k8s.io/9/{LAYER}"));
    let mounts: MountsResponse = client
        .call("Prepare", &create(&extraction, "", BTreeMap::new()))
        .await
        .unwrap();
    let folder = PathBuf::from(&mounts.mounts[0].source);
    std::fs::write(folder.join("file"), "layer").unwrap();
    let commit = CommitRequest {
        name: layer.clone(),
        key: extraction.clone(),
        labels: BTreeMap::new(),
    };
    client.call::<Empty>("Commit", &commit).await.unwrap();
    assert!(!folder.exists());
    let usage: UsageResponse = client.call("Usage", &key(&layer)).await.unwrap();
    assert_eq!((usage.size, usage.inodes), (0, 0));
    let root: MountsResponse = client
        .call("Prepare", &create("k8s.io/10/c", &layer, BTreeMap::new()))
        .await
        .unwrap();
    let passwd = std::fs::read_to_string(Path::new(&root.mounts[0].source).join("etc/passwd")).unwrap();
    assert!(passwd.contains("\nnobody:x:"), "{passwd}");
    fixture.stop().await;
}

#[tokio::test]
async fn messages_that_are_none_are_refused() {
    let fixture = Fixture::new();
    let mut client = fixture.connect().await;
    for body in [
        &b"\0\0\0\0\x02\x12\x05"[..],
        b"\0\0\0\0\x02\xff\xff",
        b"\0\xff\xff\xff\xff",
        b"\x01\0\0\0\0",
        b"\0\0",
    ] {
        for call in ["Prepare", "List"] {
            // An unknown field of a list is skipped, everything else is wrong for both.
            if let Ok(answer) = client.raw(call, Bytes::from_static(body)).await {
                assert_eq!((call, answer.len()), ("List", 0), "{body:?}");
            }
        }
    }
    client.pull().await;
    fixture.stop().await;
}

#[tokio::test]
async fn many_snapshots_are_listed_in_parts() {
    let fixture = Fixture::new();
    let mut client = fixture.connect().await;
    for number in 0..150 {
        client
            .call::<MountsResponse>("Prepare", &create(&format!("{number:03}"), "", BTreeMap::new()))
            .await
            .unwrap();
    }
    let list: Vec<ListResponse> = client.stream("List", &PlainRequest {}).await.unwrap();
    assert_eq!(list.iter().map(|part| part.info.len()).collect::<Vec<_>>(), [100, 50]);
    fixture.stop().await;
}

#[tokio::test]
async fn the_socket_is_private_and_goes_with_the_server() {
    let fixture = Fixture::new();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let socket = fixture.socket();
    assert_eq!((mode(&socket), mode(socket.parent().unwrap())), (0o600, 0o700));
    let _idle = fixture.connect().await;
    let folder = fixture.stop().await;
    assert_eq!(fs::read_dir(folder.path().join("run")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_has_the_socket_s_name_is_looked_at_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = Server::bind(&path).unwrap();
    assert!(
        matches!(Server::bind(&path), Err(BindError::InUse { .. })),
        "somebody listens"
    );
    drop(server);
    assert!(!path.exists());
    fs::write(&path, b"").unwrap();
    assert!(matches!(Server::bind(&path), Err(BindError::NotASocket { .. })));
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(Server::bind(&path), Err(BindError::OpenFolder { .. })));
}
