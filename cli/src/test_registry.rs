//! A registry in memory, for tests: pull and push on a port of its own, plain http.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cella_oci::Digest;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Runs until it is dropped.
pub(crate) struct TestRegistry {
    /// `127.0.0.1:<port>`.
    pub(crate) name: String,
    state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct State {
    blobs: HashMap<String, Bytes>,
    /// By `<repository>/<tag or digest>`: media type and bytes.
    manifests: HashMap<String, (String, Bytes)>,
    uploads: usize,
}

impl TestRegistry {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = Arc::clone(&shared);
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&state), request));
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await
                });
            }
        });
        Self { name, state, task }
    }

    /// How many blobs were uploaded.
    pub(crate) fn uploads(&self) -> usize {
        self.state.lock().unwrap().uploads
    }

    /// Flips one bit in the middle of every blob longer than `least` bytes.
    pub(crate) fn damage(&self, least: usize) {
        for blob in self
            .state
            .lock()
            .unwrap()
            .blobs
            .values_mut()
            .filter(|blob| blob.len() > least)
        {
            let mut bytes = blob.to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            *blob = bytes.into();
        }
    }
}

impl Drop for TestRegistry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let path = head.uri.path().strip_prefix("/v2/").unwrap().to_owned();
    let mut state = state.lock().unwrap();
    let reply = Response::builder();
    let response = if path.ends_with("/blobs/uploads/") && head.method == Method::POST {
        reply
            .status(StatusCode::ACCEPTED)
            .header(LOCATION, format!("/v2/{path}1"))
            .body(Full::default())
    } else if path.contains("/blobs/uploads/") {
        let digest = head.uri.query().unwrap().rsplit_once("digest=").unwrap().1.to_owned();
        let genuine = Digest::of(&body).to_string() == digest;
        state.blobs.insert(digest, body);
        state.uploads += 1;
        reply
            .status(if genuine {
                StatusCode::CREATED
            } else {
                StatusCode::BAD_REQUEST
            })
            .body(Full::default())
    } else if let Some((_, digest)) = path.split_once("/blobs/") {
        match state.blobs.get(digest) {
            Some(blob) => reply.body(Full::new(blob.clone())),
            None => reply.status(StatusCode::NOT_FOUND).body(Full::default()),
        }
    } else {
        let (repository, reference) = path.split_once("/manifests/").unwrap();
        if head.method == Method::PUT {
            let kind = head.headers[CONTENT_TYPE].to_str().unwrap().to_owned();
            for reference in [reference, &Digest::of(&body).to_string()] {
                state
                    .manifests
                    .insert(format!("{repository}/{reference}"), (kind.clone(), body.clone()));
            }
            reply.status(StatusCode::CREATED).body(Full::default())
        } else {
            match state.manifests.get(&format!("{repository}/{reference}")) {
                Some((kind, bytes)) => reply.header(CONTENT_TYPE, kind).body(Full::new(bytes.clone())),
                None => reply.status(StatusCode::NOT_FOUND).body(Full::default()),
            }
        }
    };
    Ok(response.unwrap())
}
