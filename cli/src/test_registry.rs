//! A registry in memory, for tests: pull and push on a port of its own, plain http; and what can go wrong with one.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use cella_oci::Digest;
use http::header::{CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
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
    /// Under way, by number.
    sessions: HashMap<usize, Vec<u8>>,
    next_session: usize,
    uploads: usize,
    received: usize,
    ranges: Vec<String>,
    faults: VecDeque<(Method, Fault)>,
}

/// What goes wrong with the next request of a method for a blob.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// It is answered with this status.
    Status(u16),
    /// `GET`: so many bytes come, then the connection breaks. `PATCH`: so many are kept, then it breaks.
    Cut(usize),
    /// The session is forgotten.
    Forget,
    /// Nothing; for what comes behind it.
    None,
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

    /// How many bytes of blobs were received, those that were thrown away too.
    pub(crate) fn received(&self) -> usize {
        self.state.lock().unwrap().received
    }

    /// The ranges that were asked for, in order.
    pub(crate) fn ranges(&self) -> Vec<String> {
        self.state.lock().unwrap().ranges.clone()
    }

    /// The blob that a digest names.
    pub(crate) fn blob(&self, digest: &Digest) -> Option<Bytes> {
        self.state.lock().unwrap().blobs.get(&digest.to_string()).cloned()
    }

    /// Lets the next requests of a method go wrong, one after another.
    pub(crate) fn fail(&self, method: Method, faults: &[Fault]) {
        let mut state = self.state.lock().unwrap();
        state.faults.extend(faults.iter().map(|fault| (method.clone(), *fault)));
    }

    /// Removes every blob longer than `least` bytes.
    pub(crate) fn lose(&self, least: usize) {
        self.state.lock().unwrap().blobs.retain(|_, blob| blob.len() <= least);
    }

    /// Takes over what another registry holds.
    pub(crate) fn mirror(&self, other: &Self) {
        let other = other.state.lock().unwrap();
        let mut state = self.state.lock().unwrap();
        state.blobs = other.blobs.clone();
        state.manifests = other.manifests.clone();
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

/// Bytes, and then perhaps the end of the connection.
#[derive(Default)]
struct Answer {
    bytes: Option<Bytes>,
    length: u64,
    /// What there is was given time to be sent.
    rested: bool,
}

impl From<Bytes> for Answer {
    fn from(bytes: Bytes) -> Self {
        Self {
            rested: false,
            length: bytes.len() as u64,
            bytes: Some(bytes),
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Poll::Ready(match self.bytes.take().filter(|bytes| !bytes.is_empty()) {
            Some(bytes) => {
                self.length -= bytes.len() as u64;
                Some(Ok(Frame::data(bytes)))
            }
            None if self.length > 0 && !self.rested => {
                self.rested = true;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            None if self.length > 0 => Some(Err(io::ErrorKind::ConnectionReset.into())),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.length == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Response<Answer>, io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let path = head.uri.path().strip_prefix("/v2/").unwrap().to_owned();
    let mut state = state.lock().unwrap();
    let mut fault = Fault::None;
    if path.contains("/blobs/") && state.faults.front().is_some_and(|(method, _)| *method == head.method) {
        fault = state.faults.pop_front().unwrap().1;
    }
    let reply = Response::builder();
    if let Fault::Status(status) = fault {
        return Ok(reply.status(status).body(Answer::default()).unwrap());
    }
    let query = head.uri.query().unwrap_or_default();
    let response = if let Some((_, session)) = path.split_once("/blobs/uploads/") {
        upload(&mut state, &head.method, &path, session, query, body, fault)?
    } else if let Some((_, digest)) = path.split_once("/blobs/") {
        match state.blobs.get(digest).cloned() {
            Some(blob) => {
                let range = head.headers.get(RANGE).map(|range| range.to_str().unwrap().to_owned());
                state.ranges.extend(range.clone());
                serve(&blob, range.as_deref(), fault)
            }
            None => reply.status(StatusCode::NOT_FOUND).body(Answer::default()).unwrap(),
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
            reply.status(StatusCode::CREATED).body(Answer::default()).unwrap()
        } else {
            match state.manifests.get(&format!("{repository}/{reference}")) {
                Some((kind, bytes)) => reply.header(CONTENT_TYPE, kind).body(bytes.clone().into()).unwrap(),
                None => reply.status(StatusCode::NOT_FOUND).body(Answer::default()).unwrap(),
            }
        }
    };
    Ok(response)
}

fn serve(blob: &Bytes, range: Option<&str>, fault: Fault) -> Response<Answer> {
    let range = range.map(|range| {
        let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        first.parse::<usize>().unwrap()..last.parse::<usize>().unwrap() + 1
    });
    let total = blob.len();
    let reply = Response::builder();
    let (reply, bytes) = match range {
        Some(range) => (
            reply.status(StatusCode::PARTIAL_CONTENT).header(
                CONTENT_RANGE,
                format!("bytes {}-{}/{total}", range.start, range.end - 1),
            ),
            blob.slice(range),
        ),
        None => (reply, blob.clone()),
    };
    let mut answer = Answer::from(bytes);
    if let (Fault::Cut(at), Some(bytes)) = (fault, &mut answer.bytes) {
        bytes.truncate(at);
    }
    reply.body(answer).unwrap()
}

fn upload(
    state: &mut State,
    method: &Method,
    path: &str,
    session: &str,
    query: &str,
    body: Bytes,
    fault: Fault,
) -> io::Result<Response<Answer>> {
    let reply = Response::builder();
    if session.is_empty() {
        state.next_session += 1;
        let number = state.next_session;
        state.sessions.insert(number, Vec::new());
        let place = format!("/v2/{path}{number}");
        return Ok(reply
            .status(StatusCode::ACCEPTED)
            .header(LOCATION, place)
            .body(Answer::default())
            .unwrap());
    }
    let number: usize = session.parse().unwrap();
    if matches!(fault, Fault::Forget) {
        state.sessions.remove(&number);
    }
    let Some(content) = state.sessions.get_mut(&number) else {
        return Ok(reply.status(StatusCode::NOT_FOUND).body(Answer::default()).unwrap());
    };
    state.received += body.len();
    if let Fault::Cut(at) = fault {
        content.extend_from_slice(&body[..at]);
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    content.extend_from_slice(&body);
    if *method == Method::PUT {
        let digest = query.rsplit_once("digest=").unwrap().1.to_owned();
        let bytes = Bytes::from(state.sessions.remove(&number).unwrap());
        let genuine = Digest::of(&bytes).to_string() == digest;
        if genuine {
            state.blobs.insert(digest, bytes);
            state.uploads += 1;
        }
        let status = if genuine {
            StatusCode::CREATED
        } else {
            StatusCode::BAD_REQUEST
        };
        return Ok(reply.status(status).body(Answer::default()).unwrap());
    }
    let status = if *method == Method::PATCH {
        StatusCode::ACCEPTED
    } else {
        StatusCode::NO_CONTENT
    };
    let reply = reply.status(status).header(LOCATION, format!("/v2/{path}"));
    let reply = match content.len() {
        0 => reply,
        length => reply.header(RANGE, format!("0-{}", length - 1)),
    };
    Ok(reply.body(Answer::default()).unwrap())
}
