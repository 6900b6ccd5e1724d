//! The OCI runtime command line (create, start, state, kill, delete) over the agent's container code, so that the
//! runtime-tools validation programs can judge that code without a guest: `scripts/oci-validate`.
//!
//! Not a product: there is no policy between the configuration and the launch, and what a guest refuses by policy is refused
//! here, too (host namespaces, hooks, host paths). Each container has a keeper, this program again, which holds what the
//! agent would hold in the guest and obeys the other commands over a socket in the container's folder.

mod keeper;
mod spec;
mod state;

use std::{
    fs,
    os::unix::{net::UnixDatagram, process::CommandExt},
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::Context;
use cella_agent::launch;
use clap::{Parser, Subcommand};

use crate::{spec::Spec, state::Folder};

#[derive(Parser)]
#[command(name = "cella-oci-runtime", version)]
struct Cli {
    /// Where the containers' folders are.
    #[arg(long, value_name = "DIR", default_value = "/run/cella-oci-runtime")]
    root: PathBuf,
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Make a container; its program does not run yet.
    Create {
        /// Folder with config.json.
        #[arg(long, short, default_value = ".")]
        bundle: PathBuf,
        /// Where to write the number of the container's process.
        #[arg(long)]
        pid_file: Option<PathBuf>,
        /// Its name.
        id: String,
    },
    /// Run the program of a created container.
    Start {
        /// Its name.
        id: String,
    },
    /// Print the container's state as JSON.
    State {
        /// Its name.
        id: String,
    },
    /// Send a signal to the container's process.
    Kill {
        /// Its name.
        id: String,
        /// By number or name.
        #[arg(default_value = "TERM")]
        signal: String,
    },
    /// Remove a stopped container.
    Delete {
        /// Kill it first if it runs; it is no error that there is none.
        #[arg(long, short)]
        force: bool,
        /// Its name.
        id: String,
    },
    /// What `create` leaves behind; not for people.
    #[command(hide = true)]
    Keep {
        /// Folder with config.json.
        bundle: PathBuf,
        /// Its name.
        id: String,
    },
}

fn main() -> ExitCode {
    if std::env::args_os()
        .next()
        .is_some_and(|name| name == launch::LAUNCHER_NAME)
    {
        return launch::child::main();
    }
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cella-oci-runtime: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Action::Create { bundle, pid_file, id } => {
            let folder = Folder::make(&cli.root, &id)?;
            let created = create(&folder, bundle, pid_file, &id);
            if created.is_err() {
                folder.remove();
            }
            created
        }
        Action::Start { id } => Folder::find(&cli.root, &id)?.ask("start"),
        Action::State { id } => {
            println!(
                "{}",
                serde_json::to_string_pretty(&Folder::find(&cli.root, &id)?.state()?)?
            );
            Ok(())
        }
        Action::Kill { id, signal } => {
            let number = state::signal(&signal).with_context(|| format!("{signal:?} is no signal"))?;
            Folder::find(&cli.root, &id)?.ask(&format!("kill {number}"))
        }
        Action::Delete { force, id } => {
            let folder = match Folder::find(&cli.root, &id) {
                Err(_) if force => return Ok(()),
                other => other?,
            };
            let asked = folder.ask(if force { "delete force" } else { "delete" });
            if asked.is_ok() {
                folder.remove();
            }
            asked
        }
        Action::Keep { bundle, id } => keeper::keep(&bundle, &id, Folder::find(&cli.root, &id)?),
    }
}

fn create(folder: &Folder, bundle: PathBuf, pid_file: Option<PathBuf>, id: &str) -> anyhow::Result<()> {
    let bundle = bundle
        .canonicalize()
        .with_context(|| format!("opening the bundle {}", bundle.display()))?;
    let spec = Spec::read(&bundle)?;
    spec.check()?;
    let root = folder.root();
    let mut keeper = Command::new(std::env::current_exe()?);
    keeper.arg("--root").arg(root).arg("keep").arg(&bundle).arg(id);
    // A session of its own is made by the keeper; its streams are the container's.
    keeper.process_group(0).stdin(Stdio::inherit());
    let ready = UnixDatagram::bind(folder.ready())?;
    ready.set_read_timeout(Some(CREATE_LIMIT))?;
    keeper.spawn().context("starting the keeper")?;
    ready
        .recv(&mut [0; 1])
        .with_context(|| format!("the container was not there within {CREATE_LIMIT:?}"))?;
    if let Some(path) = pid_file {
        fs::write(&path, folder.state()?.pid.to_string()).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

const CREATE_LIMIT: Duration = Duration::from_secs(10);
