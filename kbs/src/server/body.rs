//! Bodies of requests: bounded in length and time, zeroed when dropped, because an admin's body is a key.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use zeroize::Zeroizing;

use crate::refusal::Refusal;

/// Reads a body of at most `limit` bytes within `deadline`; of none, does not read.
///
/// What hyper and rustls had in their own buffers is not zeroed.
pub(super) async fn read(body: Incoming, limit: usize, deadline: Duration) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    if limit == 0 {
        return Ok(Zeroizing::new(Vec::new()));
    }
    match tokio::time::timeout(deadline, collect(body, limit)).await {
        Ok(result) => result,
        Err(_) => Err(Refusal::BodyTimeout),
    }
}

async fn collect(mut body: Incoming, limit: usize) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let announced = body.size_hint();
    if announced.lower() > limit as u64 {
        return Err(Refusal::BodyTooLarge { limit });
    }
    // A body of known length does not move while it grows, and leaves no copies. Memory is touched as bytes come.
    let capacity = announced
        .exact()
        .and_then(|length| usize::try_from(length).ok())
        .unwrap_or(0);
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Refusal::BodyBroken)?.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > limit {
            return Err(Refusal::BodyTooLarge { limit });
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}
