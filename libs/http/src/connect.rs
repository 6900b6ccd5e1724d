//! Opens connections: name, TCP, TLS and, where hyper is to drive it, hyper's handshake, all under one deadline.
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::activity::{Activity, Watched};
use crate::body::RequestBody;
use crate::client::ClientConfig;
use crate::dates::{Dates, Judge};
use crate::error::{BuildError, HttpError, Step};
use crate::origin::{Origin, Scheme};
use crate::pool::Kept;
use crate::tls::TlsRoots;

/// Makes connections to one origin.
pub(crate) struct Connector {
    origin: Origin,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    judge: Option<Arc<Judge>>,
    connect_timeout: Duration,
    max_header_bytes: usize,
}

impl Connector {
    pub(crate) fn new(origin: Origin, roots: Option<&TlsRoots>, config: &ClientConfig) -> Result<Self, BuildError> {
        let mut judge = None;
        let tls = match origin.scheme() {
            Scheme::Http => None,
            Scheme::Https => {
                let roots = roots.ok_or_else(|| BuildError::NoRoots { origin: origin.clone() })?;
                let name = ServerName::try_from(origin.host().to_owned())
                    .map_err(|_| BuildError::ServerName { origin: origin.clone() })?;
                let failed = |source| BuildError::Tls {
                    origin: origin.clone(),
                    source,
                };
                if let Dates::Trusted(time) = &config.dates {
                    judge = Some(Arc::new(roots.judge(time.clone()).map_err(failed)?));
                }
                let config = roots.client_config(judge.clone()).map_err(failed)?;
                Some((TlsConnector::from(config), name))
            }
        };
        let max_header_bytes = config.max_header_bytes.max(MIN_HEADER_BYTES);
        Ok(Self {
            origin,
            tls,
            judge,
            connect_timeout: config.connect_timeout,
            max_header_bytes,
        })
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(crate) fn max_header_bytes(&self) -> usize {
        self.max_header_bytes
    }

    /// Whether what was shown before the time was known was valid.
    pub(crate) fn check_dates(&self) -> Result<(), HttpError> {
        let judged = self.judge.as_ref().map_or(Ok(()), |judge| judge.judge());
        judged.map_err(|source| HttpError::Dates {
            origin: self.origin.clone(),
            source: Box::new(source),
        })
    }

    /// A connection that is ready for a request.
    pub(crate) async fn connect(&self) -> Result<Connection, HttpError> {
        self.in_time(async { self.handshake(self.open().await?).await }).await
    }

    /// A connection whose bytes its owner reads and writes.
    pub(crate) async fn wire(&self) -> Result<Wire, HttpError> {
        self.in_time(self.open()).await
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, HttpError>>) -> Result<T, HttpError> {
        match tokio::time::timeout(self.connect_timeout, work).await {
            Ok(result) => result,
            Err(_) => Err(HttpError::Timeout {
                origin: self.origin.clone(),
                what: Step::Connect,
                after: self.connect_timeout,
            }),
        }
    }

    async fn open(&self) -> Result<Wire, HttpError> {
        let failed = |source| HttpError::Connect {
            origin: self.origin.clone(),
            source,
        };
        let tcp = TcpStream::connect((self.origin.host(), self.origin.port()))
            .await
            .map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        let activity = Arc::new(Activity::new());
        let stream = Watched::new(tcp, Arc::clone(&activity));
        let stream: Box<dyn Stream> =
            match &self.tls {
                None => Box::new(stream),
                Some((connector, name)) => Box::new(connector.connect(name.clone(), stream).await.map_err(
                    |source| HttpError::Tls {
                        origin: self.origin.clone(),
                        source,
                    },
                )?),
            };
        Ok(Wire { stream, activity })
    }

    async fn handshake(&self, Wire { stream, activity }: Wire) -> Result<Connection, HttpError> {
        let (sender, connection) = http1::Builder::new()
            .max_header_size(self.max_header_bytes)
            .max_buf_size(self.max_header_bytes)
            .max_headers(MAX_HEADERS)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| HttpError::from_hyper(&self.origin, self.max_header_bytes, source))?;
        // What ends the connection reaches the request that is waiting on it; alone it concerns nobody.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Connection {
            sender,
            activity,
            _driver: Driver(driver),
        })
    }
}

/// An open connection and the task that drives it. Dropping it closes both.
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<RequestBody>,
    pub(crate) activity: Arc<Activity>,
    _driver: Driver,
}

impl Kept for Connection {
    fn is_open(&mut self) -> bool {
        !self.sender.is_closed()
    }
}

/// An open connection that nobody drives but its owner.
pub(crate) struct Wire {
    pub(crate) stream: Box<dyn Stream>,
    pub(crate) activity: Arc<Activity>,
}

impl Kept for Wire {
    /// Between two answers there is nothing to read: neither the end nor bytes that nobody asked for.
    fn is_open(&mut self) -> bool {
        let (mut byte, mut context) = ([0], Context::from_waker(Waker::noop()));
        Pin::new(&mut self.stream)
            .poll_read(&mut context, &mut ReadBuf::new(&mut byte))
            .is_pending()
    }
}

/// Aborts the connection's task when its owner goes.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// hyper's own lower limit for its buffer.
const MIN_HEADER_BYTES: usize = 8192;
/// Headers of one answer, at most.
pub(crate) const MAX_HEADERS: usize = 100;
