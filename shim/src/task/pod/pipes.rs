//! Between containerd's fifos and the guest's streams.

use containerd_shim::asynchronous::io::{IoTasks, Stdio};
use containerd_shim::protos::shim::shim::CreateTaskRequest;

use super::super::error::TaskError;
use super::Container;
use crate::agent::{Agent, Pipes};
use crate::metrics::{Counted, Pipe};
use crate::vm::Vm;
use crate::vsock::Stream;

/// Connects the guest's output with containerd's fifos and gives the stream for its input. Where the policy keeps a pipe in
/// the guest, the fifo gets its end of file at once, so that nobody waits for it.
pub(super) async fn attach(
    vm: &Vm,
    pipes: &Pipes,
    stdio: &Stdio,
    io: &IoTasks,
) -> Result<Option<Box<dyn Stream>>, TaskError> {
    for (pipe, counter, number, path) in [
        ("stdout", Pipe::Stdout, pipes.stdout, &stdio.stdout),
        ("stderr", Pipe::Stderr, pipes.stderr, &stdio.stderr),
    ] {
        if path.is_empty() {
            continue;
        }
        let attached = match number {
            Some(number) => {
                let stream = Agent::open_pipe(vm.transport(), number).await?;
                io.copy_to_fifo(Counted::new(stream, counter), path)
            }
            None => io.copy_to_fifo(tokio::io::empty(), path),
        };
        attached.map_err(|source| TaskError::Stdio {
            pipe,
            source: Box::new(source),
        })?;
    }
    match pipes.stdin {
        Some(number) => Ok(Some(Agent::open_pipe(vm.transport(), number).await?)),
        None => Ok(None),
    }
}

/// Connects containerd's fifo with the guest's input, when the container starts and not before: a client whose input is short
/// reads its end as soon as somebody reads the fifo, and `ctr` forgets to tell (CloseIO) while it still waits for Create.
pub(super) fn attach_stdin(container: &Container) -> Result<(), TaskError> {
    let Some(stream) = container.take_stdin() else {
        return Ok(());
    };
    let attached = container
        .io()
        .copy_from_fifo(&container.stdio().stdin, Counted::new(stream, Pipe::Stdin));
    attached.map_err(|source| TaskError::Stdio {
        pipe: "stdin",
        source: Box::new(source),
    })
}

/// Fifos or nothing: a log driver's URI is refused before anything is started.
pub(super) fn checked_stdio(req: &CreateTaskRequest) -> Result<Stdio, TaskError> {
    for (pipe, path) in [("stdin", &req.stdin), ("stdout", &req.stdout), ("stderr", &req.stderr)] {
        if !path.is_empty() && !path.starts_with('/') {
            return Err(TaskError::StdioKind {
                pipe,
                uri: crate::untrusted::printable(path, 128),
            });
        }
    }
    Ok(Stdio::new(&req.stdin, &req.stdout, &req.stderr, req.terminal))
}
