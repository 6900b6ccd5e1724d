//! containerd's own API, asked over its socket: which image a container was made from, and what is in the content store.
//!
//! Everything here is a help that the programs work without: containerd may be restarting, and it may be the very caller that
//! waits for us. Whoever asks bounds the time. containerd is on our side of every trust boundary; answers are bounded all the
//! same.

mod candidates;
mod proto;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codegen::Service;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

pub use candidates::{candidates, merge};
pub use proto::Descriptor;
use proto::{
    GetContainerRequest, GetContainerResponse, GetImageRequest, GetImageResponse, ListContentRequest,
    ListContentResponse, ReadContentRequest, ReadContentResponse,
};

/// Most blobs that a search gives.
const MAX_FOUND: usize = 64;

/// A connection for one namespace.
pub struct Client {
    grpc: Grpc<Connection>,
    namespace: MetadataValue<Ascii>,
}

/// A question without an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerdError {
    /// Nobody listens.
    #[error("cannot reach containerd at {socket}")]
    Connect {
        /// Its socket.
        socket: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The connection is not HTTP/2.
    #[error("talking to containerd")]
    Http {
        /// What the protocol's layer says.
        #[source]
        source: hyper::Error,
    },
    /// containerd says no.
    #[error("containerd's answer to {call}: {} ({:?})", status.message(), status.code())]
    Refused {
        /// The call.
        call: &'static str,
        /// Its answer.
        status: Box<Status>,
    },
    /// Not what such an answer is.
    #[error("containerd's answer to {call} is invalid: {what}")]
    Invalid {
        /// The call.
        call: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The namespace is no header value.
    #[error("{namespace:?} is no namespace of containerd's")]
    Namespace {
        /// The name.
        namespace: String,
    },
}

impl ContainerdError {
    /// Whether what was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if status.code() == Code::NotFound)
    }
}

impl Client {
    /// Connects to the socket at `socket`, with or without `unix://`.
    ///
    /// # Errors
    /// See [`ContainerdError`].
    pub async fn connect(socket: &Path, namespace: &str) -> Result<Self, ContainerdError> {
        let socket = socket
            .to_str()
            .and_then(|text| text.strip_prefix("unix://"))
            .map_or(socket, Path::new);
        let namespace = namespace.parse().map_err(|_| ContainerdError::Namespace {
            namespace: namespace.to_owned(),
        })?;
        let stream = UnixStream::connect(socket).await;
        let stream = stream.map_err(|source| ContainerdError::Connect {
            socket: socket.to_owned(),
            source,
        })?;
        let made = handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = made.map_err(|source| ContainerdError::Http { source })?;
        // Ends with the last sender.
        tokio::spawn(connection);
        let origin = Uri::from_static("http://localhost");
        Ok(Self {
            grpc: Grpc::with_origin(Connection(sender), origin),
            namespace,
        })
    }

    /// The name of the image that a container was made from.
    ///
    /// # Errors
    /// See [`ContainerdError`].
    pub async fn image_of(&mut self, container: &str) -> Result<String, ContainerdError> {
        let request = GetContainerRequest {
            id: container.to_owned(),
        };
        let path = PathAndQuery::from_static("/containerd.services.containers.v1.Containers/Get");
        let answer: GetContainerResponse = self.unary("Containers.Get", path, request).await?;
        Ok(answer.container.unwrap_or_default().image)
    }

    /// What an image's name stands for: a manifest or an index.
    ///
    /// # Errors
    /// See [`ContainerdError`].
    pub async fn target_of(&mut self, image: &str) -> Result<Descriptor, ContainerdError> {
        let request = GetImageRequest { name: image.to_owned() };
        let path = PathAndQuery::from_static("/containerd.services.images.v1.Images/Get");
        let answer: GetImageResponse = self.unary("Images.Get", path, request).await?;
        let target = answer.image.and_then(|image| image.target);
        target.ok_or(ContainerdError::Invalid {
            call: "Images.Get",
            what: "an image without a target",
        })
    }

    /// A blob of at most `max` bytes.
    ///
    /// # Errors
    /// See [`ContainerdError`].
    pub async fn read(&mut self, digest: &str, max: usize) -> Result<Vec<u8>, ContainerdError> {
        let call = "Content.Read";
        let request = ReadContentRequest {
            digest: digest.to_owned(),
        };
        let path = PathAndQuery::from_static("/containerd.services.content.v1.Content/Read");
        let mut answers = self.stream::<_, ReadContentResponse>(call, path, request).await?;
        let mut blob = Vec::new();
        while let Some(part) = next(call, &mut answers).await? {
            blob.extend_from_slice(&part.data);
            if blob.len() > max {
                return Err(ContainerdError::Invalid {
                    call,
                    what: "more than such a blob can hold",
                });
            }
        }
        Ok(blob)
    }

    /// The digests of the blobs that have a label with this value.
    ///
    /// # Errors
    /// See [`ContainerdError`].
    pub async fn labelled(&mut self, label: &str, value: &str) -> Result<Vec<String>, ContainerdError> {
        let call = "Content.List";
        let request = ListContentRequest {
            filters: vec![format!("labels.{label:?}=={value:?}")],
        };
        let path = PathAndQuery::from_static("/containerd.services.content.v1.Content/List");
        let mut answers = self.stream::<_, ListContentResponse>(call, path, request).await?;
        let mut found = Vec::new();
        while let Some(part) = next(call, &mut answers).await? {
            found.extend(part.info.into_iter().map(|info| info.digest));
            if found.len() >= MAX_FOUND {
                found.truncate(MAX_FOUND);
                break;
            }
        }
        Ok(found)
    }

    async fn unary<Q, A>(&mut self, call: &'static str, path: PathAndQuery, request: Q) -> Result<A, ContainerdError>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let request = self.prepared(request).await?;
        let answer = self.grpc.unary(request, path, ProstCodec::<Q, A>::default()).await;
        answer.map(tonic::Response::into_inner).map_err(refused(call))
    }

    async fn stream<Q, A>(
        &mut self,
        call: &'static str,
        path: PathAndQuery,
        request: Q,
    ) -> Result<tonic::Streaming<A>, ContainerdError>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let request = self.prepared(request).await?;
        let codec = ProstCodec::<Q, A>::default();
        let answer = self.grpc.server_streaming(request, path, codec).await;
        answer.map(tonic::Response::into_inner).map_err(refused(call))
    }

    async fn prepared<Q>(&mut self, request: Q) -> Result<tonic::Request<Q>, ContainerdError> {
        let ready = self.grpc.ready().await;
        ready.map_err(|source| ContainerdError::Http { source })?;
        let mut request = tonic::Request::new(request);
        request
            .metadata_mut()
            .insert("containerd-namespace", self.namespace.clone());
        Ok(request)
    }
}

async fn next<A>(call: &'static str, answers: &mut tonic::Streaming<A>) -> Result<Option<A>, ContainerdError> {
    answers.message().await.map_err(refused(call))
}

fn refused(call: &'static str) -> impl FnOnce(Status) -> ContainerdError {
    move |status| ContainerdError::Refused {
        call,
        status: Box::new(status),
    }
}

/// An HTTP/2 connection as tonic wants it.
struct Connection(SendRequest<Body>);

impl Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

#[cfg(test)]
mod tests;
