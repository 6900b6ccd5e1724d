//! A disk without room: whoever starts a container is told what is full and where, and nothing of it stays.
use std::{fs, io::Write, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use cella_tests::process::{succeed, wait_until};

use crate::{
    Case,
    fixture::{Fixture, HELLO, refused},
};

pub(crate) const CASES: &[(&str, Case)] = &[
    ("the_run_folder_is_full", the_run_folder_is_full),
    ("the_folder_of_bundles_is_full", the_folder_of_bundles_is_full),
];

const FULL: &str = "no space left on device";
const LIMIT: Duration = Duration::from_secs(20);
const KIB: usize = 1024;
/// Of the whole disk.
const SIZE_KIB: usize = 4096;

/// A file system of its own, unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: PathBuf) -> Result<Self> {
        fs::create_dir_all(&path)?;
        let size = format!("size={SIZE_KIB}k,mode=700");
        let mut mount = Command::new("mount");
        succeed(mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path), LIMIT)?;
        Ok(Self(path))
    }

    /// Fills it but for so much.
    fn leave_free(&self, kib: usize) -> Result<()> {
        let mut filling = fs::File::create(self.0.join("filling"))?;
        filling.write_all(&vec![0; (SIZE_KIB - kib) * KIB])?;
        Ok(())
    }

    /// What is there besides what fills it.
    fn contents(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(&self.0)?.flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        Ok(names.filter(|name| name != "filling").collect())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A shim that was given up has its bundle, which has no name any more, for a few seconds.
        wait_until(LIMIT, || Ok(succeed(Command::new("umount").arg(&self.0), LIMIT).ok())).ok();
        fs::remove_dir(&self.0).ok();
    }
}

/// Runs a container on a disk with ever more room until it runs; gives how often there was not enough.
fn until_it_runs(f: &Fixture, disk: &Disk, room_kib: &[usize], changes: &[(&str, &str)], place: &str) -> Result<usize> {
    let line = format!("echo {HELLO}");
    let policy = f.allowed(&f.shell(&line))?;
    for (failed, kib) in room_kib.iter().enumerate() {
        disk.leave_free(*kib)?;
        let out = f.start(&policy, &line).configured(&f.stack, changes)?.go(&f.stack)?;
        ensure!(
            disk.contents()?.is_empty(),
            "{kib} KiB: {:?} is left: {out:?}",
            disk.contents()?
        );
        if out.code == 0 {
            ensure!(out.stdout.contains(HELLO), "{kib} KiB: {out:?}");
            return Ok(failed);
        }
        let lower = out.stderr.to_lowercase();
        ensure!(
            lower.contains(FULL) && out.stderr.contains(place),
            "{kib} KiB: {}",
            out.stderr
        );
        refused(&out, &[])?;
    }
    anyhow::bail!("it never runs")
}

fn the_run_folder_is_full(f: &Fixture) -> Result<()> {
    let disk = Disk::mount(f.stack.path("vm/full"))?;
    let folder = disk.0.to_string_lossy().into_owned();
    let run_dir = format!("{folder:?}");
    let failed = until_it_runs(
        f,
        &disk,
        &[0, 4, 8, 16, 24, SIZE_KIB],
        &[("run-dir", &run_dir)],
        &folder,
    )
    .context("the shim's run directory")?;
    ensure!(failed >= 2, "it ran after {failed}");
    Ok(())
}

fn the_folder_of_bundles_is_full(f: &Fixture) -> Result<()> {
    let disk = Disk::mount(f.stack.path("ctd/state/io.containerd.runtime.v2.task/default"))?;
    let place = disk.0.to_string_lossy().into_owned();
    let failed = until_it_runs(f, &disk, &[0, 4, 8, 12, 16, 20, 24, 28, 32, 64, SIZE_KIB], &[], &place)
        .context("containerd's bundles")?;
    ensure!(failed >= 2, "it ran after {failed}");
    Ok(())
}
