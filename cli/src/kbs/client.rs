//! The broker's admin interface over HTTPS.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use cella_http::{BuildError, Client, ClientConfig, HttpError, Origin, OriginError, TlsRoots, TlsRootsError};
use cella_policy::{KeyId, NameError};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::token::{Signer, TokenError};
use super::{BrokerArgs, PeerArgs};
use crate::files::{self, FileError, MAX_TEXT};

/// A resource's name without scheme: `repository/type/tag`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResourcePath(KeyId);

impl ResourcePath {
    pub(super) fn as_str(&self) -> &str {
        self.0.path()
    }

    /// The same for the protocol's types, whose rule for names is this one.
    pub(super) fn wire(&self) -> Result<cella_kbs_client::wire::ResourcePath, ClientError> {
        self.as_str().parse().map_err(|source| ClientError::Name { source })
    }
}

impl From<KeyId> for ResourcePath {
    fn from(key: KeyId) -> Self {
        Self(key)
    }
}

impl FromStr for ResourcePath {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let whole = if text.starts_with("kbs:") {
            text.to_owned()
        } else {
            format!("kbs:///{text}")
        };
        whole.parse().map(Self)
    }
}

impl fmt::Display for ResourcePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the broker holds under one name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Entry {
    pub(super) path: String,
    pub(super) version: Option<u64>,
    pub(super) bytes: Option<u64>,
    pub(super) rule: Option<serde_json::Value>,
    #[serde(rename = "rule-version")]
    pub(super) rule_version: Option<u64>,
}

/// A broker, and the right to administer it.
pub(super) struct AdminClient {
    client: Client,
    signer: Option<Signer>,
}

impl AdminClient {
    pub(super) fn new(args: &BrokerArgs) -> Result<Self, ClientError> {
        Ok(Self {
            signer: Some(Signer::load(&args.admin_key, &args.subject)?),
            ..Self::without_token(&args.peer)?
        })
    }

    /// For what needs no admin.
    pub(super) fn without_token(args: &PeerArgs) -> Result<Self, ClientError> {
        if !args.url.starts_with("https://") {
            return Err(ClientError::PlainHttp { url: args.url.clone() });
        }
        let origin: Origin = args.url.parse().map_err(|source| ClientError::Origin {
            url: args.url.clone(),
            source,
        })?;
        let pem = files::read_text(&args.ca, MAX_TEXT)?;
        let roots = TlsRoots::from_pem(&pem).map_err(|source| ClientError::Authority { source })?;
        let client = Client::new(origin, Some(roots), ClientConfig::default())
            .map_err(|source| ClientError::Setup { source })?;
        Ok(Self { client, signer: None })
    }

    /// Stores a key's bytes; gives the version that they have now.
    pub(super) async fn set_key(
        &self,
        resource: &ResourcePath,
        version: Option<u64>,
        key: &[u8],
    ) -> Result<u64, ClientError> {
        self.store(&format!("resource/{}", resource.as_str()), version, key)
            .await
    }

    /// Stores a rule; gives the version that it has now.
    pub(super) async fn set_rule(
        &self,
        resource: &ResourcePath,
        version: Option<u64>,
        rule: &[u8],
    ) -> Result<u64, ClientError> {
        self.store(&format!("cella-rule/{}", resource.as_str()), version, rule)
            .await
    }

    async fn store(&self, path: &str, version: Option<u64>, body: &[u8]) -> Result<u64, ClientError> {
        #[derive(Deserialize)]
        struct Stored {
            version: u64,
        }
        let query = version.map_or(String::new(), |version| format!("?version={version}"));
        let answer = self.post(&format!("{path}{query}"), body.to_vec()).await?;
        let stored: Stored = parse(&answer)?;
        Ok(stored.version)
    }

    /// Removes a key and its rule.
    pub(super) async fn delete(&self, resource: &ResourcePath) -> Result<(), ClientError> {
        let path = format!("resource/{}", resource.as_str());
        self.send(Method::DELETE, &path, Bytes::new(), MAX_ANSWER)
            .await
            .map(drop)
    }

    /// Names, sizes and rules.
    pub(super) async fn list(&self) -> Result<Vec<Entry>, ClientError> {
        #[derive(Deserialize)]
        struct Listing {
            resources: Vec<Entry>,
        }
        let listing: Listing = self.get("cella-resources").await?;
        Ok(listing.resources)
    }

    /// The JSON at a path, which counts from `/kbs/v0/`.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        parse(&self.get_bytes(path, MAX_ANSWER).await?)
    }

    /// What is at a path, at most `limit` bytes.
    pub(super) async fn get_bytes(&self, path: &str, limit: usize) -> Result<Bytes, ClientError> {
        self.send(Method::GET, path, Bytes::new(), limit).await
    }

    /// Sends a body; gives the answer's.
    pub(super) async fn post(&self, path: &str, body: Vec<u8>) -> Result<Bytes, ClientError> {
        self.send(Method::POST, path, Bytes::from(body), MAX_ANSWER).await
    }

    async fn send(&self, method: Method, path: &str, body: Bytes, limit: usize) -> Result<Bytes, ClientError> {
        let path = format!("/kbs/v0/{path}");
        let failed = |source| ClientError::Http {
            origin: self.client.origin().to_string(),
            source,
        };
        let mut headers = HeaderMap::new();
        if let Some(signer) = &self.signer {
            let token = zeroize::Zeroizing::new(format!("Bearer {}", *signer.token()?));
            let mut value = HeaderValue::from_str(&token).map_err(|_| ClientError::Token)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let response = self.client.send(method, &path, headers, body).await.map_err(failed)?;
        let status = response.status;
        let body = response.bytes(limit).await.map_err(failed)?;
        if status == StatusCode::OK {
            Ok(body)
        } else {
            Err(refusal(status, &body))
        }
    }
}

pub(super) fn parse<T: DeserializeOwned>(answer: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(answer).map_err(|source| ClientError::Answer { source })
}

/// The error that an answer stands for. The broker's words are cut and cleaned: it is a peer like any other.
fn refusal(status: StatusCode, body: &[u8]) -> ClientError {
    #[derive(Deserialize)]
    struct ErrorInformation {
        #[serde(rename = "type")]
        kind: String,
        detail: String,
    }
    let clean = |text: &str| text.chars().filter(|c| !c.is_control()).take(200).collect::<String>();
    let (name, detail) = match serde_json::from_slice::<ErrorInformation>(body) {
        Ok(error) => (
            clean(error.kind.rsplit('/').next().unwrap_or_default()),
            clean(&error.detail),
        ),
        Err(_) => ("no error information".to_owned(), String::new()),
    };
    ClientError::Refused {
        status: status.as_u16(),
        name,
        detail,
    }
}

/// Why the broker did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ClientError {
    /// A file named on the command line.
    #[error(transparent)]
    File(#[from] FileError),
    /// The administrator's key.
    #[error(transparent)]
    Admin(#[from] TokenError),
    /// Keys do not travel in the clear.
    #[error("{url}: the broker is spoken to over https only")]
    PlainHttp { url: String },
    /// No address.
    #[error("{url} is not the address of a broker")]
    Origin { url: String, source: OriginError },
    /// The authority cannot be used.
    #[error("--ca holds no certificate authority")]
    Authority { source: TlsRootsError },
    /// The client cannot be built.
    #[error("setting up the connection to the broker")]
    Setup { source: BuildError },
    /// Not reachable, silent, or not speaking HTTP.
    #[error("the broker at {origin} cannot be reached or does not answer")]
    Http { origin: String, source: HttpError },
    /// It says no.
    #[error("the broker answers {status} {name}: {detail}")]
    Refused { status: u16, name: String, detail: String },
    /// No name of a resource.
    #[error("the resource's name is not valid")]
    Name {
        source: cella_kbs_client::wire::ResourcePathError,
    },
    /// It says something else.
    #[error("the broker's answer is not what it should be")]
    Answer { source: serde_json::Error },
    /// The token is no header.
    #[error("the token cannot be sent")]
    Token,
}

const MAX_ANSWER: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_have_one_form() {
        let path: ResourcePath = "demo/model-kek/1".parse().unwrap();
        assert_eq!(
            (path.as_str(), path.to_string().as_str()),
            ("demo/model-kek/1", "kbs:///demo/model-kek/1")
        );
        assert_eq!("kbs:///demo/model-kek/1".parse(), Ok(path));
        for bad in ["", "demo/1", "kbs://host/a/b/c", "../a/b", "a/b/c?x"] {
            assert!(bad.parse::<ResourcePath>().is_err(), "{bad}");
        }
    }

    #[test]
    fn refusals_are_cleaned() {
        let body = br#"{"type":"https://github.com/confidential-containers/kbs/errors/AdminAuth","detail":"expired\u001b[31m (ref 00)"}"#;
        match refusal(StatusCode::UNAUTHORIZED, body) {
            ClientError::Refused {
                status: 401,
                name,
                detail,
            } => {
                assert_eq!((name.as_str(), detail.as_str()), ("AdminAuth", "expired[31m (ref 00)"));
            }
            other => panic!("{other}"),
        }
        assert!(matches!(
            refusal(StatusCode::BAD_GATEWAY, b"<html>"),
            ClientError::Refused { status: 502, .. }
        ));
    }
}
