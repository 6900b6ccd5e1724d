//! One private set of services (`scripts/stack`), and what it has seen.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::process::{run, succeed, wait_until};

/// Registry, key broker, snapshotter and containerd, started for these tests and ended with them.
pub struct Stack {
    run: PathBuf,
    vars: BTreeMap<String, String>,
    next: AtomicU32,
}

/// A place in the logs of broker and registry, to ask later what came after it.
#[derive(Clone, Copy)]
pub struct Mark {
    audit: usize,
    registry: usize,
}

impl Stack {
    /// Starts everything below a folder of its own.
    ///
    /// # Errors
    /// What `scripts/stack up` says.
    pub fn start() -> Result<Self> {
        let run = PathBuf::from(format!("/run/cella-test.{}", std::process::id()));
        let state = PathBuf::from(format!("{}.state", run.display()));
        let script = repository().join("scripts/stack");
        succeed(
            Command::new(&script).arg("up").arg(&run).arg(&state),
            Duration::from_secs(120),
        )?;
        let vars = fs::read_to_string(run.join("env"))?
            .lines()
            .filter_map(|line| line.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())))
            .collect();
        Ok(Self {
            run,
            vars,
            next: AtomicU32::new(1),
        })
    }

    /// A value of the stack's environment file, such as `REGISTRY`.
    #[must_use]
    pub fn var(&self, name: &str) -> &str {
        self.vars.get(name).map_or("", String::as_str)
    }

    /// A file below the stack's own folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.run.join(name)
    }

    /// A fresh id for a container or a file.
    #[must_use]
    pub fn fresh(&self, what: &str) -> String {
        format!("{what}{}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Runs `cellactl` and gives its standard output.
    ///
    /// # Errors
    /// What it printed, when it fails.
    pub fn cellactl<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        succeed(
            Command::new(format!("{}/cellactl", self.var("BIN"))).args(args),
            Duration::from_secs(120),
        )
    }

    /// Runs an admin command of `cellactl kbs` against the stack's broker.
    ///
    /// # Errors
    /// What it printed, when it fails.
    pub fn kbs(&self, args: &[&str]) -> Result<String> {
        let to = [
            "--url",
            self.var("KBS"),
            "--ca",
            self.var("KBS_CA"),
            "--admin-key",
            self.var("KBS_ADMIN_KEY"),
        ];
        self.cellactl(["kbs"].iter().chain(args).chain(&to))
    }

    /// Runs `ctr` against the stack's containerd.
    ///
    /// # Errors
    /// Only when it cannot be run or does not end.
    pub fn ctr(&self, args: &[&str]) -> Result<std::process::Output> {
        let mut command = Command::new(self.var("CTR"));
        run(
            command.args(["-a", self.var("CONTAINERD")]).args(args),
            Duration::from_secs(180),
        )
    }

    /// Where broker and registry stand now.
    ///
    /// # Errors
    /// When a log cannot be read.
    pub fn mark(&self) -> Result<Mark> {
        Ok(Mark {
            audit: self.audit()?.len(),
            registry: self.registry_log()?.len(),
        })
    }

    /// Audit lines since the mark, as JSON text.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn audit_since(&self, mark: Mark) -> Result<String> {
        Ok(self.audit()?.get(mark.audit..).unwrap_or_default().to_owned())
    }

    /// Checks that since the mark no key was released.
    ///
    /// # Errors
    /// When one was: the audit lines.
    pub fn no_key_released(&self, mark: Mark) -> Result<()> {
        let lines = self.audit_since(mark)?;
        let is_release = |line: &&str| line.contains("\"release\"") && line.contains("\"allowed\"");
        ensure!(
            !lines.lines().any(|line| is_release(&line)),
            "a key was released:\n{lines}"
        );
        Ok(())
    }

    /// Checks that since the mark no layer of an artifact was fetched.
    ///
    /// # Errors
    /// When one was: the registry's lines.
    pub fn no_layer_fetched(&self, mark: Mark, reference: &str) -> Result<()> {
        let layers = crate::registry::layers(self, reference)?;
        ensure!(!layers.is_empty(), "{reference} has no layers");
        let log = self.registry_since(mark)?;
        let seen: Vec<_> = log
            .lines()
            .filter(|line| layers.iter().any(|layer| line.contains(&format!("/blobs/{layer}"))))
            .collect();
        ensure!(
            seen.is_empty(),
            "layers of {reference} were fetched:\n{}",
            seen.join("\n")
        );
        Ok(())
    }

    /// Lines of the registry's access log since the mark.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn registry_since(&self, mark: Mark) -> Result<String> {
        Ok(self.registry_log()?.get(mark.registry..).unwrap_or_default().to_owned())
    }

    /// Ends containerd or the snapshotter by SIGKILL.
    ///
    /// # Errors
    /// What `scripts/stack crash` says.
    pub fn crash(&self, service: &str) -> Result<()> {
        self.script("crash", service)
    }

    /// Starts a service again that [`Stack::crash`] ended, and waits until it answers.
    ///
    /// # Errors
    /// What `scripts/stack revive` says.
    pub fn revive(&self, service: &str) -> Result<()> {
        self.script("revive", service)
    }

    fn script(&self, command: &str, service: &str) -> Result<()> {
        let mut script = Command::new(repository().join("scripts/stack"));
        succeed(script.arg(command).arg(&self.run).arg(service), Duration::from_secs(60)).map(drop)
    }

    /// Waits until nothing of any container is left: no process but the stack's own, no folder of a VM or of a bundle, no
    /// socket, no cgroup, no mount, no task.
    ///
    /// # Errors
    /// What is left after 20 seconds, by name.
    pub fn leaves_nothing(&self) -> Result<()> {
        let mut left = BTreeSet::new();
        wait_until(Duration::from_secs(20), || {
            left = self.leftovers()?;
            Ok(left.is_empty().then_some(()))
        })
        .with_context(|| format!("left over: {left:?}"))
    }

    fn leftovers(&self) -> Result<BTreeSet<String>> {
        let mut left = BTreeSet::new();
        let run = self.run.to_string_lossy().into_owned();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
                continue;
            };
            let cmdline = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let cmdline = String::from_utf8_lossy(&cmdline).replace('\0', " ");
            let own = cmdline.contains(&format!("{run}/vm/"))
                || cmdline.contains("containerd-shim-cella-v2") && cmdline.contains(&run);
            if own {
                left.insert(format!(
                    "process {pid}: {}",
                    cmdline.chars().take(120).collect::<String>()
                ));
            }
        }
        for entry in fs::read_dir(self.path("vm"))?.flatten() {
            left.insert(format!("folder {}", entry.path().display()));
        }
        for namespace in fs::read_dir(self.path("ctd/state/io.containerd.runtime.v2.task"))
            .into_iter()
            .flatten()
        {
            for entry in fs::read_dir(namespace?.path())?.flatten() {
                left.insert(format!("bundle {}", entry.path().display()));
            }
        }
        for number in 1..self.next.load(Ordering::Relaxed) {
            let id = format!("c{number}");
            for path in [self.shim_socket(&id), Path::new("/sys/fs/cgroup/default").join(&id)] {
                if path.symlink_metadata().is_ok() {
                    left.insert(format!("{}", path.display()));
                }
            }
        }
        for mount in fs::read_to_string("/proc/mounts")?.lines().filter(|l| l.contains(&run)) {
            left.insert(format!("mount {mount}"));
        }
        for (what, args) in [("task", ["task", "ls", "-q"]), ("container", ["container", "ls", "-q"])] {
            for id in String::from_utf8_lossy(&self.ctr(&args)?.stdout).lines() {
                left.insert(format!("{what} {id}"));
            }
        }
        Ok(left)
    }

    /// Where the shim of a container listens: containerd-shim's rule.
    fn shim_socket(&self, id: &str) -> PathBuf {
        let name = Sha256::digest(format!("{}/default/{id}", self.var("CONTAINERD")));
        Path::new("/run/containerd/s").join(hex::encode(name))
    }

    fn audit(&self) -> Result<String> {
        let path = Path::new(self.var("STATE")).join("kbs/state/audit.jsonl");
        Ok(fs::read_to_string(path).unwrap_or_default())
    }

    fn registry_log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.path("logs/registry.log"))?)
    }

    /// Ends everything.
    ///
    /// # Errors
    /// What `scripts/stack down` says.
    pub fn stop(self) -> Result<()> {
        let state = self.var("STATE").to_owned();
        succeed(
            Command::new(repository().join("scripts/stack"))
                .arg("down")
                .arg(&self.run),
            Duration::from_secs(120),
        )?;
        fs::remove_dir_all(state)?;
        if self.run.exists() {
            bail!("{} is still there", self.run.display());
        }
        Ok(())
    }
}

/// The checkout.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_default()
}
