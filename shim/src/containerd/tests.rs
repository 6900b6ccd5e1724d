//! The client against a server that answers like containerd.
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use prost::Message;
use tokio::net::UnixListener;

use super::proto::{Container, Image, Info};
use super::*;

const MANIFEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
const INDEX: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";

/// What a fake containerd knows.
#[derive(Default)]
struct Known {
    containers: BTreeMap<String, String>,
    images: BTreeMap<String, Descriptor>,
    blobs: BTreeMap<String, Vec<u8>>,
    asked: Mutex<Vec<String>>,
}

struct Fake {
    folder: tempfile::TempDir,
    known: Arc<Known>,
}

impl Fake {
    fn start(known: Known) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("c.sock")).unwrap();
        let known = Arc::new(known);
        let shared = known.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let known = shared.clone();
                let service = service_fn(move |request| answer(known.clone(), request));
                let connection =
                    http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self { folder, known }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("c.sock")
    }
}

type Parts = futures::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>;

async fn answer(known: Arc<Known>, request: Request<Incoming>) -> Result<Response<StreamBody<Parts>>, Infallible> {
    let namespace = request
        .headers()
        .get("containerd-namespace")
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let call = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body = body.slice(5..);
    known.asked.lock().unwrap().push(format!("{namespace} {call}"));
    let messages: Option<Vec<Vec<u8>>> = match call.rsplit('.').next().unwrap() {
        "Containers/Get" => {
            let id = GetContainerRequest::decode(body).unwrap().id;
            known.containers.get(&id).map(|image| {
                let container = Some(Container { image: image.clone() });
                vec![GetContainerResponse { container }.encode_to_vec()]
            })
        }
        "Images/Get" => {
            let name = GetImageRequest::decode(body).unwrap().name;
            known.images.get(&name).map(|target| {
                let image = Some(Image {
                    target: Some(target.clone()),
                });
                vec![GetImageResponse { image }.encode_to_vec()]
            })
        }
        "Content/Read" => {
            let digest = ReadContentRequest::decode(body).unwrap().digest;
            known.blobs.get(&digest).map(|blob| {
                let parts = blob
                    .chunks(7)
                    .map(|part| ReadContentResponse { data: part.to_vec() }.encode_to_vec());
                parts.collect()
            })
        }
        "Content/List" => {
            let filters = ListContentRequest::decode(body).unwrap().filters;
            assert_eq!(
                filters,
                ["labels.\"containerd.io/gc.ref.snapshot.cella\"==\"sha256:00\""]
            );
            let info = known
                .blobs
                .keys()
                .map(|digest| Info { digest: digest.clone() })
                .collect();
            Some(vec![ListContentResponse { info }.encode_to_vec()])
        }
        other => panic!("{other}"),
    };
    let status = if messages.is_some() { "0" } else { "5" };
    let mut frames: Vec<_> = messages
        .unwrap_or_default()
        .into_iter()
        .map(|message| {
            let mut frame = BytesMut::new();
            frame.put_u8(0);
            frame.put_u32(message.len().try_into().unwrap());
            frame.extend_from_slice(&message);
            Ok(Frame::data(frame.freeze()))
        })
        .collect();
    let trailers = [(http::HeaderName::from_static("grpc-status"), status.parse().unwrap())];
    frames.push(Ok(Frame::trailers(trailers.into_iter().collect())));
    let body = StreamBody::new(futures::stream::iter(frames));
    let response = Response::builder().header("content-type", "application/grpc");
    Ok(response.body(body).unwrap())
}

fn target(media_type: &str, digest: &str) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: digest.to_owned(),
    }
}

#[tokio::test]
async fn an_image_encrypted_again_is_offered_by_its_new_digest() {
    let name = "localhost:5000/demo/app:1".to_owned();
    let known = Known {
        containers: [("c".to_owned(), name.clone())].into(),
        images: [(name, target("application/vnd.oci.image.manifest.v1+json", MANIFEST))].into(),
        ..Default::default()
    };
    let fake = Fake::start(known);
    let found = candidates(&fake.socket(), "k8s.io", "c", None).await.unwrap();
    let old = format!("localhost:5000/demo/app@{INDEX}");
    let all = merge(found, Ok(vec![old.clone()])).unwrap();
    assert_eq!(all, [format!("localhost:5000/demo/app@{MANIFEST}"), old]);
    let asked = fake.known.asked.lock().unwrap().clone();
    assert_eq!(
        asked,
        [
            "k8s.io /containerd.services.containers.v1.Containers/Get",
            "k8s.io /containerd.services.images.v1.Images/Get"
        ]
    );
}

#[tokio::test]
async fn an_index_leads_to_the_manifest_and_the_pods_own_name_comes_first() {
    let arch = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let index =
        format!(r#"{{"manifests":[{{"digest":"{MANIFEST}","platform":{{"os":"linux","architecture":"{arch}"}}}}]}}"#);
    let other = MANIFEST.replace('1', "3");
    let known = Known {
        containers: [("c".to_owned(), format!("docker.io/library/app@{other}"))].into(),
        images: [
            (
                "docker.io/library/app:2".to_owned(),
                target("application/vnd.oci.image.index.v1+json", INDEX),
            ),
            (format!("docker.io/library/app@{other}"), target("", &other)),
        ]
        .into(),
        blobs: [(INDEX.to_owned(), index.into_bytes())].into(),
        ..Default::default()
    };
    let fake = Fake::start(known);
    let found = candidates(&fake.socket(), "k8s.io", "c", Some("app:2")).await.unwrap();
    assert_eq!(
        found,
        [
            format!("docker.io/library/app@{MANIFEST}"),
            format!("docker.io/library/app@{other}")
        ]
    );
    // A name that containerd does not have is no failure.
    let found = candidates(&fake.socket(), "k8s.io", "c", Some("what:ever"))
        .await
        .unwrap();
    assert_eq!(found, [format!("docker.io/library/app@{other}")]);
}

#[tokio::test]
async fn what_is_not_there_is_told_apart_from_failures() {
    let fake = Fake::start(Known::default());
    let error = candidates(&fake.socket(), "k8s.io", "c", None).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    let error = candidates(Path::new("/nonexistent"), "k8s.io", "c", None)
        .await
        .unwrap_err();
    assert!(matches!(error, ContainerdError::Connect { .. }));
    let error = Client::connect(&fake.socket(), "a\nb").await.err().unwrap();
    assert!(matches!(error, ContainerdError::Namespace { .. }));
}

#[tokio::test]
async fn blobs_are_found_by_label_and_read_within_bounds() {
    let known = Known {
        blobs: [(MANIFEST.to_owned(), b"0123456789".to_vec())].into(),
        ..Default::default()
    };
    let fake = Fake::start(known);
    let socket = PathBuf::from(format!("unix://{}", fake.socket().display()));
    let mut client = Client::connect(&socket, "default").await.unwrap();
    let found = client
        .labelled("containerd.io/gc.ref.snapshot.cella", "sha256:00")
        .await
        .unwrap();
    assert_eq!(found, [MANIFEST]);
    assert_eq!(client.read(MANIFEST, 10).await.unwrap(), b"0123456789");
    assert!(matches!(
        client.read(MANIFEST, 9).await,
        Err(ContainerdError::Invalid { .. })
    ));
    assert!(client.read(INDEX, 9).await.unwrap_err().is_not_found());
}
