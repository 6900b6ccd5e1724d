//! Further processes in a container, and their terminals.

use std::sync::Arc;

use containerd_shim::protos::events::task::TaskExecAdded;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::shim::shim::ExecProcessRequest;
use slog::{debug, info};

use super::super::error::TaskError;
use super::super::process::{Kind, Phase, Process, TerminalSize};
use super::super::stdio::Stdio;
use super::process::{explain, has_ended};
use super::{Pod, terminal_size, user};
use crate::agent::{AgentError, ProcessId};
use crate::bundle::oci;
use crate::container_spec::translate_exec;

/// Longest exec id, in bytes; containerd's own are 64.
const MAX_EXEC_ID: usize = 128;
/// Longest process specification, in bytes: what fits into one ttrpc frame.
const MAX_PROCESS: usize = 4 << 20;

impl Pod {
    /// Makes a further process in a running container. [`Pod::start`] runs it.
    ///
    /// # Errors
    /// See [`TaskError`]; a denial by the policy is the agent's. Nothing is left in the guest then.
    pub async fn exec(self: Arc<Self>, req: ExecProcessRequest) -> Result<(), TaskError> {
        let container = self.container(&req.id)?;
        if req.exec_id.is_empty() || req.exec_id.len() > MAX_EXEC_ID {
            return Err(TaskError::ExecId { max: MAX_EXEC_ID });
        }
        let id = ProcessId::exec(&req.id, &req.exec_id);
        if container.exec(&req.exec_id).is_ok() {
            return Err(TaskError::Exists { id });
        }
        if container.process().kind() == Kind::Sandbox {
            return Err(TaskError::Unsupported {
                what: "exec in a sandbox, which has no process in the guest,",
            });
        }
        if container.is_paused() {
            return Err(TaskError::Paused {
                id: req.id,
                is: "paused",
            });
        }
        if container.process().phase() != Phase::Running {
            return Err(container.process().wrong_phase("running"));
        }
        let stdio = Stdio::new(&req.stdin, &req.stdout, &req.stderr, req.terminal)?;
        let process = process_of(req.spec.as_ref())?;
        let vm = self.vm()?;
        let mut request = translate_exec(&process, req.terminal);
        request.user = Some(user(&process.user, container.roots().to_vec()).await?).into();
        request.id.clone_from(&req.id);
        request.exec_id.clone_from(&req.exec_id);
        [request.stdin, request.stdout, request.stderr] = stdio.wanted();
        let pipes = match vm.agent().exec_process(&request).await {
            Ok(pipes) => pipes,
            Err(error) => return Err(explain(&vm, error).await),
        };
        let size = terminal_size(&process);
        let exec = self.attached(&vm, id.clone(), Kind::Exec, stdio, pipes, size).await?;
        let exec = Arc::new(exec);
        let added = TaskExecAdded {
            container_id: req.id,
            exec_id: req.exec_id,
            ..Default::default()
        };
        if let Err(error) = container.add_exec(exec.clone(), || self.parts.events.publish(added)) {
            exec.io().abort().await;
            self.delete_in_guest_of(&vm, &id).await;
            return Err(error);
        }
        info!(self.parts.log, "exec created"; "process" => %id);
        Ok(())
    }

    /// Sets the size of a process's terminal, now or when it starts. Without a terminal there is nothing to do.
    ///
    /// # Errors
    /// It has ended, or the agent refuses.
    pub async fn resize(&self, process: &Process, size: TerminalSize) -> Result<(), TaskError> {
        match process.phase() {
            Phase::Exiting | Phase::Stopped(_) => Err(TaskError::Finished),
            _ if !process.stdio().terminal => Ok(()),
            Phase::Created | Phase::Starting => {
                process.keep_size(size);
                Ok(())
            }
            Phase::Running => self.resize_running(process, size).await,
        }
    }

    /// Hands over the size that was asked for before the process ran: the agent makes its terminal with it. A terminal of
    /// another size is no reason to fail.
    pub(super) async fn resize_at_start(&self, process: &Process) {
        let Some(size) = process.take_size().filter(|_| process.stdio().terminal) else {
            return;
        };
        if let Err(error) = self.resize_running(process, size).await {
            debug!(self.parts.log, "a terminal keeps its size"; "process" => %process.id(), "error" => error.message());
        }
    }

    async fn resize_running(&self, process: &Process, size: TerminalSize) -> Result<(), TaskError> {
        let vm = self.vm()?;
        let resized = vm.agent().resize_terminal(process.id(), size.columns, size.rows).await;
        match resized {
            Err(AgentError::Refused { code, .. }) if has_ended(code) => Err(TaskError::Finished),
            resized => Ok(resized?),
        }
    }
}

/// The OCI process that an exec request carries, as JSON in an Any.
fn process_of(spec: Option<&Any>) -> Result<oci::Process, TaskError> {
    const WHAT: &str = "the exec's process";
    let any = spec.ok_or(TaskError::Type {
        what: WHAT,
        type_url: String::new(),
    })?;
    if any.type_url.rsplit('/').next() != Some("Process") {
        return Err(TaskError::Type {
            what: WHAT,
            type_url: crate::untrusted::printable(&any.type_url, 128),
        });
    }
    if any.value.len() > MAX_PROCESS {
        return Err(TaskError::TooLong {
            what: WHAT,
            max: MAX_PROCESS,
        });
    }
    serde_json::from_slice(&any.value).map_err(|source| TaskError::Malformed { what: WHAT, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

    fn any(type_url: &str, value: &str) -> Any {
        Any {
            type_url: type_url.into(),
            value: value.into(),
            ..Default::default()
        }
    }

    #[test]
    fn the_process_is_json_in_an_any() {
        let text = r#"{"terminal": true, "consoleSize": {"height": 24, "width": 80}, "args": ["sh"], "cwd": "/", "user": {"uid": 1, "gid": 2}}"#;
        let process = process_of(Some(&any(TYPE, text))).unwrap();
        assert_eq!(
            (process.args.as_slice(), process.user.gid),
            (["sh".to_owned()].as_slice(), 2)
        );
        let size = TerminalSize { columns: 80, rows: 24 };
        assert_eq!(terminal_size(&process), Some(size));
        let request = translate_exec(&process, false);
        assert!(request.terminal);
        assert_eq!(request.user.uid, 1);
    }

    #[test]
    fn anything_else_is_refused() {
        assert!(matches!(process_of(None), Err(TaskError::Type { .. })));
        let foreign = any("types.containerd.io/opencontainers/runtime-spec/1/Spec", "{}");
        assert!(matches!(process_of(Some(&foreign)), Err(TaskError::Type { .. })));
        for bad in ["", "[", "{\"args\": 3}", "3"] {
            let refused = process_of(Some(&any(TYPE, bad)));
            assert!(matches!(refused, Err(TaskError::Malformed { .. })), "{bad}");
        }
        let long = any(TYPE, &" ".repeat(MAX_PROCESS + 1));
        assert!(matches!(process_of(Some(&long)), Err(TaskError::TooLong { .. })));
    }
}
