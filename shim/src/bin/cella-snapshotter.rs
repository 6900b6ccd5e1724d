//! `cella-snapshotter`: containerd's proxy snapshotter for images that are pulled inside the guest.
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use cella_shim::snapshotter::config::{Config, Overrides};
use cella_shim::snapshotter::server::Server;
use cella_shim::snapshotter::service::Snapshotter;
use clap::Parser;
use slog::{Drain, LevelFilter, Logger, info, o};
use tokio::signal::unix::{SignalKind, signal};

/// Lets containerd pull images without fetching or unpacking a layer on this host.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Configuration; without it /etc/cella/snapshotter.toml, if there is one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Unix socket to listen on, in place of the configuration's
    #[arg(long, value_name = "PATH")]
    address: Option<PathBuf>,
    /// Folder of the record of snapshots, in place of the configuration's
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cella-snapshotter: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let overrides = Overrides {
        address: arguments.address,
        root: arguments.root,
    };
    let config = Config::load(arguments.config.as_deref(), overrides)?;
    let log = logger(config.log_level);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stop = stop_signal().context("waiting for signals")?;
        let snapshotter = Snapshotter::open(&config.root)?;
        let server = Server::bind(&config.address)?;
        info!(log, "started"; "version" => env!("CARGO_PKG_VERSION"), "root" => %config.root.display());
        server.serve(snapshotter, &config.containerd, log.clone(), stop).await;
        info!(log, "stopped");
        Ok(())
    })
}

/// Ready at the first SIGTERM or SIGINT.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Lines on stderr, which a service manager keeps.
fn logger(level: slog::Level) -> Logger {
    let decorator = slog_term::TermDecorator::new().stderr();
    let decorator = if io::stderr().is_terminal() {
        decorator
    } else {
        decorator.force_plain()
    };
    let lines = slog_term::FullFormat::new(decorator.build()).build().fuse();
    let drain = slog_async::Async::new(lines).chan_size(1024).build().fuse();
    Logger::root(LevelFilter::new(drain, level).fuse(), o!())
}
