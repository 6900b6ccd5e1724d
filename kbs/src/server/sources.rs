//! What one source may take: connections at once, requests a second.
//!
//! A source is an IPv4 address or the /64 of an IPv6 address, which is what one host gets. The table is bounded; sources that
//! took nothing for a while are forgotten, and when it is full of others, all further ones share one entry.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most sources that are told apart.
const MAX_SOURCES: usize = 8192;
/// For how many seconds a source may save up what it does not take.
const SAVED_S: u64 = 10;

/// All sources.
pub(super) struct Sources {
    connections: usize,
    /// Requests a second, in thousandths: what a millisecond gives.
    rate: u64,
    inner: Mutex<HashMap<Source, State>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    V4([u8; 4]),
    V6([u8; 8]),
    /// Everybody whom the table has no room for.
    Others,
}

struct State {
    connections: usize,
    /// Thousandths of requests.
    left: u64,
    at: Duration,
}

/// A connection's place. Given back when dropped.
pub(super) struct Place {
    sources: Arc<Sources>,
    source: Source,
}

impl Sources {
    pub(super) fn new(connections: usize, requests_per_second: u32) -> Self {
        Self {
            connections,
            rate: u64::from(requests_per_second),
            inner: Mutex::default(),
        }
    }

    /// A place for one more connection, if the source has one left.
    pub(super) fn connect(self: &Arc<Self>, address: IpAddr, now: Duration) -> Option<Place> {
        let mut inner = self.lock();
        let (source, state) = self.entry(&mut inner, address, now);
        if state.connections >= self.connections {
            return None;
        }
        state.connections += 1;
        Some(Place {
            sources: self.clone(),
            source,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Source, State>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry<'a>(
        &self,
        inner: &'a mut HashMap<Source, State>,
        address: IpAddr,
        now: Duration,
    ) -> (Source, &'a mut State) {
        let mut source = Source::of(address);
        if inner.len() >= MAX_SOURCES && !inner.contains_key(&source) {
            let saved = Duration::from_secs(SAVED_S);
            inner.retain(|_, state| state.connections > 0 || now.saturating_sub(state.at) < saved);
            if inner.len() >= MAX_SOURCES {
                source = Source::Others;
            }
        }
        let fresh = || State {
            connections: 0,
            left: self.most(),
            at: now,
        };
        (source, inner.entry(source).or_insert_with(fresh))
    }

    fn most(&self) -> u64 {
        self.rate * 1000 * SAVED_S
    }
}

impl Place {
    /// Whether the source may ask once more now.
    pub(super) fn request(&self, now: Duration) -> bool {
        let mut inner = self.sources.lock();
        let Some(state) = inner.get_mut(&self.source) else {
            // Only sources without connections are forgotten.
            return true;
        };
        let earned = u64::try_from(now.saturating_sub(state.at).as_millis()).unwrap_or(u64::MAX);
        state.left = earned
            .saturating_mul(self.sources.rate)
            .saturating_add(state.left)
            .min(self.sources.most());
        state.at = state.at.max(now);
        match state.left.checked_sub(1000) {
            Some(left) => {
                state.left = left;
                true
            }
            None => false,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(state) = self.sources.lock().get_mut(&self.source) {
            state.connections = state.connections.saturating_sub(1);
        }
    }
}

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Duration = Duration::from_secs(1000);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn connections_are_counted_for_each_source_and_given_back() {
        let sources = Arc::new(Sources::new(2, 1));
        let first = sources.connect(ip("10.0.0.1"), T0).unwrap();
        let _second = sources.connect(ip("::ffff:10.0.0.1"), T0).unwrap();
        assert!(sources.connect(ip("10.0.0.1"), T0).is_none());
        let _other = sources.connect(ip("10.0.0.2"), T0).unwrap();
        drop(first);
        assert!(sources.connect(ip("10.0.0.1"), T0).is_some());
        let _a = sources.connect(ip("2001:db8::1"), T0).unwrap();
        let _b = sources.connect(ip("2001:db8::2"), T0).unwrap();
        assert!(sources.connect(ip("2001:db8::ffff:3"), T0).is_none());
        assert!(sources.connect(ip("2001:db8:0:1::1"), T0).is_some());
    }

    #[test]
    fn requests_are_saved_up_and_spent() {
        let sources = Arc::new(Sources::new(2, 5));
        let place = sources.connect(ip("10.0.0.1"), T0).unwrap();
        let spend = |now| {
            std::iter::repeat_with(|| place.request(now))
                .take_while(|more| *more)
                .count()
        };
        assert_eq!(spend(T0), 50);
        assert_eq!(spend(T0 + Duration::from_millis(199)), 0);
        assert_eq!(spend(T0 + Duration::from_millis(200)), 1);
        assert_eq!(spend(T0 + Duration::from_secs(2)), 9);
        assert_eq!(spend(T0 + Duration::from_secs(1000)), 50);
        // A connection of its own does not make a source another one.
        let again = sources.connect(ip("10.0.0.1"), T0).unwrap();
        assert!(!again.request(T0 + Duration::from_secs(1000)));
    }

    #[test]
    fn the_table_is_bounded() {
        let sources = Arc::new(Sources::new(1, 1));
        let address = |n: u32| IpAddr::from(std::net::Ipv4Addr::from(n));
        let mut places = Vec::new();
        for n in 0..u32::try_from(MAX_SOURCES).unwrap() {
            places.push(sources.connect(address(n), T0).unwrap());
        }
        // The rest are one.
        let others = sources.connect(address(1 << 30), T0);
        assert!(others.is_some() && sources.connect(address(1 << 31), T0).is_none());
        assert!(sources.lock().len() <= MAX_SOURCES + 1);
        drop(places);
        let later = T0 + Duration::from_secs(SAVED_S);
        assert!(sources.connect(address(1 << 31), later).is_some());
        assert!(sources.lock().len() <= 2);
    }
}
