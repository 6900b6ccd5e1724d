//! Whether clients may come in: not before every container that the policy requires is there (threat T1).
//!
//! ```text
//! shut ──the last missing container is there──▶ open ──one of them is gone, or paused──▶ shut
//! ```
//! Whoever lets clients in asks here: forwarded ports at each connection and while it lasts, the programs' input at each chunk,
//! command lines of the host's choice at their start. Each change is an event, so that an operator
//! sees who is missing.

use std::sync::Arc;

use cella_policy::{
    ContainerPolicy, Policy,
    check::{Denial, Lineup, Missing, Turn},
};
use tokio::sync::watch;

use super::{EventKind, Events};

/// The pod's way in. Clones share it.
#[derive(Clone, Debug)]
pub struct Ingress {
    lineup: Arc<watch::Sender<Lineup>>,
    events: Events,
}

impl Ingress {
    /// Shut, unless `policy` requires nobody. What changes becomes one of `events`.
    pub fn new(policy: &Policy, events: Events) -> Self {
        Self {
            lineup: Arc::new(watch::Sender::new(Lineup::new(policy))),
            events,
        }
    }

    /// Whether it is the turn of the policy's container `name` to start.
    pub fn check_start(&self, name: &str) -> Result<(), Denial> {
        self.lineup.borrow().check_start(name)
    }

    /// Whether the host may run a command line of its own choice in `container` now.
    pub fn check_exec(&self, container: &ContainerPolicy) -> Result<(), Denial> {
        self.lineup.borrow().check_exec(container)
    }

    /// Required containers that are not there.
    pub fn missing(&self) -> Vec<Missing> {
        self.lineup.borrow().missing()
    }

    /// Whether nobody is missing.
    pub fn is_open(&self) -> bool {
        self.missing().is_empty()
    }

    /// Why it is shut, in words; `None` where it is open.
    pub fn shut_because(&self) -> Option<String> {
        self.lineup.borrow().shut_because()
    }

    /// Waits until it is shut. Safe to cancel.
    pub async fn shut(&self) {
        let mut lineup = self.lineup.subscribe();
        // The sender is ours and alive.
        let _ = lineup.wait_for(|lineup| !lineup.missing().is_empty()).await;
    }

    /// Waits until it is open. Safe to cancel.
    pub async fn opened(&self) {
        let mut lineup = self.lineup.subscribe();
        let _ = lineup.wait_for(|lineup| lineup.missing().is_empty()).await;
    }

    /// Follows it: each value is whether it is open.
    pub fn follow(&self) -> watch::Receiver<Lineup> {
        self.lineup.subscribe()
    }

    /// Notes what has happened to the policy's container `name`.
    pub fn note(&self, name: &str, turn: Turn) {
        let mut before = Vec::new();
        self.lineup.send_modify(|lineup| {
            before = lineup.missing();
            lineup.note(name, turn);
        });
        if before.is_empty() != self.is_open() {
            let text = match self.shut_because() {
                None => "the ingress is open: every required container is there".to_owned(),
                Some(why) => format!("the ingress is shut: {why}"),
            };
            self.events.add(EventKind::Ingress, "", "", &text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ingress() -> Ingress {
        let policy = Policy::parse(include_str!("../../tests/common/policy.toml")).unwrap();
        Ingress::new(&policy, Events::new())
    }

    const ENDED: Turn = Turn::Ended {
        status: 0,
        paused: false,
    };

    #[tokio::test]
    async fn t1_it_opens_and_shuts_with_the_containers_and_says_so() {
        let ingress = ingress();
        assert_eq!(ingress.shut_because().unwrap(), "container \"server\" does not run");
        ingress.note("server", Turn::Running);
        assert!(ingress.is_open() && ingress.shut_because().is_none());
        let shut = tokio::spawn({
            let ingress = ingress.clone();
            async move { ingress.shut().await }
        });
        ingress.note("server", ENDED);
        shut.await.unwrap();
        let first = ingress.events.next(0).await;
        assert_eq!((first.kind.as_str(), first.number), ("ingress", 1));
        assert_eq!(first.text, "the ingress is open: every required container is there");
        let second = ingress.events.next(1).await;
        assert_eq!(second.text, "the ingress is shut: container \"server\" does not run");
    }

    #[tokio::test]
    async fn what_changes_nothing_is_no_event() {
        let ingress = ingress();
        ingress.note("server", Turn::Running);
        ingress.note("server", Turn::Running);
        ingress.note("server", ENDED);
        assert!(ingress.is_open());
        assert_eq!(ingress.events.next(0).await.number, 1);
        let more = tokio::time::timeout(std::time::Duration::from_millis(20), ingress.events.next(1)).await;
        assert!(more.is_err());
    }
}
