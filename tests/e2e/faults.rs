//! Programs that die or hang while a container runs. Each time: containerd learns of it, and nothing is left.
use std::{fs, io::Write, os::unix::net::UnixStream, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use cella_tests::{
    Run, attacker,
    process::{run, wait_until},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{Case, fixture::Fixture};

pub(crate) const CASES: &[(&str, Case)] = &[
    ("qemu_is_killed", qemu_is_killed),
    ("the_agent_dies", the_agent_dies),
    ("the_shim_is_killed", the_shim_is_killed),
    ("the_vsock_daemon_is_killed", the_vsock_daemon_is_killed),
    ("the_guest_hangs", the_guest_hangs),
    ("a_silent_guest_is_given_up", silent_guest),
    ("delete_while_it_runs", delete_while_it_runs),
    ("two_at_once", two_at_once),
];

const LINE: &str = "sleep 1000 & wait";

fn running(f: &Fixture) -> Result<Run> {
    let policy = f.allowed(&f.shell(LINE))?;
    let run = f.start(&policy, LINE).detached();
    let out = run.go(&f.stack)?;
    ensure!(out.code == 0, "{out:?}");
    Ok(run)
}

/// The run directory of the one VM that there is.
pub(crate) fn vm(f: &Fixture) -> Result<PathBuf> {
    Ok(fs::read_dir(f.stack.path("vm"))?
        .flatten()
        .next()
        .context("no VM")?
        .path())
}

/// The metrics of the one VM's shim.
pub(crate) fn metrics(f: &Fixture) -> Result<String> {
    let mut curl = Command::new("curl");
    curl.args(["-s", "--max-time", "5", "--unix-socket"])
        .arg(vm(f)?.join("metrics.sock"));
    let out = run(curl.arg("http://shim/metrics"), Duration::from_secs(10))?;
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Pids of processes whose command line has all of `words`.
pub(crate) fn pids(words: &[&str]) -> Result<Vec<Pid>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        let cmdline = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let cmdline = String::from_utf8_lossy(&cmdline).replace('\0', " ");
        if words.iter().all(|word| cmdline.contains(word)) {
            pids.push(Pid::from_raw(pid));
        }
    }
    Ok(pids)
}

pub(crate) fn kill_one(words: &[&str]) -> Result<()> {
    let pids = pids(words)?;
    ensure!(pids.len() == 1, "{words:?} fits {pids:?}");
    for pid in pids {
        kill(pid, Signal::SIGKILL)?;
    }
    Ok(())
}

/// What the command line of a container's shim has, and no other's: other stacks may have a container of the same name.
pub(crate) fn shim_words(f: &Fixture, run: &Run) -> [String; 3] {
    [
        "containerd-shim-cella-v2".into(),
        format!(" -id {} ", run.id),
        f.stack.var("CONTAINERD").into(),
    ]
}

/// Waits until containerd shows the task as stopped and then removes it; its exit status is 137.
pub(crate) fn stops_with_137(f: &Fixture, run: &Run) -> Result<()> {
    stops_with(f, run, 137)
}

pub(crate) fn stops_with(f: &Fixture, run: &Run, status: u8) -> Result<()> {
    wait_until(Duration::from_secs(60), || {
        let list = f.stack.ctr(&["task", "ls"])?;
        let text = String::from_utf8_lossy(&list.stdout).into_owned();
        Ok((!text.lines().any(|l| l.starts_with(&run.id) && l.contains("RUNNING"))).then_some(()))
    })?;
    let removed = f.stack.ctr(&["task", "rm", &run.id])?;
    ensure!(
        String::from_utf8_lossy(&removed.stderr).contains(&format!("exit code {status}")),
        "{removed:?}"
    );
    f.stack.ctr(&["container", "rm", &run.id])?;
    Ok(())
}

fn qemu_is_killed(f: &Fixture) -> Result<()> {
    let run = running(f)?;
    kill_one(&["qemu-system-x86_64", &vm(f)?.to_string_lossy()])?;
    stops_with_137(f, &run)
}

fn the_agent_dies(f: &Fixture) -> Result<()> {
    // A reset takes the agent with it; the guest must not come back up behind it.
    let socket = f.stack.path(&f.stack.fresh("qmp"));
    let wrapper = attacker::qemu_wrapper(
        &f.stack,
        &format!(
            "exec \"$QEMU\" \"$@\" -qmp unix:{},server=on,wait=off",
            socket.display()
        ),
    )?;
    let policy = f.allowed(&f.shell(LINE))?;
    let run = f
        .start(&policy, LINE)
        .detached()
        .configured(&f.stack, &[("qemu", &format!("{wrapper:?}"))])?;
    let out = run.go(&f.stack)?;
    ensure!(out.code == 0, "{out:?}");
    let mut qmp = UnixStream::connect(&socket)?;
    qmp.write_all(b"{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"system_reset\"}\n")?;
    stops_with_137(f, &run)
}

fn the_shim_is_killed(f: &Fixture) -> Result<()> {
    let run = running(f)?;
    kill_one(&shim_words(f, &run).each_ref().map(String::as_str))?;
    wait_until(Duration::from_secs(30), || {
        Ok(pids(&["qemu-system-x86_64", &f.stack.path("vm").to_string_lossy()])?
            .is_empty()
            .then_some(()))
    })?;
    wait_until(Duration::from_secs(30), || {
        let list = f.stack.ctr(&["task", "ls"])?;
        Ok((!String::from_utf8_lossy(&list.stdout).contains("RUNNING")).then_some(()))
    })?;
    run.remove(&f.stack)
}

fn the_vsock_daemon_is_killed(f: &Fixture) -> Result<()> {
    let run = running(f)?;
    kill_one(&["vhost-device-vsock", &vm(f)?.to_string_lossy()])?;
    stops_with_137(f, &run)
}

fn the_guest_hangs(f: &Fixture) -> Result<()> {
    let run = running(f)?;
    for pid in pids(&["qemu-system-x86_64", &vm(f)?.to_string_lossy()])? {
        kill(pid, Signal::SIGSTOP)?;
    }
    let begun = std::time::Instant::now();
    f.stack.ctr(&["task", "kill", "-s", "SIGKILL", &run.id])?;
    stops_with_137(f, &run)?;
    ensure!(
        begun.elapsed() < Duration::from_secs(60),
        "it took {:?}",
        begun.elapsed()
    );
    Ok(())
}

fn silent_guest(f: &Fixture) -> Result<()> {
    let policy = f.allowed(&f.shell(LINE))?;
    let run = f
        .start(&policy, LINE)
        .detached()
        .configured(&f.stack, &[("guest-timeout-s", "10")])?;
    let out = run.go(&f.stack)?;
    ensure!(out.code == 0, "{out:?}");
    for pid in pids(&["qemu-system-x86_64", &vm(f)?.to_string_lossy()])? {
        kill(pid, Signal::SIGSTOP)?;
    }
    // Nobody asks for its end.
    stops_with_137(f, &run)
}

fn delete_while_it_runs(f: &Fixture) -> Result<()> {
    let run = running(f)?;
    let refused = f.stack.ctr(&["task", "rm", &run.id])?;
    ensure!(!refused.status.success(), "a running task was deleted");
    run.remove(&f.stack)
}

fn two_at_once(f: &Fixture) -> Result<()> {
    let (a, b) = (running(f)?, running(f)?);
    a.remove(&f.stack)?;
    let list = f.stack.ctr(&["task", "ls"])?;
    let text = String::from_utf8_lossy(&list.stdout).into_owned();
    ensure!(
        text.contains(&b.id) && text.contains("RUNNING"),
        "the other container went too: {text}"
    );
    b.remove(&f.stack)
}
