//! What one instance counts as among the containers that the policy requires.

use std::sync::{Mutex, PoisonError};

use cella_policy::{
    ContainerPolicy,
    check::{Denial, Turn},
};

use crate::pod::Ingress;

/// One instance in the pod's lineup.
#[derive(Debug)]
pub(super) struct Standing {
    name: String,
    ingress: Ingress,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Away,
    Running,
    Paused,
}

impl Standing {
    /// Of an instance of the policy's container `name` that does not run yet.
    pub(super) fn new(name: &str, ingress: &Ingress) -> Self {
        Self {
            name: name.to_owned(),
            ingress: ingress.clone(),
            state: Mutex::new(State::Away),
        }
    }

    /// Whether it is its turn to start.
    pub(super) fn check_start(&self) -> Result<(), Denial> {
        self.ingress.check_start(&self.name)
    }

    /// Whether a command line of the host's choice may run in it.
    pub(super) fn check_exec(&self, policy: &ContainerPolicy) -> Result<(), Denial> {
        self.ingress.check_exec(policy)
    }

    /// Its program runs.
    pub(super) fn started(&self) {
        self.change(|state| (state == State::Away).then_some((State::Running, Turn::Running)));
    }

    /// The host has stopped its processes, or lets them go on.
    pub(super) fn paused(&self, paused: bool) {
        self.change(|state| match (state, paused) {
            (State::Running, true) => Some((State::Paused, Turn::Paused)),
            (State::Paused, false) => Some((State::Running, Turn::Running)),
            _ => None,
        });
    }

    /// Its first process has ended.
    pub(super) fn ended(&self, status: u32) {
        self.change(|state| {
            let paused = state == State::Paused;
            (state != State::Away).then_some((State::Away, Turn::Ended { status, paused }))
        });
    }

    fn change(&self, next: impl FnOnce(State) -> Option<(State, Turn)>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((new, turn)) = next(*state) {
            *state = new;
            self.ingress.note(&self.name, turn);
        }
    }
}

#[cfg(test)]
mod tests {
    use cella_policy::Policy;

    use super::*;
    use crate::pod::Events;

    #[test]
    fn a_pause_and_an_end_count_once() {
        let policy = Policy::parse(include_str!("../../tests/common/policy.toml")).unwrap();
        let ingress = Ingress::new(&policy, Events::new());
        let (one, two) = (Standing::new("server", &ingress), Standing::new("server", &ingress));
        one.paused(true);
        one.ended(0);
        assert!(!ingress.is_open(), "what does not run cannot pause or end");
        one.started();
        one.started();
        two.started();
        one.paused(true);
        one.paused(true);
        assert!(ingress.is_open());
        two.ended(0);
        assert!(!ingress.is_open());
        one.paused(false);
        assert!(ingress.is_open());
        one.paused(true);
        one.ended(137);
        one.ended(137);
        two.started();
        assert!(ingress.is_open());
    }
}
