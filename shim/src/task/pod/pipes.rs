//! Between containerd's fifos or files and the guest's streams.

use std::time::Duration;

use super::super::copies::Copies;
use super::super::error::TaskError;
use super::super::process::{Kind, Phase, Process};
use super::super::stdio::Stdio;
use crate::agent::{Agent, Pipes};
use crate::metrics::{Counted, Pipe};
use crate::vm::Vm;
use crate::vsock::Stream;

/// How long the deletion of a container waits for a reader of the rest of its output.
const LAST_OUTPUT: Duration = Duration::from_secs(5);
/// How long that of an exec does; the agent holds the rest as long.
const EXEC_OUTPUT: Duration = Duration::from_secs(300);

/// Connects the guest's output with its places and gives the stream for its input. Where the policy keeps a pipe in the
/// guest, the fifo gets its end of file at once, so that nobody waits for it.
pub(super) async fn attach(
    vm: &Vm,
    pipes: &Pipes,
    stdio: &Stdio,
    io: &Copies,
) -> Result<Option<Box<dyn Stream>>, TaskError> {
    let counters = [Pipe::Stdout, Pipe::Stderr];
    let numbers = [pipes.stdout, pipes.stderr];
    for (((pipe, place), number), counter) in stdio.outputs()?.into_iter().zip(numbers).zip(counters) {
        let Some(place) = place else { continue };
        let attached = match number {
            Some(number) => {
                let stream = Agent::open_pipe(vm.transport(), number).await?;
                io.output(Counted::new(stream, counter), &place)
            }
            None => io.output(tokio::io::empty(), &place),
        };
        attached.map_err(|source| TaskError::Stdio { pipe, source })?;
    }
    match pipes.stdin {
        Some(number) => Ok(Some(Agent::open_pipe(vm.transport(), number).await?)),
        None => Ok(None),
    }
}

/// Connects containerd's fifo with the guest's input, when the process starts and not before: a client whose input is short
/// reads its end as soon as somebody reads the fifo, and `ctr` forgets to tell (CloseIO) while it still waits for Create.
pub(super) fn attach_stdin(process: &Process) -> Result<(), TaskError> {
    let (Some(stream), Some(path)) = (process.take_stdin(), process.stdio().input()?) else {
        return Ok(());
    };
    let attached = process.io().input(&path, Counted::new(stream, Pipe::Stdin));
    attached.map_err(|source| TaskError::Stdio { pipe: "stdin", source })
}

/// Delivers the rest of a deleted process's output to whoever still reads it, then releases the fifos. containerd's clients let
/// go of an exec's fifos as soon as it is deleted, so its deletion waits for a slow reader; they let go of a container's before.
pub(super) async fn deliver_rest(process: &Process) {
    if process.phase() != Phase::Created {
        let patience = match process.kind() {
            Kind::Exec => EXEC_OUTPUT,
            Kind::Workload | Kind::Alone | Kind::Sandbox => LAST_OUTPUT,
        };
        process.io().let_go();
        process.io().delivered(patience).await;
    }
    process.io().abort().await;
}
