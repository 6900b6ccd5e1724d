//! One question and its answer: deadline, size limit, and the sorting of everything that is no success.
use std::time::Duration;

use bytes::Bytes;
use cella_http::{Client, Origin};
use http::header::{CONTENT_TYPE, COOKIE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::de::DeserializeOwned;

use crate::client::Options;
use crate::cookie::SessionCookie;
use crate::error::{GarbageKind, KbsError, Step, printable};
use crate::wire::{ATTEST_PATH, AUTH_PATH, ErrorInformation, RESOURCE_PATH};

/// The broker as both the handshake and the session see it.
#[derive(Clone)]
pub(crate) struct Broker {
    http: Client,
    pub(crate) options: Options,
}

/// A successful answer.
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    body: Bytes,
}

impl Broker {
    pub(crate) fn new(http: Client, options: Options) -> Self {
        Self { http, options }
    }

    pub(crate) fn origin(&self) -> &Origin {
        self.http.origin()
    }

    /// Asks once. `body` makes it a `POST`.
    pub(crate) async fn ask(
        &self,
        step: &Step,
        cookie: Option<&SessionCookie>,
        body: Option<Vec<u8>>,
    ) -> Result<Answer, KbsError> {
        let after = self.options.request_timeout;
        match tokio::time::timeout(after, self.ask_unhurried(step, cookie, body)).await {
            Ok(result) => result,
            Err(_) => Err(KbsError::Timeout {
                origin: self.origin().clone(),
                step: step.clone(),
                after,
            }),
        }
    }

    async fn ask_unhurried(
        &self,
        step: &Step,
        cookie: Option<&SessionCookie>,
        body: Option<Vec<u8>>,
    ) -> Result<Answer, KbsError> {
        let failed = |error| KbsError::from_http(self.origin(), step, error);
        let path = match step {
            Step::Auth => AUTH_PATH.to_owned(),
            Step::Attest => ATTEST_PATH.to_owned(),
            Step::Resource(path) => format!("{RESOURCE_PATH}/{path}"),
        };
        let mut headers = HeaderMap::new();
        if let Some(cookie) = cookie {
            headers.insert(COOKIE, cookie.header());
        }
        let method = if body.is_some() { Method::POST } else { Method::GET };
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let response = self
            .http
            .send(method, &path, headers, body.unwrap_or_default().into())
            .await
            .map_err(failed)?;
        let (status, headers) = (response.status, response.headers.clone());
        if status.is_server_error() {
            let (origin, step) = (self.origin().clone(), step.clone());
            return Err(KbsError::Unavailable {
                origin,
                step,
                status: status.as_u16(),
            });
        }
        let limit = if status.is_success() { MAX_ANSWER } else { MAX_REFUSAL };
        let body = response.bytes(limit).await.map_err(failed)?;
        if status.is_success() {
            Ok(Answer { headers, body })
        } else {
            Err(self.refusal(step, status, &body))
        }
    }

    /// The JSON in an answer.
    pub(crate) fn parse<T: DeserializeOwned>(&self, step: &Step, answer: &Answer) -> Result<T, KbsError> {
        serde_json::from_slice(&answer.body).map_err(|error| {
            self.garbage(
                step,
                GarbageKind::Json {
                    line: error.line(),
                    column: error.column(),
                },
            )
        })
    }

    pub(crate) fn garbage(&self, step: &Step, what: GarbageKind) -> KbsError {
        KbsError::Garbage {
            origin: self.origin().clone(),
            step: step.clone(),
            what,
        }
    }

    /// How long to wait before try number `next`, counted from 1; `None` when enough were made or the error will stay.
    pub(crate) fn pause_before(&self, next: u32, error: &KbsError) -> Option<Duration> {
        (error.is_transient() && next < self.options.tries).then(|| self.options.backoff * next)
    }

    fn refusal(&self, step: &Step, status: StatusCode, body: &[u8]) -> KbsError {
        let origin = self.origin().clone();
        if let (Step::Resource(path), StatusCode::NOT_FOUND) = (step, status) {
            return KbsError::NotFound {
                origin,
                path: path.clone(),
            };
        }
        match serde_json::from_slice::<ErrorInformation>(body) {
            Ok(information) if status.is_client_error() => KbsError::Refused {
                origin,
                step: step.clone(),
                kind: printable(information.name(), MAX_KIND),
                detail: printable(&information.detail, MAX_DETAIL),
            },
            _ => self.garbage(
                step,
                GarbageKind::Status {
                    status: status.as_u16(),
                },
            ),
        }
    }
}

const MAX_ANSWER: usize = 1 << 20;
const MAX_REFUSAL: usize = 64 * 1024;
const MAX_KIND: usize = 100;
const MAX_DETAIL: usize = 300;
