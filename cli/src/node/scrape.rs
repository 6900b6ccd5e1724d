//! One page, of metrics or of a trace, from a shim's socket: bounded in time and in length.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// The body of `GET /metrics` of the shim whose run directory is `dir`.
pub(crate) async fn scrape(dir: &Path) -> Result<String, ScrapeError> {
    ask(dir, "/metrics").await
}

/// The body of `GET` of another path of its.
pub(crate) async fn ask(dir: &Path, path: &str) -> Result<String, ScrapeError> {
    match tokio::time::timeout(TIMEOUT, fetch(dir, path)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ScrapeError::Silent { after: TIMEOUT }),
    }
}

async fn fetch(dir: &Path, path: &str) -> Result<String, ScrapeError> {
    let failed = |source| ScrapeError::Socket { source };
    let mut stream = UnixStream::connect(dir.join("metrics.sock")).await.map_err(failed)?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: shim\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::new();
    stream
        .take(MAX_ANSWER + 1)
        .read_to_end(&mut answer)
        .await
        .map_err(failed)?;
    if answer.len() as u64 > MAX_ANSWER {
        return Err(ScrapeError::Form {
            what: "longer than any page",
        });
    }
    let form = |what| ScrapeError::Form { what };
    let answer = String::from_utf8(answer).map_err(|_| form("not UTF-8"))?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(form("not HTTP"))?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(form("not a page"));
    }
    Ok(body.to_owned())
}

/// Why a shim has nothing to show.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ScrapeError {
    /// No socket, or a broken connection.
    #[error("asking the shim")]
    Socket { source: io::Error },
    /// A shim that hangs.
    #[error("the shim says nothing for {} s", after.as_secs())]
    Silent { after: Duration },
    /// Another protocol.
    #[error("the shim's answer is {what}")]
    Form { what: &'static str },
}

/// What one hung shim may cost.
const TIMEOUT: Duration = Duration::from_secs(1);
const MAX_ANSWER: u64 = 1 << 20;
