//! The memory of a machine, which is the host's to read where no TEE protects it (none does here).
use std::{
    fs,
    io::Read,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use cella_tests::Fixture;
use memchr::memmem;

/// The memory of the only machine that runs, held open: it outlives QEMU as long as it is.
pub(crate) fn memory_of(f: &Fixture) -> Result<fs::File> {
    Ok(fs::File::open(path_of(f)?)?)
}

fn path_of(f: &Fixture) -> Result<PathBuf> {
    let vm = fs::read_dir(f.stack.path("vm"))?
        .flatten()
        .next()
        .context("no VM")?
        .path();
    let pid = fs::read_to_string(vm.join("qemu.pid"))?;
    let folder = PathBuf::from(format!("/proc/{}/fd", pid.trim()));
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
