//! Calls about one process: a container's own, or an exec's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cella_protos::agent as wire;
use ttrpc::context::Context;

use super::{Agent, AgentError, Ended, ExitInfo, Pipes, ProcessId, QUICK, bounded, failure, within};

/// For a signal, which is a system call in the guest; a SIGKILL to a container that takes longer costs the VM.
const SIGNAL: Duration = Duration::from_secs(5);
/// Longest termination message, in bytes: Kubernetes takes no more.
const MAX_TERMINATION_MESSAGE: usize = 4096;

impl Agent {
    /// Asks for a container; a denial by the policy is [`AgentError::Refused`].
    ///
    /// # Errors
    /// See [`AgentError`]; 10 s at most. Pipes that were not asked for are invalid, and so is one number for two of them.
    pub async fn create_container(&self, request: &wire::CreateContainerRequest) -> Result<Pipes, AgentError> {
        const CALL: &str = "CreateContainer";
        let call = self.client.create_container(within(QUICK), request);
        let answer = bounded(CALL, QUICK, call).await?;
        pipes([request.stdin, request.stdout, request.stderr], &answer)
            .map_err(|what| AgentError::Invalid { call: CALL, what })
    }

    /// Asks for a further process in a running container; a denial by the policy is [`AgentError::Refused`].
    ///
    /// # Errors
    /// As [`Agent::create_container`].
    pub async fn exec_process(&self, request: &wire::ExecProcessRequest) -> Result<Pipes, AgentError> {
        const CALL: &str = "ExecProcess";
        let call = self.client.exec_process(within(QUICK), request);
        let answer = bounded(CALL, QUICK, call).await?;
        pipes([request.stdin, request.stdout, request.stderr], &answer)
            .map_err(|what| AgentError::Invalid { call: CALL, what })
    }

    /// Starts a process. A container's waits for keys, image and models, however long that takes: cancel it when the VM dies.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn start_process(&self, id: &ProcessId) -> Result<(), AgentError> {
        let request = wire::StartContainerRequest {
            id: id.container.clone(),
            exec_id: id.exec.clone(),
            ..Default::default()
        };
        let answer = self.client.start_container(Context::default(), &request).await;
        answer.map(drop).map_err(|error| failure("StartContainer", error))
    }

    /// Waits for a process's end. Cancel it when the VM dies.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn wait_process(&self, id: &ProcessId) -> Result<Ended, AgentError> {
        let request = wire::WaitContainerRequest {
            id: id.container.clone(),
            exec_id: id.exec.clone(),
            ..Default::default()
        };
        let answer = self.client.wait_container(Context::default(), &request).await;
        answer
            .map(|answer| ended(answer, SystemTime::now()))
            .map_err(|error| failure("WaitContainer", error))
    }

    /// Sends a signal to a process, or to all of its container's.
    ///
    /// # Errors
    /// See [`AgentError`]; 5 s at most.
    pub async fn signal_process(&self, id: &ProcessId, signal: u32, all: bool) -> Result<(), AgentError> {
        let request = wire::SignalContainerRequest {
            id: id.container.clone(),
            exec_id: id.exec.clone(),
            signal,
            all,
            ..Default::default()
        };
        let call = self.client.signal_container(within(SIGNAL), &request);
        bounded("SignalContainer", SIGNAL, call).await.map(drop)
    }

    /// Sets the size of a process's terminal.
    ///
    /// # Errors
    /// See [`AgentError`]; 10 s at most.
    pub async fn resize_terminal(&self, id: &ProcessId, columns: u32, rows: u32) -> Result<(), AgentError> {
        let request = wire::ResizeTerminalRequest {
            id: id.container.clone(),
            exec_id: id.exec.clone(),
            columns,
            rows,
            ..Default::default()
        };
        let call = self.client.resize_terminal(within(QUICK), &request);
        bounded("ResizeTerminal", QUICK, call).await.map(drop)
    }

    /// Removes a process that is not running; a container's own with the container.
    ///
    /// # Errors
    /// See [`AgentError`]; 10 s at most.
    pub async fn delete_process(&self, id: &ProcessId) -> Result<(), AgentError> {
        let request = wire::DeleteContainerRequest {
            id: id.container.clone(),
            exec_id: id.exec.clone(),
            ..Default::default()
        };
        let call = self.client.delete_container(within(QUICK), &request);
        bounded("DeleteContainer", QUICK, call).await.map(drop)
    }
}

/// The streams of an answer to a request for some of stdin, stdout, stderr. In a terminal, stdin and stdout are one device
/// and still two streams.
fn pipes(wanted: [bool; 3], answer: &wire::CreateContainerResponse) -> Result<Pipes, &'static str> {
    let numbers = [answer.stdin_stream, answer.stdout_stream, answer.stderr_stream];
    let mut seen = Vec::with_capacity(numbers.len());
    for (wanted, number) in wanted.into_iter().zip(numbers) {
        if number != 0 && !wanted {
            return Err("a pipe that was not asked for");
        }
        if number != 0 && seen.contains(&number) {
            return Err("two pipes with one number");
        }
        seen.push(number);
    }
    let some = |number: u32| (number != 0).then_some(number);
    Ok(Pipes {
        stdin: some(answer.stdin_stream),
        stdout: some(answer.stdout_stream),
        stderr: some(answer.stderr_stream),
    })
}

/// The guest's clock is its own; a time that is before the epoch or in the future is replaced by `now`.
fn ended(answer: wire::WaitContainerResponse, now: SystemTime) -> Ended {
    let told = u64::try_from(answer.exited_at_unix_ns).ok().filter(|ns| *ns > 0);
    let at = told
        .and_then(|ns| UNIX_EPOCH.checked_add(Duration::from_nanos(ns)))
        .filter(|at| *at <= now);
    let mut termination_message = answer.termination_message;
    termination_message.truncate(MAX_TERMINATION_MESSAGE);
    Ended {
        exit: ExitInfo {
            status: answer.exit_status.min(255),
            at: at.unwrap_or(now),
        },
        out_of_memory: answer.out_of_memory,
        termination_message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_must_match_the_request() {
        let wanted = [false, true, true];
        let answer = |stdin_stream, stdout_stream, stderr_stream| wire::CreateContainerResponse {
            stdin_stream,
            stdout_stream,
            stderr_stream,
            ..Default::default()
        };
        let good = Pipes {
            stdin: None,
            stdout: Some(5),
            stderr: None,
        };
        assert_eq!(pipes(wanted, &answer(0, 5, 0)), Ok(good));
        assert!(pipes(wanted, &answer(1, 5, 0)).is_err());
        assert!(pipes(wanted, &answer(0, 5, 5)).is_err());
    }

    #[test]
    fn a_guest_cannot_die_in_the_future() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let info = |exit_status, exited_at_unix_ns| {
            let answer = wire::WaitContainerResponse {
                exit_status,
                exited_at_unix_ns,
                ..Default::default()
            };
            ended(answer, now).exit
        };
        assert_eq!(
            info(137, 5),
            ExitInfo {
                status: 137,
                at: UNIX_EPOCH + Duration::from_nanos(5)
            }
        );
        for odd in [0, -1, i64::MIN, i64::MAX] {
            assert_eq!(info(u32::MAX, odd), ExitInfo { status: 255, at: now });
        }
    }

    #[test]
    fn a_termination_message_is_cut() {
        let answer = wire::WaitContainerResponse {
            termination_message: vec![b'x'; 1 << 20],
            ..Default::default()
        };
        assert_eq!(ended(answer, SystemTime::now()).termination_message.len(), 4096);
    }
}
