//! Keeps one container from its creation to its deletion.

use std::{
    io::{BufRead, BufReader, Write},
    os::{
        fd::AsFd,
        unix::net::{UnixDatagram, UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail};
use cella_agent::{
    launch::{Launched, Launcher, Order, Stdio},
    reaper::{ExitWatch, Reaper},
};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use crate::{
    spec::Spec,
    state::{Folder, State, Status},
};

/// The keeper's life: ends with the container's deletion.
pub(crate) fn keep(bundle: &Path, id: &str, folder: Folder) -> anyhow::Result<()> {
    nix::unistd::setsid().ok();
    nix::sys::prctl::set_child_subreaper(true)?;
    let spec = Spec::read(bundle)?;
    std::fs::create_dir_all(folder.mounts())?;
    let runtime = Runtime::new()?;
    let reaper = Reaper::new();
    {
        let _inside = runtime.enter();
        let (mut children, reaper) = (signal(SignalKind::child())?, reaper.clone());
        runtime.spawn(async move {
            while children.recv().await.is_some() {
                reaper.reap();
            }
        });
    }
    let listener = UnixListener::bind(folder.socket())?;
    let state = State {
        oci_version: spec.version.clone(),
        id: id.to_owned(),
        status: Status::Created,
        pid: std::process::id(),
        bundle: bundle.to_owned(),
        annotations: spec.annotations.clone(),
    };
    let mut keeper = Keeper {
        launcher: Launcher::new("/proc/self/exe", reaper.clone()),
        reaper,
        folder,
        spec,
        bundle: bundle.to_owned(),
        state: Arc::new(Mutex::new(state)),
        exit: None,
        runtime,
    };
    keeper.publish()?;
    UnixDatagram::unbound()?.send_to(b"r", keeper.folder.ready())?;
    for connection in listener.incoming() {
        if keeper.serve(connection?)? {
            return Ok(());
        }
    }
    Ok(())
}

struct Keeper {
    launcher: Launcher,
    reaper: Reaper,
    folder: Folder,
    spec: Spec,
    bundle: PathBuf,
    state: Arc<Mutex<State>>,
    exit: Option<ExitWatch>,
    runtime: Runtime,
}

impl Keeper {
    /// Does what one connection asks; whether that was the end.
    fn serve(&mut self, mut connection: UnixStream) -> anyhow::Result<bool> {
        let mut line = String::new();
        BufReader::new(connection.try_clone()?).read_line(&mut line)?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let result = match words.as_slice() {
            ["start"] => self.start(),
            ["kill", number] => number.parse().context("no signal").and_then(|number| self.kill(number)),
            ["delete"] => self.delete(false),
            ["delete", "force"] => self.delete(true),
            _ => bail!("a command that is none: {line:?}"),
        };
        let over = result.is_ok() && words.first() == Some(&"delete");
        let answer = match result {
            Ok(()) => "ok".to_owned(),
            Err(error) => format!("{error:#}").replace('\n', " "),
        };
        // Whoever asked may have gone.
        let _ = writeln!(connection, "{answer}");
        Ok(over)
    }

    fn start(&mut self) -> anyhow::Result<()> {
        self.expect(&[Status::Created], "started")?;
        // The configuration as it was at creation, whatever stands in the bundle now.
        let plan = self.spec.plan(&self.bundle, &self.folder)?;
        let own = |stream: std::os::fd::BorrowedFd<'_>| stream.try_clone_to_owned();
        let stdio = Stdio {
            stdin: Some(own(std::io::stdin().as_fd())?),
            stdout: Some(own(std::io::stdout().as_fd())?),
            stderr: Some(own(std::io::stderr().as_fd())?),
        };
        let order = Order::Container(Box::new(plan));
        let launched = self.runtime.block_on(self.launcher.spawn(&order, stdio, None));
        let Launched { pid, exit, .. } = match launched {
            Ok(launched) => launched,
            Err(error) => {
                self.change(|state| state.status = Status::Stopped)?;
                return Err(error.into());
            }
        };
        self.change(|state| (state.status, state.pid) = (Status::Running, pid))?;
        self.exit = Some(exit.clone());
        let (state, folder) = (Arc::clone(&self.state), self.folder.clone());
        self.runtime.spawn(async move {
            let mut exit = exit;
            exit.wait().await;
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            (state.status, state.pid) = (Status::Stopped, 0);
            if let Err(error) = folder.set_state(&state) {
                eprintln!("cella-oci-runtime: {error:#}");
            }
        });
        Ok(())
    }

    fn kill(&mut self, number: i32) -> anyhow::Result<()> {
        self.expect(&[Status::Created, Status::Running], "signalled")?;
        match &self.exit {
            Some(exit) => {
                exit.kill(&self.reaper, number);
                Ok(())
            }
            None => self.change(|state| (state.status, state.pid) = (Status::Stopped, 0)),
        }
    }

    fn delete(&mut self, force: bool) -> anyhow::Result<()> {
        if !force {
            return self.expect(&[Status::Stopped], "deleted");
        }
        if let Some(exit) = &mut self.exit {
            exit.kill(&self.reaper, 9);
            let ended = async { timeout(KILL_LIMIT, exit.wait()).await };
            self.runtime.block_on(ended).context("the container did not end")?;
        }
        Ok(())
    }

    fn expect(&self, allowed: &[Status], wanted: &str) -> anyhow::Result<()> {
        let status = self.state.lock().unwrap_or_else(PoisonError::into_inner).status;
        if allowed.contains(&status) {
            return Ok(());
        }
        bail!("the container cannot be {wanted}: it is {status:?}")
    }

    fn change(&self, change: impl FnOnce(&mut State)) -> anyhow::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        self.folder.set_state(&state)
    }

    fn publish(&self) -> anyhow::Result<()> {
        self.change(|_| {})
    }
}

const KILL_LIMIT: Duration = Duration::from_secs(10);
