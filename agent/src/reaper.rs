//! Collects every child of the agent, as process 1 must, and tells whoever waits for one how it ended.
//!
//! One lock is held while a child is spawned, reaped or signalled: a signal can never hit a process that took over the
//! number of a dead one, and no exit is reaped before its process is known.

use std::{
    collections::HashMap,
    io,
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use nix::unistd::Pid;
use tokio::sync::watch;

use crate::guest::signal;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code, or 128 + the signal that killed it.
    pub status: u32,
    /// When it was reaped, by the guest's clock.
    pub at: SystemTime,
}

/// The children that somebody waits for.
#[derive(Clone, Debug, Default)]
pub struct Reaper {
    children: Arc<Mutex<HashMap<i32, watch::Sender<Option<Exit>>>>>,
}

impl Reaper {
    /// Without children.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a command; its exit is reaped here, so `Child::wait` must not be used.
    pub fn spawn(&self, command: &mut Command) -> io::Result<ExitWatch> {
        let mut children = self.lock();
        let pid = command.spawn()?.id();
        Ok(watch_child(&mut children, pid))
    }

    /// Waits for a process that is, or will become, a child of the agent and cannot have been reaped yet.
    pub fn register(&self, pid: u32) -> ExitWatch {
        watch_child(&mut self.lock(), pid)
    }

    /// Reaps every child that has ended. Call it on each SIGCHLD.
    pub fn reap(&self) {
        let mut children = self.lock();
        while let Some(ended) = signal::reap_one() {
            if let Some(waiter) = children.remove(&ended.pid) {
                waiter.send_replace(Some(Exit {
                    status: ended.status,
                    at: SystemTime::now(),
                }));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, watch::Sender<Option<Exit>>>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for the end of one process; clones wait for the same.
#[derive(Clone, Debug)]
pub struct ExitWatch {
    pid: i32,
    exit: watch::Receiver<Option<Exit>>,
}

impl ExitWatch {
    /// How the process ended, as soon as it has. Safe to cancel.
    pub async fn wait(&mut self) -> Exit {
        match self.exit.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(exit)) => *exit,
            // The sender went without a word: the reaper is gone, and the process with it.
            _ => Exit {
                status: UNKNOWN_STATUS,
                at: SystemTime::now(),
            },
        }
    }

    /// How the process ended; `None` while it runs.
    pub fn ended(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Sends a signal if the process has not been reaped; whether it was sent.
    pub fn kill(&self, reaper: &Reaper, number: i32) -> bool {
        let children = reaper.lock();
        children.contains_key(&self.pid) && signal::send(Pid::from_raw(self.pid), number).is_ok()
    }
}

fn watch_child(children: &mut HashMap<i32, watch::Sender<Option<Exit>>>, pid: u32) -> ExitWatch {
    let pid = i32::try_from(pid).unwrap_or(0);
    let (sender, exit) = watch::channel(None);
    if pid > 0 {
        children.insert(pid, sender);
    }
    ExitWatch { pid, exit }
}

/// What is reported for a process whose end nobody saw.
const UNKNOWN_STATUS: u32 = 255;
