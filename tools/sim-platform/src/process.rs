//! The QEMU process that is attested: found by its id, believed by what the kernel says of it.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    thread,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2, readlinkat},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};
use tokio::sync::oneshot;

/// The program that is attested, by the last part of its path.
const PROGRAM: &str = "qemu-system-x86_64";
/// Longest command line that is read, in bytes.
const MAX_CMDLINE: u64 = 1 << 20;

/// A running QEMU. It stays the same process even when its id is given to another.
pub(crate) struct Process {
    pid: u32,
    /// `/proc/<pid>`, which the kernel ties to the process and not to the number.
    proc: OwnedFd,
    pidfd: OwnedFd,
}

/// Why a process cannot be attested.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ProcessError {
    #[error("there is no process {pid}")]
    Gone { pid: u32 },
    #[error("{doing} of process {pid}")]
    Inspect {
        doing: &'static str,
        pid: u32,
        #[source]
        source: io::Error,
    },
    #[error("process {pid} runs {}, not {PROGRAM}", exe.display())]
    NotQemu { pid: u32, exe: PathBuf },
    #[error("the command line of process {pid} is longer than {MAX_CMDLINE} bytes")]
    CmdlineTooLong { pid: u32 },
    #[error("QEMU's file {} is not named by an absolute path", path.display())]
    NotAbsolute { path: PathBuf },
    #[error("opening QEMU's file {}", path.display())]
    OpenFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Process {
    /// Takes hold of a process, which must run QEMU.
    pub(crate) fn open(pid: u32) -> Result<Self, ProcessError> {
        let gone = || ProcessError::Gone { pid };
        let inspect = |doing| {
            move |errno: Errno| ProcessError::Inspect {
                doing,
                pid,
                source: errno.into(),
            }
        };
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = openat(CWD, format!("/proc/{pid}"), flags, Mode::empty()).map_err(|_| gone())?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(|_| gone())?;
        // Read after the descriptor was opened: the process is alive still, so the descriptor is of the same one.
        let exe = readlinkat(&proc, "exe", Vec::new()).map_err(inspect("reading the program"))?;
        let exe = PathBuf::from(OsStr::from_bytes(exe.as_bytes()));
        if exe.file_name() != Some(PROGRAM.as_ref()) {
            return Err(ProcessError::NotQemu { pid, exe });
        }
        Ok(Self { pid, proc, pidfd })
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// A message that comes when the process has ended.
    ///
    /// A thread of its own waits for that; it ends with QEMU or with this program, which does nothing else meanwhile.
    pub(crate) fn watch(&self) -> io::Result<oneshot::Receiver<io::Result<()>>> {
        let pidfd = self.pidfd.try_clone()?;
        let (sender, receiver) = oneshot::channel();
        thread::Builder::new().name("watch-qemu".to_owned()).spawn(move || {
            // Nobody listens any more when this program ends first.
            let _ = sender.send(wait_for_end(&pidfd));
        })?;
        Ok(receiver)
    }

    /// The contents of `/proc/<pid>/cmdline`.
    pub(crate) fn cmdline(&self) -> Result<Vec<u8>, ProcessError> {
        let pid = self.pid;
        let inspect = |source| ProcessError::Inspect {
            doing: "reading the command line",
            pid,
            source,
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(&self.proc, "cmdline", flags, Mode::empty()).map_err(|errno| inspect(errno.into()))?;
        let mut out = Vec::new();
        let len = File::from(file)
            .take(MAX_CMDLINE + 1)
            .read_to_end(&mut out)
            .map_err(inspect)?;
        if u64::try_from(len).is_ok_and(|len| len <= MAX_CMDLINE) {
            Ok(out)
        } else {
            Err(ProcessError::CmdlineTooLong { pid })
        }
    }

    /// Opens a file by the name that it has for the process, in the process's own root.
    ///
    /// Links that lead through a descriptor (`/dev/fd/3`, `/proc/self/fd/3`) are refused: they would be this program's descriptors.
    pub(crate) fn open_file(&self, path: &Path) -> Result<File, ProcessError> {
        if !path.is_absolute() {
            return Err(ProcessError::NotAbsolute { path: path.to_owned() });
        }
        let failed = |errno: Errno| ProcessError::OpenFile {
            path: path.to_owned(),
            source: errno.into(),
        };
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(&self.proc, "root", directory, Mode::empty()).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&root, path, flags, Mode::empty(), resolve)
            .map(File::from)
            .map_err(failed)
    }
}

/// Blocks until the process behind a pidfd has ended: then it becomes readable.
fn wait_for_end(pidfd: &OwnedFd) -> io::Result<()> {
    loop {
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], None) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
