//! The client: takes a request, finds or opens a connection, gives the answer's head.
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};

use crate::body::RequestBody;
use crate::connect::{Connection, Connector, Wire};
use crate::dates::Dates;
use crate::error::{BuildError, HttpError, Step};
use crate::origin::Origin;
use crate::pool::Pool;
use crate::response::Response;
use crate::tls::TlsRoots;

/// How long a client waits and how much it takes.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// For name, TCP and TLS together. Default 30 s: a guest on a busy host has waited longer than 10.
    pub connect_timeout: Duration,
    /// The longest silence on the wire while a request is sent, its answer awaited or a body read. Default 30 s.
    ///
    /// A peer that drips bytes is not stopped by it: a caller that needs an end sets one around the whole call.
    pub read_timeout: Duration,
    /// The largest head of an answer, in bytes; values below 8192 count as 8192. Default 64 KiB.
    pub max_header_bytes: usize,
    /// Whose time decides whether a certificate is valid. Default the system's.
    pub dates: Dates,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(30),
            read_timeout: Duration::from_secs(30),
            max_header_bytes: 64 * 1024,
            dates: Dates::System,
        }
    }
}

/// An HTTP/1.1 client for one origin. Clones share their connections.
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

/// What a client and the answers still being read have in common.
pub(crate) struct Shared {
    pub(crate) connector: Connector,
    /// Connections that hyper drives.
    pub(crate) pool: Pool<Connection>,
    /// Connections of downloads.
    pub(crate) wires: Pool<Wire>,
    pub(crate) read_timeout: Duration,
}

impl Client {
    /// A client that trusts `roots` and no other authority. Connects at the first request. `roots` have no effect for `http`.
    ///
    /// # Errors
    /// For `https` without roots, or with a host that no certificate can name.
    pub fn new(origin: Origin, roots: Option<TlsRoots>, config: ClientConfig) -> Result<Self, BuildError> {
        let connector = Connector::new(origin, roots.as_ref(), &config)?;
        let shared = Shared {
            connector,
            pool: Pool::default(),
            wires: Pool::default(),
            read_timeout: config.read_timeout,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// The server this client talks to.
    pub fn origin(&self) -> &Origin {
        self.shared.origin()
    }

    /// Judges the dates of the certificates that were shown before the time of [`Dates::Trusted`] was known. Every request
    /// does it too; this is for what was received before.
    ///
    /// # Errors
    /// [`HttpError::Dates`], from then on at each request.
    pub fn check_dates(&self) -> Result<(), HttpError> {
        self.shared.connector.check_dates()
    }

    /// Sends a request and waits for the head of the answer. A redirect is an answer like any other.
    ///
    /// `path_and_query` starts with `/`. `Host` and the length are set here; `User-Agent` where the caller gives none.
    /// Answers of every status are `Ok`.
    ///
    /// # Errors
    /// See [`HttpError`]. Cancelling closes the connection in use.
    pub async fn send(
        &self,
        method: Method,
        path_and_query: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response, HttpError> {
        self.send_body(method, path_and_query, headers, body.into()).await
    }

    /// Like [`Client::send`], with a body that may be a reader.
    ///
    /// # Errors
    /// As for [`Client::send`].
    pub async fn send_body(
        &self,
        method: Method,
        path_and_query: &str,
        headers: HeaderMap,
        body: RequestBody,
    ) -> Result<Response, HttpError> {
        let mut request = self.request(method, path_and_query, headers, body)?;
        self.check_dates()?;
        while let Some(connection) = self.shared.pool.take() {
            let copy = duplicate_idempotent(&request);
            match self.exchange(connection, request).await {
                Ok(response) => return Ok(response),
                Err(Failure {
                    unsent: Some(unsent), ..
                }) => request = *unsent,
                Err(Failure {
                    error: error @ HttpError::Closed { .. },
                    ..
                }) => match copy {
                    Some(copy) => request = copy,
                    None => return Err(error),
                },
                Err(Failure { error, .. }) => return Err(error),
            }
        }
        let connection = self.shared.connector.connect().await?;
        self.exchange(connection, request)
            .await
            .map_err(|failure| failure.error)
    }

    pub(crate) fn request(
        &self,
        method: Method,
        path_and_query: &str,
        headers: HeaderMap,
        body: RequestBody,
    ) -> Result<Request<RequestBody>, HttpError> {
        let refuse = |reason| HttpError::Request {
            origin: self.origin().clone(),
            reason,
        };
        if !path_and_query.starts_with('/') {
            return Err(refuse("the path does not start with a slash"));
        }
        if [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION]
            .iter()
            .any(|name| headers.contains_key(name))
        {
            return Err(refuse("a header belongs to the connection and not to the caller"));
        }
        let target: PathAndQuery = path_and_query
            .parse()
            .map_err(|_| refuse("the path has characters that no URI has"))?;
        let host = HeaderValue::try_from(self.origin().authority()).map_err(|_| refuse("the host is no header"))?;
        let mut request = Request::new(body);
        *request.uri_mut() = Uri::from(target);
        *request.headers_mut() = headers;
        request.headers_mut().insert(HOST, host);
        request
            .headers_mut()
            .entry(USER_AGENT)
            .or_insert(HeaderValue::from_static(AGENT));
        if request.body().is_empty() && [Method::POST, Method::PUT, Method::PATCH].contains(&method) {
            request
                .headers_mut()
                .insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        *request.method_mut() = method;
        Ok(request)
    }

    async fn exchange(&self, mut connection: Connection, request: Request<RequestBody>) -> Result<Response, Failure> {
        connection.activity.touch();
        let activity = Arc::clone(&connection.activity);
        let sent = async {
            if let Err(source) = connection.sender.ready().await {
                return Err((source, Some(Box::new(request))));
            }
            connection.sender.try_send_request(request).await.map_err(|mut error| {
                let unsent = error.take_message().map(Box::new);
                (error.into_error(), unsent)
            })
        };
        let result = tokio::select! {
            biased;
            result = sent => result,
            () = activity.silence(self.shared.read_timeout) => {
                return Err(Failure { error: self.shared.timeout(Step::Head), unsent: None });
            }
        };
        match result {
            Ok(answer) => Ok(Response::new(answer, connection, Arc::clone(&self.shared))),
            Err((source, unsent)) => Err(Failure {
                error: self.shared.failed(source),
                unsent,
            }),
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.origin())
    }
}

impl Shared {
    pub(crate) fn origin(&self) -> &Origin {
        self.connector.origin()
    }

    pub(crate) fn timeout(&self, what: Step) -> HttpError {
        HttpError::Timeout {
            origin: self.origin().clone(),
            what,
            after: self.read_timeout,
        }
    }

    pub(crate) fn failed(&self, source: hyper::Error) -> HttpError {
        HttpError::from_hyper(self.origin(), self.connector.max_header_bytes(), source)
    }
}

/// Why an exchange failed, and the request itself where not a byte of it was sent.
struct Failure {
    error: HttpError,
    unsent: Option<Box<Request<RequestBody>>>,
}

/// A copy to send again if the server turns out to have closed a kept connection: only for methods that may be repeated.
fn duplicate_idempotent(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    if !request.method().is_idempotent() {
        return None;
    }
    let mut copy = Request::new(request.body().duplicate()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

const AGENT: &str = concat!("cella/", env!("CARGO_PKG_VERSION"));
