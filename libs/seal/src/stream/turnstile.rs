//! Lets threads that finish segments in any order pass through one stage in file order.
use std::sync::{Condvar, Mutex, PoisonError};

/// A stage that takes 0, 1, 2, … in this order, whoever brings them. It holds `T`, for instance a running hash.
pub(super) struct Turnstile<T> {
    state: Mutex<State<T>>,
    turned: Condvar,
}

struct State<T> {
    next: u32,
    stopped: bool,
    inner: T,
}

impl<T> Turnstile<T> {
    pub(super) fn new(inner: T) -> Self {
        Self {
            state: Mutex::new(State {
                next: 0,
                stopped: false,
                inner,
            }),
            turned: Condvar::new(),
        }
    }

    /// Waits until all before `index` have passed, then runs `pass`. `None` when the stage was stopped.
    ///
    /// Waits for ever if an index is never brought: whoever gives up calls [`Turnstile::stop`].
    pub(super) fn pass<R>(&self, index: u32, pass: impl FnOnce(&mut T) -> R) -> Option<R> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self
            .turned
            .wait_while(state, |state| state.next != index && !state.stopped)
            .unwrap_or_else(PoisonError::into_inner);
        if state.stopped {
            return None;
        }
        let result = pass(&mut state.inner);
        state.next = state.next.saturating_add(1);
        self.turned.notify_all();
        Some(result)
    }

    /// Turns everybody away from now on.
    pub(super) fn stop(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
        self.turned.notify_all();
    }

    /// What is inside, when all have passed.
    pub(super) fn into_inner(self) -> T {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).inner
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn passes_in_order_whoever_comes() {
        let (turnstile, next) = (Turnstile::new(Vec::new()), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Some(index) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|index| *index < 500) {
                        turnstile.pass(index, |seen| seen.push(index)).unwrap();
                    }
                });
            }
        });
        assert_eq!(turnstile.into_inner(), (0..500).collect::<Vec<_>>());
    }

    #[test]
    fn a_stop_releases_those_who_wait() {
        let turnstile = Turnstile::new(());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| turnstile.pass(1, |()| ()));
            turnstile.stop();
            assert_eq!(waiting.join().unwrap(), None);
        });
    }
}
