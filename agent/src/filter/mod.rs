//! The policy's `[network]` on the pod's containers: whom they may speak to, and who may speak to them.
//!
//! Programs at the cgroup of all containers judge every packet of their sockets (`program` says how). The agent itself is in
//! another cgroup: key broker and registries are reached whatever stands here. While the pod's ingress is shut no client's
//! packet passes, whoever of the containers listens. docs/adr/0015 says why it is done this way.
//!
//! ```text
//! shut ──the ingress opens──▶ open ──it shuts──▶ shut        each step puts one program in place of the other
//! ```
//! Where the kernel does not take a program there is no pod: it fails closed.

mod insn;
mod program;
mod sys;

use std::{
    fs::File,
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use cella_policy::{NetworkPolicy, Policy, check::Denial};
use nix::errno::Errno;

use self::{
    insn::Insn,
    program::{Direction, Family},
    sys::{Counters, Hook, Program},
};
use crate::pod::{EventKind, Events, Ingress};
pub use insn::TooLong;

/// The filter of a pod, in place. Taken away only with its cgroup.
#[derive(Debug)]
pub struct Filter {
    cgroup: OwnedFd,
    counters: Counters,
    shut: [(Hook, Program); 2],
    open: [(Hook, Program); 2],
}

/// Why a pod cannot have its filter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// There is no such cgroup.
    #[error("opening the cgroup {}", path.display())]
    Cgroup {
        /// Where it should be.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A program that cannot be.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// The kernel refused.
    #[error("{what} the network filter: {}", source.desc())]
    Kernel {
        /// What was being done.
        what: &'static str,
        /// What it said.
        source: Errno,
    },
}

impl Filter {
    /// Whether `policy` asks for a filter at all: not where everything is left to the host and nobody is waited for.
    pub fn is_wanted(policy: &Policy) -> bool {
        let NetworkPolicy { egress, ingress } = policy.network();
        !(egress.is_any() && ingress.is_any() && policy.requires_nobody())
    }

    /// Puts it at the cgroup `path`, shut. `own` are the pod's addresses. Blocks for milliseconds.
    pub fn attach(path: &Path, policy: &NetworkPolicy, own: &[IpAddr]) -> Result<Self, FilterError> {
        let cgroup = File::open(path).map_err(|source| FilterError::Cgroup {
            path: path.to_owned(),
            source,
        })?;
        let failed = |what| move |source| FilterError::Kernel { what, source };
        let counters = Counters::make().map_err(failed("making the counters of"))?;
        let load = |hook, program: Vec<Insn>| {
            let loaded = Program::load(hook, &program).map_err(failed("loading"))?;
            Ok::<_, FilterError>((hook, loaded))
        };
        let packets = |hook, direction, open| {
            let program = program::packets(policy, direction, open, counters.descriptor())?;
            load(hook, program)
        };
        let both = |open| {
            Ok::<_, FilterError>([
                packets(Hook::PacketsIn, Direction::In, open)?,
                packets(Hook::PacketsOut, Direction::Out, open)?,
            ])
        };
        let filter = Self {
            shut: both(false)?,
            open: both(true)?,
            cgroup: cgroup.into(),
            counters,
        };
        filter.set(false)?;
        for (hook, family) in [(Hook::Connect4, Family::V4), (Hook::Connect6, Family::V6)] {
            let (hook, loaded) = load(hook, program::connections(policy, family, own)?)?;
            loaded.attach(hook, &filter.cgroup).map_err(failed("attaching"))?;
        }
        Ok(filter)
    }

    /// Opens or shuts the way in. What comes in when it shuts, on connections that are there, is dropped as well.
    pub fn set(&self, open: bool) -> Result<(), FilterError> {
        let programs = if open { &self.open } else { &self.shut };
        programs.iter().try_for_each(|(hook, program)| {
            let attached = program.attach(*hook, &self.cgroup);
            attached.map_err(|source| FilterError::Kernel {
                what: "attaching",
                source,
            })
        })
    }

    /// Packets that were refused so far: from outside, from the containers.
    pub fn refused(&self) -> Refused {
        let count = |direction| self.counters.read(direction as u32).unwrap_or(0);
        Refused {
            incoming: count(Direction::In),
            outgoing: count(Direction::Out),
        }
    }
}

/// How many packets were refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// From outside.
    pub incoming: u64,
    /// From the containers.
    pub outgoing: u64,
}

/// Follows the pod's ingress for ever, and tells of what was refused. Where the kernel does not put a program in place, `fail`
/// is called: the way in may then be open that should be shut.
pub async fn follow(filter: Filter, ingress: Ingress, events: Events, fail: impl Fn(FilterError) + Send) {
    let mut lineup = ingress.follow();
    let mut told = Refused::default();
    if let Err(error) = filter.set(ingress.is_open()) {
        return fail(error);
    }
    let mut tick = tokio::time::interval(REPORT_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changed = lineup.changed() => {
                // The sender is in `ingress`, which is ours.
                if changed.is_err() {
                    return;
                }
                let open = lineup.borrow_and_update().missing().is_empty();
                if let Err(error) = filter.set(open) {
                    return fail(error);
                }
            }
            _ = tick.tick() => told = report(told, filter.refused(), &events),
        }
    }
}

/// How many, in powers of two and once a minute: a container that counts with refused packets says little (threat T3).
fn report(told: Refused, now: Refused, events: &Events) -> Refused {
    let news = |told: u64, now: u64| {
        let packets = now.saturating_sub(told);
        (packets > 0).then(|| packets.checked_next_power_of_two().unwrap_or(u64::MAX))
    };
    let outgoing = news(told.outgoing, now.outgoing).map(|packets| Denial::Egress { packets });
    let incoming = news(told.incoming, now.incoming).map(|packets| Denial::Ingress { packets });
    for denial in outgoing.into_iter().chain(incoming) {
        events.add(EventKind::Denied, "", "", &denial.to_string());
    }
    now
}

const REPORT_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
