//! The real program stopped and killed while it pushes to and pulls from the registry that Debian ships: the same command goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const PROGRAM: &str = "/usr/bin/docker-registry";
const DEADLINE: Duration = Duration::from_secs(60);
/// Twenty chunks of 8 MiB.
const WEIGHTS: usize = 160 << 20;

/// A registry with a folder and a port of its own; ends when dropped.
struct Registry {
    process: Child,
    name: String,
    log: PathBuf,
}

impl Registry {
    fn start(dir: &Path) -> Self {
        assert!(Path::new(PROGRAM).exists(), "{PROGRAM} is missing: run `make setup`");
        let (config, log) = (dir.join("registry.yml"), dir.join("registry.log"));
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"127.0.0.1:0\"}}\n",
            dir.join("registry").display()
        );
        fs::write(&config, text).unwrap();
        let out = File::create(&log).unwrap();
        let process = Command::new(PROGRAM)
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        let mut registry = Self {
            process,
            name: String::new(),
            log,
        };
        let port = wait(|| {
            let said = fs::read_to_string(&registry.log).unwrap();
            let (_, rest) = said.split_once("listening on 127.0.0.1:")?;
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            Some(digits)
        });
        registry.name = format!("127.0.0.1:{port}");
        registry
    }

    /// How many requests of a method it answered.
    fn answered(&self, method: &str) -> usize {
        let said = fs::read_to_string(&self.log).unwrap();
        said.lines()
            .filter(|line| line.contains(&format!("\"{method} /v2/")))
            .count()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "waits for a state of another process, with a deadline"
)]
fn wait<T>(mut ready: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < end, "nothing happened in {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

struct Desk {
    dir: tempfile::TempDir,
    registry: Registry,
}

impl Desk {
    /// With a sealed model of twenty chunks.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut weights = b"GGUF\x03\0\0\0".to_vec();
        weights.extend(1_u64.to_le_bytes());
        weights.extend(0_u64.to_le_bytes());
        weights.extend(1_u64.to_le_bytes());
        weights.extend(b"t");
        weights.extend(1_u32.to_le_bytes());
        weights.extend((WEIGHTS as u64 - 1024).to_le_bytes());
        weights.extend(24_u32.to_le_bytes());
        weights.extend(0_u64.to_le_bytes());
        weights.resize(WEIGHTS - 960, 7);
        fs::write(dir.path().join("m.gguf"), weights).unwrap();
        let desk = Self {
            registry: Registry::start(dir.path()),
            dir,
        };
        assert!(desk.seal("sealed").status().unwrap().success());
        desk
    }

    fn seal(&self, to: &str) -> Command {
        let (model, kek, out) = (self.text("m.gguf"), self.text("kek"), self.text(to));
        let mut command = self.command(&[
            "seal",
            &model,
            "--name",
            "a/b",
            "--version",
            "1",
            "--key",
            "kbs:///a/b/1",
        ]);
        command.args(["--key-file", &kek, "--out", &out]);
        command
    }

    fn text(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn reference(&self) -> String {
        format!("{}/a/b:1", self.registry.name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cellactl"));
        command.arg("model").args(args).stdout(Stdio::null());
        command
    }

    fn push(&self) -> Command {
        self.command(&["push", &self.text("sealed"), &self.reference()])
    }

    fn verify(&self, what: &str) {
        let done = self
            .command(&["verify", what, "--key-file", &self.text("kek")])
            .status()
            .unwrap();
        assert!(done.success());
    }
}

/// Starts it, and sends a signal once `begun`.
fn interrupt(mut command: Command, signal: Signal, begun: impl Fn() -> bool) -> ExitStatus {
    let mut process = command.spawn().unwrap();
    wait(|| begun().then_some(()));
    kill_process(Pid::from_child(&process), signal).unwrap();
    process.wait().unwrap()
}

#[test]
fn a_stopped_push_goes_on_in_the_middle_of_the_blob() {
    let desk = Desk::new();
    let note = desk.dir.path().join(".sealed.push.json");
    let stopped = interrupt(desk.push(), Signal::TERM, || note.exists());
    assert_eq!(stopped.code(), Some(1));
    let before = desk.registry.answered("PATCH");
    assert!((1..20).contains(&before), "{before}");
    assert!(note.exists());
    assert!(desk.push().status().unwrap().success());
    assert!(!note.exists());
    // Twenty chunks of the weights, with their tags; one of the configuration: none of them twice.
    assert_eq!(desk.registry.answered("PATCH"), 22);
    desk.verify(&desk.reference());
}

#[test]
fn a_killed_sealing_leaves_ciphertext_without_a_name() {
    let desk = Desk::new();
    let half = desk.dir.path().join(".again.unfinished/content/blobs/sha256");
    let staged = || {
        fs::read_dir(&half)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect::<Vec<_>>()
    };
    let grown = || {
        staged()
            .iter()
            .any(|path| fs::metadata(path).is_ok_and(|file| file.len() > 1 << 20))
    };
    let killed = interrupt(desk.seal("again"), Signal::KILL, grown);
    assert!(!killed.success() && !desk.dir.path().join("again").exists());
    for path in staged() {
        let bytes = fs::read(path).unwrap();
        assert!(!bytes.windows(32).any(|window| window == [7; 32]), "plaintext");
    }
    assert!(desk.seal("again").status().unwrap().success());
    assert!(!desk.dir.path().join(".again.unfinished").exists());
    desk.verify(&format!("oci:{}", desk.text("again")));
}

#[test]
fn a_killed_push_and_a_killed_pull_go_on() {
    let desk = Desk::new();
    let note = desk.dir.path().join(".sealed.push.json");
    let killed = interrupt(desk.push(), Signal::KILL, || note.exists());
    assert!(!killed.success());
    // In the middle of a chunk this registry forgets the upload: then the blob goes up anew.
    assert!(desk.push().status().unwrap().success());
    desk.verify(&desk.reference());

    let (reference, out) = (desk.reference(), desk.text("pulled"));
    let parts = desk.dir.path().join(".pulled.unfinished/content/blobs/sha256");
    let longest = || {
        let entries = fs::read_dir(&parts).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.metadata().ok())
            .map(|part| part.len())
            .max()
            .unwrap_or(0)
    };
    let killed = interrupt(desk.command(&["pull", &reference, &out]), Signal::KILL, || {
        longest() > 1 << 20
    });
    assert!(!killed.success());
    let here = longest();
    assert!(!Path::new(&out).exists() && here < WEIGHTS as u64);
    assert!(desk.command(&["pull", &reference, &out]).status().unwrap().success());
    desk.verify(&format!("oci:{out}"));
    assert!(!desk.dir.path().join(".pulled.unfinished").exists());
}
