//! A process's pipes: one end for the process, the other offered to the host; or a terminal in their place.

use std::{io, os::fd::OwnedFd};

use cella_policy::{Output, Stdio as StdioPolicy};
use nix::{fcntl::OFlag, unistd::pipe2};
use tokio::net::unix::pipe::{Receiver, Sender};

use super::ProcessId;
use crate::{
    launch::Stdio,
    pod::{Events, Ingress},
    stream::{Meter, Pipe, Streams, Terminal},
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

/// What the policy lets out of a process and into it, and who is told of what it does not.
pub(super) struct Outlet {
    pub(super) policy: StdioPolicy,
    pub(super) events: Events,
    /// While it is shut nothing gets in.
    pub(super) ingress: Ingress,
    pub(super) process: ProcessId,
}

impl Outlet {
    fn meter(&self, stream: &'static str) -> Meter {
        Meter {
            events: self.events.clone(),
            container: self.process.container.to_string(),
            exec_id: self.process.exec.as_ref().map(ToString::to_string).unwrap_or_default(),
            stream,
        }
    }
}

/// Makes the pipes. Where the policy denies them the process gets `/dev/null`, and what it prints on a terminal is dropped:
/// it stays in the guest (T3). Where it redacts them the agent reads, counts and drops.
pub(super) fn make(wanted: WantedPipes, terminal: bool, outlet: &Outlet, streams: &Streams) -> io::Result<Pipes> {
    let policy = outlet.policy;
    let stdin = wanted.stdin && policy.stdin;
    if terminal {
        let output = if wanted.stdout { policy.terminal() } else { Output::Deny };
        return Ok(with_terminal(stdin, output, outlet, streams));
    }
    let mut pipes = Pipes::default();
    let Pipes { stdio, numbers, .. } = &mut pipes;
    if stdin {
        let (process, agent) = pipe2(OFlag::O_CLOEXEC)?;
        let agent = Sender::from_owned_fd(nonblocking(agent)?)?;
        numbers.stdin = streams.offer(Pipe::Input(agent, outlet.ingress.clone()));
        stdio.stdin = Some(process);
    }
    for (name, output, number, slot) in [
        (
            "stdout",
            output_of(wanted.stdout, policy.stdout),
            &mut numbers.stdout,
            &mut stdio.stdout,
        ),
        (
            "stderr",
            output_of(wanted.stderr, policy.stderr),
            &mut numbers.stderr,
            &mut stdio.stderr,
        ),
    ] {
        if output == Output::Deny {
            continue;
        }
        let (agent, process) = pipe2(OFlag::O_CLOEXEC)?;
        let pipe = Pipe::Output(Receiver::from_owned_fd(nonblocking(agent)?)?);
        match output {
            Output::Allow => *number = streams.offer(pipe),
            Output::Redact | Output::Deny => streams.meter_output(pipe, outlet.meter(name)),
        }
        *slot = Some(process);
    }
    Ok(pipes)
}

/// What the host does not want is not made for it either.
fn output_of(wanted: bool, policy: Output) -> Output {
    if wanted { policy } else { Output::Deny }
}

/// One terminal for all three; what it prints is read whether the host wants it or not.
fn with_terminal(stdin: bool, output: Output, outlet: &Outlet, streams: &Streams) -> Pipes {
    let terminal = Terminal::default();
    let mut pipes = Pipes::default();
    if stdin {
        pipes.numbers.stdin = streams.offer(Pipe::TerminalInput(terminal.pending(), outlet.ingress.clone()));
    }
    let pipe = Pipe::TerminalOutput(terminal.pending());
    match output {
        Output::Allow => pipes.numbers.stdout = streams.offer(pipe),
        Output::Redact => streams.meter_output(pipe, outlet.meter("terminal")),
        Output::Deny => streams.drop_output(pipe),
    }
    pipes.terminal = Some(terminal);
    pipes
}

/// Only the agent's end: the two ends have descriptions of their own.
fn nonblocking(fd: OwnedFd) -> io::Result<OwnedFd> {
    nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(fd)
}
