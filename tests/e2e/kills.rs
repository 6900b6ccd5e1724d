//! SIGKILL at each stage of a container's life. QEMU and the shim take their container with them, and nothing else stays of it;
//! containerd and the snapshotter come back to containers that have not noticed.
use std::{
    fs,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use cella_tests::{
    Run,
    attacker::Peer,
    process::{run, wait_until},
};

use crate::{
    Case,
    faults::{kill_one, metrics, pids, shim_words, stops_with, stops_with_137, vm},
    fixture::Fixture,
};

pub(crate) const CASES: &[(&str, Case)] = &[
    ("qemu_is_killed_at_each_stage", |f| each_stage(f, Victim::Qemu)),
    ("the_shim_is_killed_at_each_stage", |f| each_stage(f, Victim::Shim)),
    ("containerd_is_killed_before_a_container_runs", containerd_before),
    ("containerd_is_killed_while_a_container_runs", containerd_while),
    ("the_snapshotter_and_both_are_killed", snapshotter_and_both),
];

const LINE: &str = "sleep 1000 & wait";
const ANY: &str = "exec = \"any\"\n";
const SOON: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    Qemu,
    Shim,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    /// In the middle of Create.
    Booting,
    /// Created; Start waits for a key broker that says nothing.
    Starting,
    /// It runs, and so does an exec.
    Executing,
    /// It has been killed, and is being deleted.
    Deleting,
}

fn each_stage(f: &Fixture, victim: Victim) -> Result<()> {
    for stage in [Stage::Booting, Stage::Starting, Stage::Executing, Stage::Deleting] {
        killed(f, victim, stage)
            .and_then(|()| f.stack.leaves_nothing())
            .with_context(|| format!("{victim:?} is killed: {stage:?}"))?;
    }
    Ok(())
}

fn killed(f: &Fixture, victim: Victim, stage: Stage) -> Result<()> {
    match stage {
        Stage::Booting | Stage::Starting => {
            let begun = Begun::new(f, stage)?;
            kill_it(f, &begun.run, victim)?;
            let said = begun.fails(f)?;
            ensure!(
                victim == Victim::Shim || said.contains("qemu ended with signal 9"),
                "the reason is not told: {said}"
            );
            Ok(())
        }
        Stage::Executing => {
            let events = Events::listen(f)?;
            let run = open(f, LINE)?;
            let mut exec = exec_in_flight(f, &run)?;
            kill_it(f, &run, victim)?;
            let status = wait_until(SOON, || Ok(exec.0.try_wait()?))?;
            ensure!(!status.success(), "the exec came to a good end");
            match victim {
                Victim::Qemu => {
                    ensure!(status.code() == Some(137), "{status:?}");
                    stops_with_137(f, &run)?;
                }
                Victim::Shim => run.remove(&f.stack)?,
            }
            events.tell(&run, &["/tasks/exit", "\"exit_status\":137"])
        }
        Stage::Deleting => {
            let run = open(f, LINE)?;
            let mut delete = ctr(f, &["task", "rm", "-f", &run.id]).spawn().map(Owned)?;
            wait_until(SOON, || {
                Ok((!tasks(f)?.contains("RUNNING") || delete.0.try_wait()?.is_some()).then_some(()))
            })?;
            // It may be over already.
            kill_it(f, &run, victim).ok();
            wait_until(SOON, || Ok(delete.0.try_wait()?))?;
            run.remove(&f.stack)
        }
    }
}

fn containerd_before(f: &Fixture) -> Result<()> {
    for stage in [Stage::Booting, Stage::Starting] {
        let begun = Begun::new(f, stage)?;
        f.stack.crash("containerd")?;
        let failed = wait_for(begun.child);
        f.stack.revive("containerd")?;
        failed?;
        // What became of it is containerd's to say, but it can be removed.
        begun.run.remove(&f.stack)?;
        f.stack.leaves_nothing().with_context(|| format!("{stage:?}"))?;
    }
    Ok(())
}

fn containerd_while(f: &Fixture) -> Result<()> {
    let run = open(f, "while [ ! -e /tmp/go ]; do sleep 0.1; done; exit 42")?;
    let exec = exec_in_flight(f, &run)?;
    f.stack.crash("containerd")?;
    let ended = wait_for(exec);
    f.stack.revive("containerd")?;
    ended?;
    ensure!(tasks(f)?.contains("RUNNING"), "{}", tasks(f)?);
    ensure!(exec_now(f, &run, "exit 5")?.status.code() == Some(5), "exec after it");
    // It ends while nobody is there to hear of it.
    let told = exec_now(f, &run, "(sleep 3; touch /tmp/go) >/dev/null 2>&1 &")?;
    ensure!(told.status.success(), "{told:?}");
    f.stack.crash("containerd")?;
    let ended = wait_until(SOON, || {
        Ok(metrics(f)?.contains("cella_container_exits_total{").then_some(()))
    });
    f.stack.revive("containerd")?;
    ended.context("it does not end")?;
    stops_with(f, &run, 42)?;
    f.stack.leaves_nothing()?;

    let run = open(f, LINE)?;
    let mut delete = ctr(f, &["task", "rm", "-f", &run.id]).spawn().map(Owned)?;
    wait_until(SOON, || {
        Ok((!tasks(f)?.contains("RUNNING") || delete.0.try_wait()?.is_some()).then_some(()))
    })?;
    f.stack.crash("containerd")?;
    let ended = wait_for(delete);
    f.stack.revive("containerd")?;
    ended?;
    run.remove(&f.stack)
}

fn snapshotter_and_both(f: &Fixture) -> Result<()> {
    let policy = f.allowed(&f.shell(LINE).container(ANY))?;
    let run = f.start(&policy, LINE).detached();
    let child = run.spawn(&f.stack, &f.stack.path(&f.stack.fresh("out"))).map(Owned)?;
    qemu_runs(f)?;
    f.stack.crash("snapshotter")?;
    let started = wait_for(child);
    f.stack.revive("snapshotter")?;
    ensure!(started?.success(), "a VM that boots needs no snapshotter");

    for services in [&["snapshotter"][..], &["containerd"], &["snapshotter", "containerd"]] {
        for service in services {
            f.stack.crash(service)?;
        }
        for service in services {
            f.stack.revive(service)?;
        }
        ensure!(tasks(f)?.contains("RUNNING"), "{services:?}: {}", tasks(f)?);
        ensure!(exec_now(f, &run, "exit 6")?.status.code() == Some(6), "{services:?}");
    }
    // The image goes, and its container stays; the next one is as before.
    let gone = f.stack.ctr(&["images", "rm", "--sync", &f.image])?;
    ensure!(gone.status.success(), "{gone:?}");
    ensure!(
        exec_now(f, &run, "exit 7")?.status.code() == Some(7),
        "without its image"
    );
    let killed = f.stack.ctr(&["task", "kill", "-s", "SIGKILL", &run.id])?;
    ensure!(killed.status.success(), "{killed:?}");
    stops_with_137(f, &run)?;
    let snapshots = f.stack.ctr(&["snapshots", "--snapshotter", "cella", "ls"])?;
    ensure!(
        !text(&snapshots.stdout).contains(&format!("{} ", run.id)),
        "{snapshots:?}"
    );
    f.pull(&f.image)?;
    let again = f.run("exit 8")?;
    ensure!(again.code == 8, "{again:?}");
    Ok(())
}

/// A `ctr run -d` that is under way.
struct Begun {
    run: Run,
    child: Owned,
    output: std::path::PathBuf,
    _broker: Option<Peer>,
}

impl Begun {
    /// Returns when the stage is reached.
    fn new(f: &Fixture, stage: Stage) -> Result<Self> {
        let mut workload = f.shell(LINE);
        let broker = (stage == Stage::Starting).then(Peer::silent).transpose()?;
        if let Some(broker) = &broker {
            workload.kbs = broker.guest_url();
        }
        let policy = f.allowed(&workload)?;
        let run = f.start(&policy, LINE).detached();
        let output = f.stack.path(&f.stack.fresh("out"));
        let child = run.spawn(&f.stack, &output).map(Owned)?;
        let begun = Self {
            run,
            child,
            output,
            _broker: broker,
        };
        qemu_runs(f)?;
        if stage == Stage::Starting {
            wait_until(SOON, || Ok(tasks(f)?.contains("CREATED").then_some(())))?;
            let early = f.stack.ctr(&["task", "rm", &begun.run.id])?;
            ensure!(!early.status.success(), "a task that starts was deleted");
        }
        Ok(begun)
    }

    /// What it says when it has failed; it is removed then.
    fn fails(self, f: &Fixture) -> Result<String> {
        let status = wait_for(self.child)?;
        let said = fs::read_to_string(&self.output)?;
        ensure!(!status.success(), "it ran: {said}");
        self.run.remove(&f.stack)?;
        Ok(said)
    }
}

/// Killed when a case fails half-way.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn wait_for(mut child: Owned) -> Result<std::process::ExitStatus> {
    wait_until(SOON, || Ok(child.0.try_wait()?)).context("ctr hangs")
}

/// containerd's events from now on.
struct Events {
    path: std::path::PathBuf,
    _listener: Owned,
}

impl Events {
    fn listen(f: &Fixture) -> Result<Self> {
        let path = f.stack.path(&f.stack.fresh("events"));
        let listener = ctr(f, &["events"])
            .stdout(fs::File::create(&path)?)
            .spawn()
            .map(Owned)?;
        Ok(Self {
            path,
            _listener: listener,
        })
    }

    /// Waits for a line about `run` with all of `words`.
    fn tell(&self, run: &Run, words: &[&str]) -> Result<()> {
        let id = format!("{:?}", run.id);
        wait_until(SOON, || {
            let told = fs::read_to_string(&self.path)?;
            let fits = |line: &str| line.contains(&id) && words.iter().all(|word| line.contains(word));
            Ok(told.lines().any(fits).then_some(()))
        })
        .with_context(|| fs::read_to_string(&self.path).unwrap_or_default())
    }
}

/// A container that runs and in which anything may be executed.
fn open(f: &Fixture, line: &str) -> Result<Run> {
    let rules = format!("{ANY}[[container.tmpfs]]\ndestination = \"/tmp\"\nsize-mib = 1\n");
    let policy = f.allowed(&f.shell(line).container(&rules))?;
    let run = f.start(&policy, line).detached();
    let out = run.go(&f.stack)?;
    ensure!(out.code == 0, "{out:?}");
    Ok(run)
}

fn kill_it(f: &Fixture, run: &Run, victim: Victim) -> Result<()> {
    match victim {
        Victim::Qemu => kill_one(&["qemu-system-x86_64", &vm(f)?.to_string_lossy()]),
        Victim::Shim => kill_one(&shim_words(f, run).each_ref().map(String::as_str)),
    }
}

fn qemu_runs(f: &Fixture) -> Result<()> {
    let folder = f.stack.path("vm").to_string_lossy().into_owned();
    wait_until(SOON, || {
        Ok((!pids(&["qemu-system-x86_64", &folder])?.is_empty()).then_some(()))
    })
    .context("QEMU does not start")
}

fn ctr(f: &Fixture, arguments: &[&str]) -> Command {
    let mut command = Command::new(f.stack.var("CTR"));
    command.args(["-a", f.stack.var("CONTAINERD")]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn exec(f: &Fixture, container: &Run, line: &str) -> Command {
    let id = f.stack.fresh("e");
    ctr(
        f,
        &[
            "task",
            "exec",
            "--exec-id",
            &id,
            &container.id,
            "/bin/busybox",
            "sh",
            "-c",
            line,
        ],
    )
}

fn exec_now(f: &Fixture, container: &Run, line: &str) -> Result<Output> {
    run_it(&mut exec(f, container, line))
}

/// An exec that has begun and does not end.
fn exec_in_flight(f: &Fixture, container: &Run) -> Result<Owned> {
    let output = f.stack.path(&f.stack.fresh("out"));
    let mut command = exec(f, container, "echo ready; sleep 1000");
    let child = command.stdout(fs::File::create(&output)?).spawn().map(Owned)?;
    wait_until(SOON, || {
        Ok(fs::read_to_string(&output)?.contains("ready").then_some(()))
    })?;
    Ok(child)
}

fn run_it(command: &mut Command) -> Result<Output> {
    run(command, SOON)
}

fn tasks(f: &Fixture) -> Result<String> {
    Ok(text(&f.stack.ctr(&["task", "ls"])?.stdout))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
