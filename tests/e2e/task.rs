//! The Task API as `ctr` uses it: further processes, terminals, streams, freezing, statistics, exit statuses.
use std::{
    fs,
    io::{Read, Write},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use cella_tests::{
    Run,
    process::{run, wait_until},
};

use crate::{Case, faults::metrics, fixture::Fixture, network::shim_of};

pub(crate) const CASES: &[(&str, Case)] = &[
    ("exec_has_its_own_streams_and_status", exec_streams),
    ("exec_reads_until_its_input_ends", exec_input),
    ("exec_that_the_policy_does_not_name", exec_denied),
    ("exec_of_what_is_not_there", exec_absent),
    ("exec_in_what_has_ended", exec_ended),
    ("exec_can_be_killed", exec_killed),
    ("many_execs_at_once", many_execs),
    ("a_terminal_has_a_size", terminal),
    ("pause_stops_and_resume_goes_on", pause),
    ("statistics_are_those_of_the_guest", statistics),
    ("exit_statuses_arrive", statuses),
    ("out_of_memory_is_told", out_of_memory),
    ("a_gibibyte_arrives_whole", gibibyte),
    ("a_reader_that_stops_stops_the_writer_alone", slow_reader),
    ("a_reader_that_comes_late_reads_all", late_reader),
    ("a_checkpoint_is_refused", checkpoint),
];

const WAITS: &str = "trap 'exit 0' TERM; sleep 100000 & wait";
/// Most memory of a shim through which a gibibyte goes, in KiB.
const SHIM_MEMORY_KIB: u64 = 64 * 1024;
const ANY: &str = "exec = \"any\"\n";

/// A detached container in which anything may be executed; removed by [`Run::remove`].
fn open(f: &Fixture, line: &str, container: &str) -> Result<Run> {
    let policy = f.allowed(&f.shell(line).container(container))?;
    let run = f.start(&policy, line).detached();
    let out = run.go(&f.stack)?;
    ensure!(out.code == 0, "{out:?}");
    Ok(run)
}

fn exec_command(f: &Fixture, container: &Run, id: &str, flags: &[&str], line: &str) -> Command {
    let mut command = Command::new(f.stack.var("CTR"));
    command.args(["-a", f.stack.var("CONTAINERD"), "task", "exec", "--exec-id", id]);
    command
        .args(flags)
        .args([container.id.as_str(), "/bin/busybox", "sh", "-c", line]);
    command
}

fn exec(f: &Fixture, container: &Run, line: &str) -> Result<Output> {
    let id = f.stack.fresh("e");
    run(
        exec_command(f, container, &id, &[], line).stdin(Stdio::null()),
        Duration::from_secs(60),
    )
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn exec_streams(f: &Fixture) -> Result<()> {
    let container = open(f, WAITS, ANY)?;
    let out = exec(f, &container, "echo out; echo err >&2; exit 7")?;
    ensure!(out.status.code() == Some(7), "{out:?}");
    ensure!(
        (text(&out.stdout).as_str(), text(&out.stderr).trim()) == ("out\n", "err"),
        "{out:?}"
    );
    // The namespaces and the root are the container's.
    let out = exec(f, &container, "readlink /proc/1/exe; pwd; id -u")?;
    ensure!(text(&out.stdout) == "/bin/busybox\n/\n0\n", "{out:?}");
    container.remove(&f.stack)
}

fn exec_input(f: &Fixture) -> Result<()> {
    let container = open(f, WAITS, ANY)?;
    let mut child = exec_command(f, &container, "input", &[], "wc -c; echo done")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("stdin")?.write_all(&[b'x'; 100_000])?; // and dropped: the end of the input
    let out = child.wait_with_output()?;
    ensure!(text(&out.stdout) == "100000\ndone\n", "{out:?}");
    container.remove(&f.stack)
}

fn exec_denied(f: &Fixture) -> Result<()> {
    let container = open(
        f,
        WAITS,
        "exec = [[\"/bin/busybox\", \"sh\", \"-c\", \"echo this one\"]]\n",
    )?;
    let out = exec(f, &container, "echo this one")?;
    ensure!(out.status.success() && text(&out.stdout) == "this one\n", "{out:?}");
    let out = exec(f, &container, "echo another one")?;
    let said = text(&out.stderr);
    ensure!(
        !out.status.success() && said.contains("policy denies") && said.contains("exec"),
        "{out:?}"
    );
    ensure!(!text(&out.stdout).contains("another one"), "it ran: {out:?}");
    // The code that containerd was given, and the guest's own event in the shim's log.
    let page = metrics(f)?;
    ensure!(page.contains("call=\"Exec\",code=\"PERMISSION_DENIED\""), "{page}");
    wait_until(Duration::from_secs(20), || {
        let log = fs::read_to_string(f.stack.path("logs/containerd.log"))?;
        let told = |line: &str| line.contains("policy refused a request") && line.contains(&container.id);
        Ok(log.lines().any(told).then_some(()))
    })
    .context("no event of the refusal")?;
    container.remove(&f.stack)
}

fn exec_absent(f: &Fixture) -> Result<()> {
    let container = open(f, WAITS, ANY)?;
    let mut command = Command::new(f.stack.var("CTR"));
    command.args(["-a", f.stack.var("CONTAINERD"), "task", "exec", "--exec-id", "absent"]);
    command
        .args([container.id.as_str(), "/no/such/program"])
        .stdin(Stdio::null());
    let out = run(&mut command, Duration::from_secs(60))?;
    ensure!(
        !out.status.success() && text(&out.stderr).contains("/no/such/program"),
        "{out:?}"
    );
    // Nothing of it stays behind: the container still takes the next one.
    ensure!(exec(f, &container, "exit 3")?.status.code() == Some(3), "exec after it");
    container.remove(&f.stack)
}

fn exec_ended(f: &Fixture) -> Result<()> {
    let container = open(f, "exit 0", ANY)?;
    wait_until(Duration::from_secs(30), || {
        let list = f.stack.ctr(&["task", "ls"])?;
        Ok(text(&list.stdout).contains("STOPPED").then_some(()))
    })?;
    let out = exec(f, &container, "echo late")?;
    ensure!(!out.status.success() && !text(&out.stdout).contains("late"), "{out:?}");
    container.remove(&f.stack)
}

fn exec_killed(f: &Fixture) -> Result<()> {
    let container = open(f, WAITS, ANY)?;
    let child = exec_command(f, &container, "victim", &[], "echo ready; exec sleep 1000")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut child = Awaited(child);
    let mut ready = [0; 6];
    child.0.stdout.as_mut().context("stdout")?.read_exact(&mut ready)?;
    let killed = f
        .stack
        .ctr(&["task", "kill", "--exec-id", "victim", "-s", "SIGKILL", &container.id])?;
    ensure!(killed.status.success(), "{killed:?}");
    let status = wait_until(Duration::from_secs(30), || Ok(child.0.try_wait()?))?;
    ensure!(status.code() == Some(137), "{status:?}");
    ensure!(
        exec(f, &container, "exit 4")?.status.code() == Some(4),
        "the container went with it"
    );
    container.remove(&f.stack)
}

/// Killed when a case fails half-way.
struct Awaited(Child);

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn many_execs(f: &Fixture) -> Result<()> {
    const COUNT: u8 = 200;
    let container = open(f, WAITS, ANY)?;
    let children: Vec<_> = (0..COUNT)
        .map(|n| {
            let line = format!("echo {n}; exit {}", n % 100);
            let child = exec_command(f, &container, &format!("many{n}"), &[], &line)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            Ok((n, child))
        })
        .collect::<Result<_>>()?;
    let (mut ran, mut refused) = (0, 0);
    for (n, child) in children {
        let out = child.wait_with_output()?;
        if out.status.code() == Some(i32::from(n % 100)) && text(&out.stdout) == format!("{n}\n") {
            ran += 1;
        } else {
            // Too many at once may be refused, but by name, and never with another one's output.
            ensure!(
                out.stdout.is_empty() && text(&out.stderr).to_lowercase().contains("exhausted"),
                "{n}: {out:?}"
            );
            refused += 1;
        }
    }
    ensure!(
        ran >= 16 && ran + refused == u32::from(COUNT),
        "{ran} ran, {refused} were refused"
    );
    ensure!(
        exec(f, &container, "exit 5")?.status.code() == Some(5),
        "exec after them"
    );
    container.remove(&f.stack)
}

fn terminal(f: &Fixture) -> Result<()> {
    let container = open(f, WAITS, &format!("{ANY}terminal = true\n"))?;
    // script gives ctr a terminal of its own, of 77 columns and 33 rows. ctr tells the size when the process runs already.
    let inner = format!(
        "stty cols 77 rows 33; exec {} -a {} task exec -t --exec-id tty {} /bin/busybox sh -c 'tty; for n in 1 2 3 4 5 6 7 8 9; do stty size && break; sleep 1; done; exit 6'",
        f.stack.var("CTR"),
        f.stack.var("CONTAINERD"),
        container.id
    );
    let out = run(
        Command::new("script")
            .args(["-qec", &inner, "/dev/null"])
            .stdin(Stdio::null()),
        Duration::from_secs(60),
    )?;
    let said = text(&out.stdout);
    ensure!(out.status.code() == Some(6), "{out:?}");
    ensure!(said.contains("/dev/pts/") && said.contains("33 77"), "{said:?}");
    container.remove(&f.stack)
}

fn pause(f: &Fixture) -> Result<()> {
    let container = open(
        f,
        "n=0; while true; do n=$((n + 1)); echo $n >/tmp/n; done",
        &format!("{ANY}[[container.tmpfs]]\ndestination = \"/tmp\"\nsize-mib = 1\n"),
    )?;
    let paused = f.stack.ctr(&["task", "pause", &container.id])?;
    ensure!(paused.status.success(), "{paused:?}");
    let list = text(&f.stack.ctr(&["task", "ls"])?.stdout);
    ensure!(list.contains("PAUSED"), "{list}");
    let refused = exec(f, &container, "echo late")?;
    ensure!(
        !refused.status.success(),
        "a paused container took an exec: {refused:?}"
    );
    let resumed = f.stack.ctr(&["task", "resume", &container.id])?;
    ensure!(resumed.status.success(), "{resumed:?}");
    let count = || -> Result<u64> {
        Ok(text(&exec(f, &container, "cat /tmp/n")?.stdout)
            .trim()
            .parse()
            .unwrap_or(0))
    };
    let before = count()?;
    wait_until(Duration::from_secs(30), || Ok((count()? > before).then_some(())))?;
    container.remove(&f.stack)
}

fn statistics(f: &Fixture) -> Result<()> {
    let container = open(
        f,
        "x=$(head -c 20000000 /dev/zero | tr '\\0' x); sleep 100000 & wait",
        ANY,
    )?;
    let metrics = || -> Result<String> {
        let out = f.stack.ctr(&["task", "metrics", "--format", "json", &container.id])?;
        ensure!(out.status.success(), "{out:?}");
        Ok(text(&out.stdout))
    };
    wait_until(Duration::from_secs(60), || {
        let json: serde_json::Value = serde_json::from_str(&metrics()?)?;
        let number = |path: &str| {
            json.pointer(path)
                .and_then(|v| v.as_u64().or_else(|| v.as_str()?.parse().ok()))
                .unwrap_or(0)
        };
        let (memory, cpu, pids) = (
            number("/memory/usage"),
            number("/cpu/usage_usec"),
            number("/pids/current"),
        );
        Ok((memory > 20_000_000 && cpu > 0 && pids >= 1).then_some(()))
    })
    .with_context(|| metrics().unwrap_or_default())?;
    container.remove(&f.stack)
}

fn statuses(f: &Fixture) -> Result<()> {
    for (line, wanted) in [
        ("exit 0", 0),
        ("exit 42", 42),
        ("kill -9 $$", 137),
        ("kill -15 $$", 143),
    ] {
        let out = f.run(line)?;
        // Process 1 of a namespace takes no signal from inside it that it has not asked for.
        let wanted = if line.starts_with("kill") { 0 } else { wanted };
        ensure!(out.code == wanted, "{line}: {out:?}");
    }
    let container = open(f, "sleep 100000 & wait", "")?;
    ensure!(
        f.stack
            .ctr(&["task", "kill", "-s", "SIGKILL", &container.id])?
            .status
            .success(),
        "kill"
    );
    let gone = wait_until(Duration::from_secs(30), || {
        let out = f.stack.ctr(&["task", "rm", &container.id])?;
        let said = text(&out.stderr);
        Ok((out.status.success() || said.contains("exit code")).then_some(said))
    })?;
    ensure!(gone.contains("137"), "{gone}");
    container.remove(&f.stack)
}

fn out_of_memory(f: &Fixture) -> Result<()> {
    let line = "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo survived";
    let policy = f.allowed(&f.shell(line))?;
    let events = f.stack.path(&f.stack.fresh("events"));
    let listener = Command::new(f.stack.var("CTR"))
        .args(["-a", f.stack.var("CONTAINERD"), "events"])
        .stdout(fs::File::create(&events)?)
        .stderr(Stdio::null())
        .spawn()?;
    let listener = Awaited(listener);
    let out = f
        .start(&policy, line)
        .flags(&["--memory-limit", "67108864"])
        .go(&f.stack)?;
    ensure!(out.code == 137 && !out.stdout.contains("survived"), "{out:?}");
    wait_until(Duration::from_secs(20), || {
        Ok(fs::read_to_string(&events)?.contains("/tasks/oom").then_some(()))
    })
    .with_context(|| fs::read_to_string(&events).unwrap_or_default())?;
    drop(listener);
    Ok(())
}

fn gibibyte(f: &Fixture) -> Result<()> {
    let line = "yes 0123456789abcdef0123456789abcde | head -c 1073741824";
    let policy = f.allowed(&f.shell(line))?;
    let wanted = text(
        &Command::new("sh")
            .args([
                "-c",
                "yes 0123456789abcdef0123456789abcde | head -c 1073741824 | sha256sum",
            ])
            .output()?
            .stdout,
    );
    let sum = f.stack.path(&f.stack.fresh("sum"));
    let mut counter = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(fs::File::create(&sum)?)
        .spawn()?;
    let into = counter.stdin.take().context("stdin")?;
    let (poured, pouring) = mpsc::channel::<()>();
    let (code, peak) = thread::scope(|scope| {
        let socket = f.stack.var("CONTAINERD");
        let peak = scope.spawn(move || peak_of_shim(socket, &pouring));
        let code = f
            .start(&policy, line)
            .pour(&f.stack, into.into(), Duration::from_secs(300));
        drop(poured);
        (code, peak.join().unwrap_or(0))
    });
    let code = code?;
    counter.wait()?;
    let got = fs::read_to_string(&sum)?;
    ensure!(code == 0 && got == wanted, "exit {code}: {got} is not {wanted}");
    ensure!(0 < peak && peak < SHIM_MEMORY_KIB, "the shim took {peak} KiB");
    Ok(())
}

/// The most memory that the one shim of the containerd at `socket` had at a time, in KiB, until `pouring` ends.
fn peak_of_shim(socket: &str, pouring: &mpsc::Receiver<()>) -> u64 {
    let mut peak = 0;
    while pouring.recv_timeout(Duration::from_millis(200)) == Err(RecvTimeoutError::Timeout) {
        let status = shim_of(socket).map(|pid| fs::read_to_string(format!("/proc/{pid}/status")));
        let now = status.ok().and_then(Result::ok).and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            line.trim().trim_end_matches(" kB").parse().ok()
        });
        peak = peak.max(now.unwrap_or(0));
    }
    peak
}

#[allow(clippy::disallowed_methods, reason = "the pause itself is tested")]
fn late_reader(f: &Fixture) -> Result<()> {
    // More than fifo, shim and socket hold: the rest waits in the vsock device, which forgets it 8 s after the guest's end.
    const BYTES: usize = 366_000;
    // Longer than that, and than exit and deletion wait for output.
    const PAUSE: Duration = Duration::from_secs(30);
    let container = open(f, WAITS, ANY)?;
    let line = format!("head -c {BYTES} /dev/zero");
    let child = exec_command(f, &container, "late", &[], &line)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut child = Awaited(child);
    thread::sleep(PAUSE);
    let mut all = Vec::new();
    child.0.stdout.as_mut().context("stdout")?.read_to_end(&mut all)?;
    ensure!(all.len() == BYTES, "{} of {BYTES} bytes", all.len());
    let status = wait_until(Duration::from_secs(30), || Ok(child.0.try_wait()?))?;
    ensure!(status.success(), "{status:?}");
    container.remove(&f.stack)
}

fn slow_reader(f: &Fixture) -> Result<()> {
    // The container prints without end into a pipe that nobody reads; meanwhile everything else goes on.
    let line = "yes >/dev/null & yes";
    let policy = f.allowed(&f.shell(line).container(ANY))?;
    let run = f.start(&policy, line);
    let mut child = Awaited(run.spawn_piped(&f.stack)?);
    wait_until(Duration::from_secs(60), || {
        let list = text(&f.stack.ctr(&["task", "ls"])?.stdout);
        Ok(list.contains("RUNNING").then_some(()))
    })?;
    for n in 0..3 {
        let out = exec(f, &run, &format!("echo {n}"))?;
        ensure!(text(&out.stdout) == format!("{n}\n"), "{out:?}");
    }
    let mut first = [0; 2];
    child.0.stdout.as_mut().context("stdout")?.read_exact(&mut first)?;
    ensure!(&first == b"y\n", "{first:?}");
    ensure!(
        f.stack
            .ctr(&["task", "kill", "-s", "SIGKILL", &run.id])?
            .status
            .success(),
        "kill"
    );
    let mut rest = Vec::new();
    child.0.stdout.as_mut().context("stdout")?.read_to_end(&mut rest)?;
    wait_until(Duration::from_secs(30), || Ok(child.0.try_wait()?))?;
    run.remove(&f.stack)
}

fn checkpoint(f: &Fixture) -> Result<()> {
    let container = open(f, WAITS, "")?;
    let out = f.stack.ctr(&["task", "checkpoint", &container.id])?;
    ensure!(
        !out.status.success() && text(&out.stderr).to_lowercase().contains("not supported")
            || text(&out.stderr).to_lowercase().contains("not implemented"),
        "{out:?}"
    );
    container.remove(&f.stack)
}
