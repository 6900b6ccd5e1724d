//! containerd's calls as messages: from each request to one call of [`Snapshotter`], and back.
use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use http::Request;
use hyper::body::Incoming;
use prost_types::Timestamp;
use slog::{Logger, debug, info, warn};
use tonic::codegen::tokio_stream;
use tonic::server::{Grpc, ServerStreamingService, UnaryService};
use tonic::{Code, Response, Status};
use tonic_prost::ProstCodec;

use crate::snapshotter::lookup::Lookup;
use crate::snapshotter::proto::{
    CommitRequest, CreateRequest, Empty, Info, InfoKind, InfoResponse, KeyRequest, ListResponse, Mount, MountsResponse,
    PlainRequest, UpdateRequest, UsageResponse,
};
use crate::snapshotter::service::{SnapshotError, Snapshotter, is_layer};
use crate::snapshotter::snapshot::{self, Kind, Snapshot};

type Answer = http::Response<tonic::body::Body>;

/// The service as connections share it.
#[derive(Clone)]
pub(super) struct Service {
    snapshotter: Arc<Mutex<Snapshotter>>,
    lookup: Lookup,
    log: Logger,
}

impl Service {
    pub(super) fn new(snapshotter: Snapshotter, lookup: Lookup, log: Logger) -> Self {
        Self {
            snapshotter: Arc::new(Mutex::new(snapshotter)),
            lookup,
            log,
        }
    }

    /// Answers one HTTP/2 request. Never fails: what goes wrong is a gRPC status in the answer.
    pub(super) async fn answer(self, request: Request<Incoming>) -> Result<Answer, Infallible> {
        let call = request.uri().path().strip_prefix(PREFIX).unwrap_or_default().to_owned();
        Ok(match call.as_str() {
            "Prepare" => self.create(request, "Prepare", true).await,
            "View" => self.create(request, "View", false).await,
            "Mounts" => {
                self.unary(request, "Mounts", |s, r: KeyRequest| {
                    s.mounts(&r.key).map(mounts_response)
                })
                .await
            }
            "Commit" => {
                self.unary(request, "Commit", |s, r: CommitRequest| {
                    s.commit(&r.name, &r.key, r.labels, now_ms()).map(|()| Empty {})
                })
                .await
            }
            "Remove" => {
                self.unary(request, "Remove", |s, r: KeyRequest| {
                    s.remove(&r.key).map(|()| Empty {})
                })
                .await
            }
            "Stat" => self.unary(request, "Stat", stat).await,
            "Update" => self.unary(request, "Update", update).await,
            "Usage" => self.unary(request, "Usage", usage).await,
            "Cleanup" => self.unary(request, "Cleanup", |_, _: PlainRequest| Ok(Empty {})).await,
            "List" => self.list(request).await,
            _ => Status::unimplemented("the snapshotter has no such call").into_http(),
        })
    }

    async fn unary<Q, A>(
        self,
        request: Request<Incoming>,
        name: &'static str,
        call: fn(&mut Snapshotter, Q) -> Result<A, SnapshotError>,
    ) -> Answer
    where
        Q: prost::Message + Default + 'static,
        A: prost::Message + Default + 'static,
    {
        let unary = Unary {
            service: self,
            name,
            call,
        };
        Grpc::new(ProstCodec::<A, Q>::default()).unary(unary, request).await
    }

    async fn create(self, request: Request<Incoming>, name: &'static str, active: bool) -> Answer {
        let create = Create {
            service: self,
            name,
            active,
        };
        Grpc::new(ProstCodec::<MountsResponse, CreateRequest>::default())
            .unary(create, request)
            .await
    }

    async fn list(self, request: Request<Incoming>) -> Answer {
        Grpc::new(ProstCodec::<ListResponse, PlainRequest>::default())
            .server_streaming(List(self), request)
            .await
    }

    /// Runs a call where waiting for the disk holds nobody up.
    async fn run<A: Send + 'static>(
        self,
        name: &'static str,
        call: impl FnOnce(&mut Snapshotter) -> Result<A, SnapshotError> + Send + 'static,
    ) -> Result<A, Status> {
        let Self { snapshotter, log, .. } = self;
        let task = tokio::task::spawn_blocking(move || {
            // A panic in a call leaves the record as it was before it: a change is made on a copy.
            call(&mut snapshotter.lock().unwrap_or_else(PoisonError::into_inner))
        });
        match task.await {
            Ok(Ok(answer)) => {
                debug!(log, "call answered"; "call" => name);
                Ok(answer)
            }
            Ok(Err(error)) => {
                note(&log, name, &error);
                Err(status(&error))
            }
            Err(_) => Err(Status::internal("the call did not come to an end")),
        }
    }
}

/// A call with one answer.
struct Unary<Q, A> {
    service: Service,
    name: &'static str,
    call: fn(&mut Snapshotter, Q) -> Result<A, SnapshotError>,
}

impl<Q: Send + 'static, A: Send + 'static> UnaryService<Q> for Unary<Q, A> {
    type Response = A;
    type Future = Pin<Box<dyn Future<Output = Result<Response<A>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        let (service, name, call) = (self.service.clone(), self.name, self.call);
        Box::pin(async move {
            service
                .run(name, move |s| call(s, request.into_inner()))
                .await
                .map(Response::new)
        })
    }
}

/// `Prepare` and `View`, before which containerd is asked for names where it may look for some next.
struct Create {
    service: Service,
    name: &'static str,
    active: bool,
}

impl UnaryService<CreateRequest> for Create {
    type Response = MountsResponse;
    type Future = Pin<Box<dyn Future<Output = Result<Response<MountsResponse>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<CreateRequest>) -> Self::Future {
        let (service, name, active) = (self.service.clone(), self.name, self.active);
        Box::pin(async move {
            let request = request.into_inner();
            let users = if is_layer(&request.key, &request.labels) {
                Vec::new()
            } else {
                let lookup = &service.lookup;
                lookup.users(&request.snapshotter, &request.key, &request.parent).await
            };
            let answer = service.run(name, move |snapshotter| {
                snapshotter.learn(&users)?;
                prepare(snapshotter, request, active)
            });
            answer.await.map(Response::new)
        })
    }
}

/// The one call whose answer is a stream.
struct List(Service);

impl ServerStreamingService<PlainRequest> for List {
    type Response = ListResponse;
    type ResponseStream = tokio_stream::Iter<std::vec::IntoIter<Result<ListResponse, Status>>>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, _: tonic::Request<PlainRequest>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move {
            let all = service.run("List", |s| {
                Ok(s.list().map(|(name, snapshot)| info(name, snapshot)).collect())
            });
            let all: Vec<Info> = all.await?;
            let parts: Vec<_> = all
                .chunks(LIST_CHUNK)
                .map(|part| Ok(ListResponse { info: part.to_vec() }))
                .collect();
            Ok(Response::new(tokio_stream::iter(parts)))
        })
    }
}

fn prepare(
    snapshotter: &mut Snapshotter,
    request: CreateRequest,
    active: bool,
) -> Result<MountsResponse, SnapshotError> {
    let CreateRequest {
        key, parent, labels, ..
    } = request;
    let mounts = if active {
        snapshotter.prepare(&key, &parent, labels, now_ms())
    } else {
        snapshotter.view(&key, &parent, labels, now_ms())
    };
    mounts.map(mounts_response)
}

fn stat(snapshotter: &mut Snapshotter, request: KeyRequest) -> Result<InfoResponse, SnapshotError> {
    let snapshot = snapshotter.stat(&request.key)?;
    Ok(InfoResponse {
        info: Some(info(&request.key, snapshot)),
    })
}

fn update(snapshotter: &mut Snapshotter, request: UpdateRequest) -> Result<InfoResponse, SnapshotError> {
    let Info { name, labels, .. } = request.info.unwrap_or_default();
    let paths = request.update_mask.unwrap_or_default().paths;
    let snapshot = snapshotter.update(&name, &labels, &paths, now_ms())?;
    Ok(InfoResponse {
        info: Some(info(&name, &snapshot)),
    })
}

/// Nothing is kept on the host, so nothing is used; but for a layer while it is unpacked, which nobody asks for.
fn usage(snapshotter: &mut Snapshotter, request: KeyRequest) -> Result<UsageResponse, SnapshotError> {
    snapshotter.stat(&request.key)?;
    Ok(UsageResponse { size: 0, inodes: 0 })
}

fn info(name: &str, snapshot: &Snapshot) -> Info {
    let kind = match snapshot.kind {
        Kind::Committed => InfoKind::Committed,
        Kind::Active => InfoKind::Active,
        Kind::View => InfoKind::View,
    };
    Info {
        name: name.to_owned(),
        parent: snapshot.parent.clone().unwrap_or_default(),
        kind: kind.into(),
        created_at: Some(timestamp(snapshot.created_ms)),
        updated_at: Some(timestamp(snapshot.updated_ms)),
        labels: snapshot.labels.clone(),
    }
}

fn mounts_response(mounts: Vec<snapshot::Mount>) -> MountsResponse {
    let mounts = mounts
        .into_iter()
        .map(
            |snapshot::Mount {
                 fs_type,
                 source,
                 options,
             }| Mount {
                fs_type,
                source,
                options,
            },
        )
        .collect();
    MountsResponse { mounts }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn timestamp(ms: u64) -> Timestamp {
    let nanos = i32::try_from(ms % 1000 * 1_000_000).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(ms / 1000).unwrap_or(i64::MAX),
        nanos,
    }
}

fn note(log: &Logger, call: &'static str, error: &SnapshotError) {
    match error {
        SnapshotError::LayerKept { chain } => info!(log, "layer left to the guest"; "layer" => chain),
        // containerd asks for what may not be there, and for what may be there already.
        SnapshotError::NotFound { .. } | SnapshotError::Exists { .. } => {
            debug!(log, "call refused"; "call" => call, "error" => %error);
        }
        error => {
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            warn!(log, "call refused"; "call" => call, "error" => %error, "cause" => cause);
        }
    }
}

/// The gRPC status of each error: the only place that knows.
fn status(error: &SnapshotError) -> Status {
    let code = match error {
        SnapshotError::LayerKept { .. } | SnapshotError::Exists { .. } => Code::AlreadyExists,
        SnapshotError::NotFound { .. } => Code::NotFound,
        SnapshotError::NotCommitted { .. } | SnapshotError::NoName | SnapshotError::Immutable { .. } => {
            Code::InvalidArgument
        }
        SnapshotError::Commit => Code::Unimplemented,
        SnapshotError::Committed { .. } | SnapshotError::HasChildren { .. } | SnapshotError::Mismatch { .. } => {
            Code::FailedPrecondition
        }
        SnapshotError::Store(_) | SnapshotError::Stub(_) | SnapshotError::Folder { .. } => Code::Internal,
    };
    // With the causes: a disk that is full is the reader's to mend, on the same host.
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    Status::new(code, text)
}

const PREFIX: &str = "/containerd.services.snapshots.v1.Snapshots/";
/// Labels are at most 4 KiB each: a message stays far below containerd's limit of 16 MiB.
const LIST_CHUNK: usize = 100;
