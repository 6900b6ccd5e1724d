//! Connections that wait for their next request.
use std::sync::{Mutex, PoisonError};

use crate::connect::Connection;

/// At most [`MAX_IDLE`] open connections; the one used last goes out first.
#[derive(Default)]
pub(crate) struct Pool {
    idle: Mutex<Vec<Connection>>,
}

impl Pool {
    /// A connection that was open when last looked at.
    pub(crate) fn take(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| !connection.sender.is_closed());
        idle.pop()
    }

    /// Keeps a connection whose last answer was read to its end, unless enough are kept.
    pub(crate) fn put(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !connection.sender.is_closed() && idle.len() < MAX_IDLE {
            idle.push(connection);
        }
    }
}

const MAX_IDLE: usize = 8;
