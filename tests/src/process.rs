//! Running programs with a deadline, and waiting for states.
use std::{
    io::Read,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// Runs a command to its end, at most `limit` long; its output is collected while it runs.
///
/// # Errors
/// When it cannot be started or does not end in time (it is killed then).
pub fn run(command: &mut Command, limit: Duration) -> Result<Output> {
    let name = format!("{:?}", command.get_program());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {name}"))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = match wait_until(limit, || Ok(child.try_wait()?)) {
        Ok(status) => status,
        Err(_) => {
            child.kill().ok();
            child.wait().ok();
            let tail = String::from_utf8_lossy(&stderr.join().unwrap_or_default()).into_owned();
            bail!("{name} did not end within {limit:?}; stderr: {tail}");
        }
    };
    Ok(Output {
        status,
        stdout: stdout.join().unwrap_or_default(),
        stderr: stderr.join().unwrap_or_default(),
    })
}

/// As [`run`], but a status other than 0 is an error that carries what was printed.
///
/// # Errors
/// As [`run`], and when the command fails.
pub fn succeed(command: &mut Command, limit: Duration) -> Result<String> {
    let out = run(command, limit)?;
    if !out.status.success() {
        bail!(
            "{command:?} failed: {}\n{}",
            String::from_utf8_lossy(&out.stderr),
            String::from_utf8_lossy(&out.stdout)
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Asks `probe` until it gives a value.
///
/// # Errors
/// The probe's own, or that the time ran out.
pub fn wait_until<T>(limit: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if Instant::now() >= end {
            bail!("the state waited for did not come within {limit:?}");
        }
        thread::park_timeout(Duration::from_millis(20));
    }
}

fn collect<R: Read + Send + 'static>(pipe: Option<R>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).ok();
        }
        bytes
    })
}
