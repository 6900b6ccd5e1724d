//! A process's pipes: one end for the process, the other offered to the host; or a terminal in their place.

use std::{io, os::fd::OwnedFd};

use cella_policy::Stdio as StdioPolicy;
use nix::{fcntl::OFlag, unistd::pipe2};
use tokio::net::unix::pipe::{Receiver, Sender};

use crate::{
    launch::Stdio,
    stream::{Pipe, Streams, Terminal},
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

/// A process's connections with the host.
#[derive(Default)]
pub(super) struct Pipes {
    /// The process's ends.
    pub(super) stdio: Stdio,
    /// The agent's ends, on offer.
    pub(super) numbers: StreamNumbers,
    /// Instead of pipes.
    pub(super) terminal: Option<Terminal>,
}

/// Makes the pipes. Where the policy denies them the process gets `/dev/null`, and what it prints on a terminal is dropped:
/// it stays in the guest (T3).
pub(super) fn make(wanted: WantedPipes, terminal: bool, policy: StdioPolicy, streams: &Streams) -> io::Result<Pipes> {
    let wanted = if policy == StdioPolicy::Allow {
        wanted
    } else {
        WantedPipes::default()
    };
    if terminal {
        return Ok(with_terminal(wanted, streams));
    }
    let mut pipes = Pipes::default();
    let Pipes { stdio, numbers, .. } = &mut pipes;
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
    Ok(pipes)
}

/// One terminal for all three; what it prints is read whether the host wants it or not.
fn with_terminal(wanted: WantedPipes, streams: &Streams) -> Pipes {
    let terminal = Terminal::default();
    let mut pipes = Pipes::default();
    if wanted.stdin {
        pipes.numbers.stdin = streams.offer(Pipe::TerminalInput(terminal.pending()));
    }
    if wanted.stdout {
        pipes.numbers.stdout = streams.offer(Pipe::TerminalOutput(terminal.pending()));
    } else {
        streams.drop_output(Pipe::TerminalOutput(terminal.pending()));
    }
    pipes.terminal = Some(terminal);
    pipes
}

/// Only the agent's end: the two ends have descriptions of their own.
fn nonblocking(fd: OwnedFd) -> io::Result<OwnedFd> {
    nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(fd)
}
