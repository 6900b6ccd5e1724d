//! What a node does: `ctr run` with Cella's runtime, and the configuration it is given.
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Result;

use crate::{
    Stack,
    process::{run, wait_until},
    workload::Written,
};

/// One `ctr run` in the making.
#[derive(Clone)]
pub struct Run {
    /// Container id.
    pub id: String,
    image: String,
    annotation: String,
    args: Vec<String>,
    extra: Vec<String>,
    config: String,
    detach: bool,
}

/// What a person sees of it.
#[derive(Debug)]
pub struct Outcome {
    /// Exit status of `ctr`.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Run {
    /// The image that the policy names, with the arguments that it allows.
    #[must_use]
    pub fn new(stack: &Stack, image: &str, policy: &Written, args: &[&str]) -> Self {
        Self {
            id: stack.fresh("c"),
            image: image.to_owned(),
            annotation: policy.annotation.clone(),
            args: args.iter().map(|&a| a.to_owned()).collect(),
            extra: Vec::new(),
            config: stack.var("SHIM_CONFIG").to_owned(),
            detach: false,
        }
    }

    /// Further flags of `ctr run`.
    #[must_use]
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.extra.extend(flags.iter().map(|&f| f.to_owned()));
        self
    }

    /// Another shim configuration: the usual one with some lines replaced.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn configured(mut self, stack: &Stack, changes: &[(&str, &str)]) -> Result<Self> {
        self.config = config_with(stack, changes)?.to_string_lossy().into_owned();
        Ok(self)
    }

    /// The configuration without one of its keys.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn without(mut self, stack: &Stack, key: &str) -> Result<Self> {
        let text = fs::read_to_string(&self.config)?;
        let kept = text.lines().filter(|line| !line.starts_with(&format!("{key} =")));
        let path = stack.path(&format!("{}.toml", stack.fresh("shim")));
        fs::write(&path, kept.fold(String::new(), |all, line| all + line + "\n"))?;
        self.config = path.to_string_lossy().into_owned();
        Ok(self)
    }

    /// Returns when the container has started.
    #[must_use]
    pub fn detached(mut self) -> Self {
        self.detach = true;
        self
    }

    /// Runs it to its end (or start, if detached) and removes what ctr leaves after a failure.
    ///
    /// # Errors
    /// Only when ctr cannot be run or hangs.
    pub fn go(&self, stack: &Stack) -> Result<Outcome> {
        let out = run(self.command(stack).stdin(Stdio::null()), Duration::from_secs(240))?;
        let outcome = Outcome {
            code: out.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
        };
        if !self.detach || outcome.code != 0 {
            stack.ctr(&["task", "rm", "-f", &self.id])?;
            stack.ctr(&["container", "rm", &self.id])?;
        }
        Ok(outcome)
    }

    /// Starts it and returns; what it prints goes to `output`.
    ///
    /// # Errors
    /// When the file cannot be made or ctr not be run.
    pub fn spawn(&self, stack: &Stack, output: &Path) -> Result<Child> {
        let output = fs::File::create(output)?;
        Ok(self
            .command(stack)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?)
    }

    /// Starts it with its output in a pipe of the caller's.
    ///
    /// # Errors
    /// When ctr cannot be run.
    pub fn spawn_piped(&self, stack: &Stack) -> Result<Child> {
        Ok(self
            .command(stack)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?)
    }

    /// Runs it to its end with its output poured into `output`, and gives its exit status.
    ///
    /// # Errors
    /// When ctr cannot be run or does not end within `limit`.
    pub fn pour(&self, stack: &Stack, output: Stdio, limit: Duration) -> Result<i32> {
        let mut child = self.command(stack).stdin(Stdio::null()).stdout(output).spawn()?;
        let ended = wait_until(limit, || Ok(child.try_wait()?));
        if ended.is_err() {
            child.kill().ok();
            child.wait().ok();
            self.remove(stack)?;
        }
        Ok(ended?.code().unwrap_or(-1))
    }

    fn command(&self, stack: &Stack) -> Command {
        let mut command = Command::new(stack.var("CTR"));
        command.args(["-a", stack.var("CONTAINERD"), "run"]);
        command.arg(if self.detach { "-d" } else { "--rm" });
        command.args([
            "--runtime",
            "io.containerd.cella.v2",
            "--runtime-config-path",
            &self.config,
            "--snapshotter",
            "cella",
        ]);
        command.args([
            "--annotation",
            &format!("io.katacontainers.config.hypervisor.cc_init_data={}", self.annotation),
        ]);
        command.args(&self.extra).args([&self.image, &self.id]).args(&self.args);
        command
    }

    /// Ends a detached container.
    ///
    /// # Errors
    /// Only when ctr cannot be run or hangs.
    pub fn remove(&self, stack: &Stack) -> Result<()> {
        stack.ctr(&["task", "rm", "-f", &self.id])?;
        stack.ctr(&["container", "rm", &self.id])?;
        Ok(())
    }
}

/// The shim's configuration with some keys set to other TOML values; a key that it does not have is added.
///
/// # Errors
/// When files cannot be read or written.
pub fn config_with(stack: &Stack, changes: &[(&str, &str)]) -> Result<PathBuf> {
    let text = fs::read_to_string(stack.var("SHIM_CONFIG"))?;
    let kept = text
        .lines()
        .filter(|line| !changes.iter().any(|(key, _)| line.starts_with(&format!("{key} ="))));
    let mut lines: Vec<String> = kept.map(str::to_owned).collect();
    lines.extend(changes.iter().map(|(key, value)| format!("{key} = {value}")));
    let path = stack.path(&format!("{}.toml", stack.fresh("shim")));
    fs::write(&path, lines.join("\n") + "\n")?;
    Ok(path)
}
