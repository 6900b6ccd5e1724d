//! A container's pipes: one end for its process, the other offered to the host.

use std::{io, os::fd::OwnedFd};

use cella_policy::Stdio as StdioPolicy;
use nix::{fcntl::OFlag, unistd::pipe2};
use tokio::net::unix::pipe::{Receiver, Sender};

use crate::{
    launch::Stdio,
    stream::{Pipe, Streams},
};

/// Which pipes the host asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WantedPipes {
    /// Input.
    pub stdin: bool,
    /// Output.
    pub stdout: bool,
    /// Error output.
    pub stderr: bool,
}

/// The numbers under which the pipes are offered; 0 = no such pipe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamNumbers {
    /// Input.
    pub stdin: u32,
    /// Output.
    pub stdout: u32,
    /// Error output.
    pub stderr: u32,
}

impl StreamNumbers {
    /// Takes back what nobody has taken.
    pub(super) fn withdraw(self, streams: &Streams) {
        for number in [self.stdin, self.stdout, self.stderr] {
            streams.withdraw(number);
        }
    }
}

/// Makes the pipes. Where the policy denies them the process gets `/dev/null`: what it prints stays in the guest (T3).
pub(super) fn make(wanted: WantedPipes, policy: StdioPolicy, streams: &Streams) -> io::Result<(Stdio, StreamNumbers)> {
    let wanted = if policy == StdioPolicy::Allow {
        wanted
    } else {
        WantedPipes::default()
    };
    let (mut stdio, mut numbers) = (Stdio::default(), StreamNumbers::default());
    if wanted.stdin {
        let (process, agent) = pipe2(OFlag::O_CLOEXEC)?;
        numbers.stdin = streams.offer(Pipe::Input(Sender::from_owned_fd(nonblocking(agent)?)?));
        stdio.stdin = Some(process);
    }
    for (wanted, number, slot) in [
        (wanted.stdout, &mut numbers.stdout, &mut stdio.stdout),
        (wanted.stderr, &mut numbers.stderr, &mut stdio.stderr),
    ] {
        if wanted {
            let (agent, process) = pipe2(OFlag::O_CLOEXEC)?;
            *number = streams.offer(Pipe::Output(Receiver::from_owned_fd(nonblocking(agent)?)?));
            *slot = Some(process);
        }
    }
    Ok((stdio, numbers))
}

/// Only the agent's end: the two ends have descriptions of their own.
fn nonblocking(fd: OwnedFd) -> io::Result<OwnedFd> {
    nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(fd)
}
