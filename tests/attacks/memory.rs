//! The memory of a machine, which is the host's to read and to write where no TEE protects it (none does here), and the ring of a device
//! in it.
use std::{
    fs,
    io::Read,
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, anyhow, bail};
use cella_tests::Fixture;
use memchr::memmem;
use serde_json::{Value, json};

use crate::hardware::Monitor;

/// The memory of the only machine that runs, held open: it outlives QEMU as long as it is.
pub(crate) fn memory_of(f: &Fixture) -> Result<fs::File> {
    Ok(fs::File::open(path_of(f)?)?)
}

/// The process of the only machine that runs.
pub(crate) fn qemu(f: &Fixture) -> Result<i32> {
    let vm = fs::read_dir(f.stack.path("vm"))?.flatten().next().context("no VM")?;
    Ok(fs::read_to_string(vm.path().join("qemu.pid"))?.trim().parse()?)
}

fn path_of(f: &Fixture) -> Result<PathBuf> {
    let folder = PathBuf::from(format!("/proc/{}/fd", qemu(f)?));
    for fd in fs::read_dir(&folder)?.flatten() {
        let target = fs::read_link(fd.path()).unwrap_or_default();
        if target.to_string_lossy().contains("memfd:") && fs::metadata(fd.path())?.len() >= 1 << 28 {
            return Ok(fd.path());
        }
    }
    bail!("no memory among {}", folder.display())
}

/// How often each text stands in a file. One that crosses the border of two reads is found as well.
pub(crate) fn occurrences(file: &fs::File, needles: &[&[u8]]) -> Result<Vec<usize>> {
    const STEP: u64 = 8 << 20;
    let path = Path::new("/proc/self/fd").join(file.as_raw_fd().to_string());
    let mut reader = fs::File::open(path)?; // from the beginning, each time
    let mut counts = vec![0; needles.len()];
    let longest = needles.iter().map(|needle| needle.len()).max().unwrap_or_default();
    let mut window = Vec::new();
    loop {
        let kept = window.len();
        if reader.by_ref().take(STEP).read_to_end(&mut window)? == 0 {
            return Ok(counts);
        }
        for (needle, count) in needles.iter().zip(&mut counts) {
            // What ends within the part that was kept was counted before.
            let known = |at: &usize| at + needle.len() > kept;
            *count += memmem::find_iter(&window, needle).filter(known).count();
        }
        let keep = window.len().saturating_sub(longest.saturating_sub(1));
        window.drain(..keep);
    }
}

/// What a device writes of a buffer that it has used, and the guest's driver reads (virtio 1.2, 2.7.8).
#[derive(Clone, Copy)]
pub(crate) enum Lie {
    /// It was a buffer that the driver never gave.
    Id,
    /// More was written to it than it has room for.
    Length,
}

/// A device that lies: each used buffer is told otherwise as soon as QEMU has told it.
pub(crate) struct Liar {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64>>,
}

impl Liar {
    /// Lies for the network device, of each packet that comes.
    pub(crate) fn of_network(f: &Fixture, monitor: &mut Monitor, lie: Lie) -> Result<Self> {
        let devices = monitor.run("x-query-virtio", json!({}))?;
        let device = devices
            .as_array()
            .into_iter()
            .flatten()
            .find(|device| device.get("name") == Some(&json!("virtio-net")))
            .and_then(|device| device.get("path"))
            .context("QEMU has no network device")?;
        let queue = monitor.run("x-query-virtio-queue-status", json!({"path": device, "queue": 0}))?;
        let number = |name: &str| queue.get(name).and_then(Value::as_u64).with_context(|| name.to_owned());
        let (used, entries) = (number("vring-used")?, number("vring-num")?);
        let memory = fs::OpenOptions::new().read(true).write(true).open(path_of(f)?)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let index = || -> Result<u16> {
                let mut bytes = [0; 2];
                memory.read_exact_at(&mut bytes, used + 2)?;
                Ok(u16::from_le_bytes(bytes))
            };
            let (mut told, mut lies) = (index()?, 0);
            while !stopped.load(Ordering::SeqCst) {
                let now = index()?;
                while told != now {
                    let entry = used + 4 + 8 * (u64::from(told) % entries);
                    let place = match lie {
                        Lie::Id => entry,
                        Lie::Length => entry + 4,
                    };
                    memory.write_all_at(&0xffff_fff0_u32.to_le_bytes(), place)?;
                    told = told.wrapping_add(1);
                    lies += 1;
                }
            }
            Ok(lies)
        });
        Ok(Self { stop, thread })
    }

    /// Tells the truth again, and how often it did not.
    pub(crate) fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().map_err(|_| anyhow!("the liar panicked"))?
    }
}
