//! One connection: a challenge in, evidence out, each step with a deadline.

use std::{io, time::Duration};

use cella_attest::{sim::SimError, trustee::TrusteeError};
use slog::{Logger, info, warn};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::watch,
    time::timeout,
};

use crate::launch::{Guest, Keys};

/// How long a peer may take for its request, the platform for the guest's measurement, and a peer for taking the answer.
const STEP: Duration = Duration::from_secs(10);

/// What is known of the guest.
pub(super) enum Stage {
    /// Not yet anything.
    Measuring,
    /// All of it.
    Serving(Box<Guest>),
    /// It cannot be attested.
    Refusing,
}

/// What answers.
pub(super) struct Platform {
    pub(super) keys: Keys,
    pub(super) stages: watch::Receiver<Stage>,
    pub(super) log: Logger,
}

/// Why a request got no evidence.
#[derive(Debug, thiserror::Error)]
enum AnswerError {
    #[error("{what} took longer than {} s", STEP.as_secs())]
    Timeout { what: &'static str },
    #[error("{doing}")]
    Peer {
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the guest cannot be attested")]
    Refusing,
    #[error("the evidence is too long")]
    Length,
    #[error("signing the report")]
    Sign(#[from] SimError),
    #[error("writing the evidence")]
    Encode(#[from] TrusteeError),
}

impl Platform {
    /// Answers one request and closes. May be dropped at any point.
    pub(super) async fn answer(&self, mut stream: UnixStream) {
        match self.exchange(&mut stream).await {
            Ok(()) => info!(self.log, "evidence issued"),
            Err(error) => {
                warn!(self.log, "no evidence issued"; "error" => format!("{:#}", anyhow::Error::new(error)));
            }
        }
    }

    async fn exchange(&self, stream: &mut UnixStream) -> Result<(), AnswerError> {
        let mut report_data = [0; 64];
        let request = timed("the request", stream.read_exact(&mut report_data)).await?;
        request.map_err(|source| AnswerError::Peer {
            doing: "reading the request",
            source,
        })?;
        let evidence = self.evidence(report_data).await;
        let answer = evidence.as_deref().unwrap_or_default();
        let len = u32::try_from(answer.len()).map_err(|_| AnswerError::Length)?;
        let message = [len.to_le_bytes().as_slice(), answer].concat();
        let written = timed("the answer", async {
            stream.write_all(&message).await?;
            stream.shutdown().await
        });
        written.await?.map_err(|source| AnswerError::Peer {
            doing: "writing the answer",
            source,
        })?;
        evidence.map(drop)
    }

    /// Evidence over a challenge, in JSON.
    async fn evidence(&self, report_data: [u8; 64]) -> Result<Vec<u8>, AnswerError> {
        let mut stages = self.stages.clone();
        let known = timed(
            "measuring the guest",
            stages.wait_for(|stage| !matches!(stage, Stage::Measuring)),
        )
        .await?;
        let guest = match known.as_deref() {
            Ok(Stage::Serving(guest)) => guest.clone(),
            _ => return Err(AnswerError::Refusing),
        };
        Ok(guest.attest(&self.keys, report_data)?.to_json()?)
    }
}

async fn timed<T>(what: &'static str, step: impl Future<Output = T>) -> Result<T, AnswerError> {
    timeout(STEP, step).await.map_err(|_| AnswerError::Timeout { what })
}
