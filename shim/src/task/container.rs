//! A container: its own process, and those that were added to it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::error::TaskError;
use super::process::{Phase, Process};
use crate::agent::ProcessId;

/// Most execs of one container at a time, ended ones that nobody has deleted included.
pub const MAX_EXECS: usize = 1024;

/// A container as containerd knows it.
pub struct Container {
    bundle: String,
    process: Arc<Process>,
    execs: Mutex<BTreeMap<String, Arc<Process>>>,
    paused: AtomicBool,
    out_of_memory: AtomicBool,
    created_at: SystemTime,
    roots: Vec<String>,
}

impl Container {
    /// A container whose own process is `process`, with the bundle as containerd named it.
    pub fn new(bundle: &str, process: Process) -> Self {
        Self {
            bundle: bundle.to_owned(),
            process: Arc::new(process),
            execs: Mutex::default(),
            paused: AtomicBool::new(false),
            out_of_memory: AtomicBool::new(false),
            created_at: SystemTime::now(),
            roots: Vec::new(),
        }
    }

    /// With the folders on the host that stand for its root.
    #[must_use]
    pub fn with_roots(mut self, roots: Vec<String>) -> Self {
        self.roots = roots;
        self
    }

    /// The folders on the host that stand for its root.
    pub fn roots(&self) -> &[String] {
        &self.roots
    }

    /// When it was created, by the host's clock.
    pub fn created_at(&self) -> SystemTime {
        self.created_at
    }

    /// containerd's id.
    pub fn id(&self) -> &str {
        &self.process.id().container
    }

    /// Its bundle, as containerd named it.
    pub fn bundle(&self) -> &str {
        &self.bundle
    }

    /// The container's own process.
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// The exec with this id.
    ///
    /// # Errors
    /// There is none.
    pub fn exec(&self, exec_id: &str) -> Result<Arc<Process>, TaskError> {
        self.table().get(exec_id).cloned().ok_or_else(|| TaskError::Unknown {
            id: ProcessId::exec(self.id(), exec_id),
        })
    }

    /// Every exec that was not deleted.
    pub fn execs(&self) -> Vec<Arc<Process>> {
        self.table().values().cloned().collect()
    }

    /// Makes an exec known, with `publish` in the same step.
    ///
    /// # Errors
    /// The id is taken, or there are too many.
    pub fn add_exec(&self, exec: Arc<Process>, publish: impl FnOnce()) -> Result<(), TaskError> {
        let mut table = self.table();
        if table.len() >= MAX_EXECS {
            return Err(TaskError::TooManyExecs {
                id: self.id().to_owned(),
            });
        }
        match table.entry(exec.id().exec.clone()) {
            Entry::Occupied(_) => Err(TaskError::Exists { id: exec.id().clone() }),
            Entry::Vacant(vacant) => {
                vacant.insert(exec);
                publish();
                Ok(())
            }
        }
    }

    /// Forgets an exec; false if there was none.
    pub fn remove_exec(&self, exec_id: &str) -> bool {
        self.table().remove(exec_id).is_some()
    }

    /// Whether its processes are frozen.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire) && self.process.phase() == Phase::Running
    }

    /// Notes that its processes were frozen or thawed.
    pub fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
    }

    /// Notes that a process was killed for want of memory; whether it is the first time.
    pub fn note_out_of_memory(&self) -> bool {
        !self.out_of_memory.swap(true, Ordering::AcqRel)
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Process>>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::copies::Copies;
    use super::super::process::Kind;
    use super::super::stdio::Stdio;
    use super::*;

    fn process(exec: &str) -> Process {
        let id = ProcessId::exec("c", exec);
        Process::new(id, Kind::Exec, 7, Stdio::default(), Copies::default())
    }

    #[test]
    fn an_exec_id_is_taken_once_and_free_again_after_delete() {
        let container = Container::new("/b", process(""));
        let mut events = 0;
        container.add_exec(Arc::new(process("e")), || events += 1).unwrap();
        let again = container.add_exec(Arc::new(process("e")), || events += 1);
        assert!(matches!(again, Err(TaskError::Exists { .. })));
        assert_eq!(container.exec("e").unwrap().id().exec, "e");
        assert!(container.remove_exec("e") && !container.remove_exec("e"));
        assert!(matches!(container.exec("e"), Err(TaskError::Unknown { .. })));
        container.add_exec(Arc::new(process("e")), || events += 1).unwrap();
        assert_eq!(events, 2);
    }

    #[test]
    fn execs_are_bounded() {
        let container = Container::new("/b", process(""));
        for number in 0..MAX_EXECS {
            container
                .add_exec(Arc::new(process(&number.to_string())), || ())
                .unwrap();
        }
        let more = container.add_exec(Arc::new(process("one more")), || ());
        assert!(matches!(more, Err(TaskError::TooManyExecs { .. })));
    }

    #[test]
    fn only_what_runs_is_paused() {
        let container = Container::new("/b", process(""));
        container.set_paused(true);
        assert!(!container.is_paused());
        container.process().begin_start().unwrap();
        assert!(container.process().started(|| ()));
        assert!(container.is_paused());
    }
}
