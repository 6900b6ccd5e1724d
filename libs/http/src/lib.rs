//! A small HTTP/1.1 client for peers that are not trusted: registries and key brokers.
//!
//! It talks to one [`Origin`], trusts exactly the certificate authorities it was given, follows no redirect, keeps no
//! cookie and reads no environment. What a peer sends is bounded everywhere: each wait has a deadline, the head of an
//! answer has a size limit, and a body is either read up to a limit ([`Response::bytes`]), streamed chunk by chunk
//! ([`Response::chunk`]), or read straight into the caller's memory ([`Download::read`]). A peer's bytes never appear in an error.
//!
//! Connections are kept alive and reused for later requests. A request that meets a kept connection which the peer has
//! just closed is sent again on a new one, if and only if nothing of it can have been acted upon.
#![forbid(unsafe_code)]

mod activity;
mod body;
mod client;
mod connect;
mod dates;
mod download;
mod error;
mod head;
mod origin;
mod pool;
mod response;
mod time;
mod tls;

pub use body::RequestBody;
pub use client::{Client, ClientConfig};
pub use dates::Dates;
pub use download::Download;
pub use error::{BuildError, HttpError, Step};
pub use head::{Head, HeadError, HeadReader};
pub use origin::{Origin, OriginError, Scheme};
pub use response::Response;
pub use time::TrustedTime;
pub use tls::{TlsRoots, TlsRootsError};
