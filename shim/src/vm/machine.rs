//! The programs and files of one VM, together.

use std::time::Duration;

use tokio::task::JoinHandle;

use super::Death;
use super::console::ConsoleTail;
use super::network::Plug;
use super::rundir::{RunDir, RunDirError};
use crate::metrics::Server;
use crate::network::Forwarder;
use crate::process::{Child, Exit};

/// How long a helper may take to end by itself once QEMU is gone.
const HELPER_PATIENCE: Duration = Duration::from_millis(500);
/// When a helper has ended: how long to look whether QEMU ended first and took it along.
const BLAME: Duration = Duration::from_millis(200);
/// How many of the console's last lines are reported.
const CONSOLE_LINES: usize = 6;

/// What a VM consists of on the host. Dropping it kills the programs and removes the files.
pub(super) struct Machine {
    // QEMU first: fields are dropped in this order, and the files, which say what else there is, go last.
    pub(super) qemu: Option<Child>,
    pub(super) vsock: Option<Child>,
    pub(super) platform: Option<Child>,
    pub(super) console: Option<(ConsoleTail, JoinHandle<()>)>,
    pub(super) metrics: Option<Server>,
    pub(super) forwarder: Option<Forwarder>,
    pub(super) plug: Option<Plug>,
    pub(super) run_dir: RunDir,
}

impl Machine {
    pub(super) fn new(run_dir: RunDir) -> Self {
        Self {
            qemu: None,
            vsock: None,
            platform: None,
            console: None,
            metrics: None,
            forwarder: None,
            plug: None,
            run_dir,
        }
    }

    /// Notes a program in the state file and hands it back.
    pub(super) fn recorded(&mut self, child: Child) -> Result<Child, RunDirError> {
        self.run_dir.record(child.identity())?;
        Ok(child)
    }

    /// Waits until any program has ended; pending where none runs. May be cancelled and called again.
    pub(super) async fn first_exit(&mut self) -> Death {
        let (mut program, mut exit) = tokio::select! {
            biased;
            ended = exited(&mut self.qemu) => ended,
            ended = exited(&mut self.vsock) => ended,
            ended = exited(&mut self.platform) => ended,
        };
        if let Some(qemu) = &mut self.qemu
            && let Some(qemu_exit) = qemu.exited_within(BLAME).await
        {
            (program, exit) = (qemu.name(), qemu_exit);
        }
        let children = [&mut self.qemu, &mut self.vsock, &mut self.platform];
        let stderr = match children.into_iter().flatten().find(|child| child.name() == program) {
            Some(child) => child.last_words(3).await,
            None => Vec::new(),
        };
        Death {
            program,
            exit,
            reason: String::new(),
            stderr,
            console: self.last_console_lines().await,
        }
    }

    /// The console's last lines so far.
    pub(super) fn console_lines(&self) -> Vec<String> {
        self.console
            .as_ref()
            .map(|(tail, _)| tail.last_lines(CONSOLE_LINES))
            .unwrap_or_default()
    }

    /// The console's last lines, for a guest that has ended: waits a moment for what is still on its way.
    pub(super) async fn last_console_lines(&mut self) -> Vec<String> {
        if let Some((_, reader)) = &mut self.console
            && !reader.is_finished()
        {
            // While QEMU lives, for a helper's sake, the console does not end.
            let _ = tokio::time::timeout(BLAME, reader).await;
        }
        self.console_lines()
    }

    /// Ends every program and removes every file. Waits for QEMU's end, whose memory may take a while to be freed.
    pub(super) async fn destroy(mut self) {
        if let Some(qemu) = &mut self.qemu {
            qemu.kill().await;
        }
        for helper in [&mut self.vsock, &mut self.platform].into_iter().flatten() {
            helper.terminate(HELPER_PATIENCE).await;
        }
        if let Some(forwarder) = self.forwarder.take() {
            forwarder.stop().await;
        }
        if let Some(plug) = self.plug.take() {
            plug.pull().await;
        }
        // The stream ended with QEMU; the reader is aborted by the drop otherwise.
        self.last_console_lines().await;
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some((_, reader)) = &self.console {
            reader.abort();
        }
    }
}

async fn exited(child: &mut Option<Child>) -> (&'static str, Exit) {
    match child {
        Some(child) => (child.name(), child.exited().await),
        None => std::future::pending().await,
    }
}
