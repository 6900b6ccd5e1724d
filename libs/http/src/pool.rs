//! Connections that wait for their next request.
use std::sync::{Mutex, PoisonError};

/// A connection between two requests.
pub(crate) trait Kept {
    /// Whether the next request may be sent over it, as far as is known.
    fn is_open(&mut self) -> bool;
}

/// At most [`MAX_IDLE`] open connections; the one used last goes out first.
pub(crate) struct Pool<C> {
    idle: Mutex<Vec<C>>,
}

impl<C: Kept> Pool<C> {
    /// A connection that was open when last looked at.
    pub(crate) fn take(&self) -> Option<C> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain_mut(C::is_open);
        idle.pop()
    }

    /// Keeps a connection whose last answer was read to its end, unless enough are kept.
    pub(crate) fn put(&self, mut connection: C) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE && connection.is_open() {
            idle.push(connection);
        }
    }
}

impl<C> Default for Pool<C> {
    fn default() -> Self {
        Self { idle: Mutex::default() }
    }
}

const MAX_IDLE: usize = 8;
