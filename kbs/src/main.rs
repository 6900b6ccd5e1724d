//! `cella-kbs`: the key broker, as a program.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use cella_kbs::clock::SystemClock;
use cella_kbs::init::{InitOptions, init};
use cella_kbs::{Config, Server, audit};
use clap::{Parser, Subcommand, ValueEnum};
use slog::{Drain, Logger, info, o};
use tokio::signal::unix::{SignalKind, signal};

/// Verifies confidential guests and releases keys to those that the owner's rules name.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a folder with certificates, keys and a configuration.
    Init {
        /// The folder.
        #[arg(long)]
        dir: PathBuf,
        /// DNS name or address under which guests reach the broker; may be given more than once.
        #[arg(long = "name", required = true)]
        names: Vec<String>,
        /// Address to listen on; port 0 takes a free one.
        #[arg(long, default_value = "127.0.0.1:8443")]
        listen: SocketAddr,
        /// Development only: PEM certificate of a simulated platform's root.
        #[arg(long)]
        simulated_root: Option<PathBuf>,
        /// Collateral of TDX platforms: a file, or a folder of files.
        #[arg(long)]
        tdx_collateral: Option<PathBuf>,
        /// Development only: PEM certificate of a simulated TDX platform's root.
        #[arg(long)]
        simulated_tdx_root: Option<PathBuf>,
    },
    /// Run the broker until SIGTERM or SIGINT. SIGHUP: read roots, revocation lists, TDX collateral and reference signers again.
    Serve {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// How log lines on stderr look.
        #[arg(long, value_enum, default_value_t = LogFormat::Text)]
        log_format: LogFormat,
    },
    /// Check the chain of an audit log and print where it ends.
    AuditVerify {
        /// The log.
        file: PathBuf,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Init {
            dir,
            names,
            listen,
            simulated_root,
            tdx_collateral,
            simulated_tdx_root,
        } => {
            let config = init(&InitOptions {
                dir,
                names,
                listen,
                simulated_root,
                tdx_collateral,
                simulated_tdx_root,
            })?;
            println!("made {}", config.display());
            Ok(())
        }
        Command::Serve { config, log_format } => serve(&config, log_format),
        Command::AuditVerify { file } => {
            let head = audit::verify(&file)?;
            println!("ok: {} lines, head {}", head.lines, head.sha256);
            Ok(())
        }
    }
}

fn serve(path: &Path, format: LogFormat) -> anyhow::Result<()> {
    let config = Config::load(path).with_context(|| format!("configuration {}", path.display()))?;
    // The blocking threads do the cryptography and the disk: a few more than cores, whatever the number of guests.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(8)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let log = logger(format);
    runtime.block_on(async {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut hup = signal(SignalKind::hangup())?;
        let server = Server::start(config, Arc::new(SystemClock::new()), log.clone()).await?;
        loop {
            tokio::select! {
                _ = term.recv() => break,
                _ = int.recv() => break,
                _ = hup.recv() => server.reload().await,
            }
        }
        info!(log, "stopping");
        server.stop().await;
        info!(log, "stopped");
        Ok(())
    })
}

fn logger(format: LogFormat) -> Logger {
    let drain: Box<dyn Drain<Ok = (), Err = slog::Never> + Send> = match format {
        LogFormat::Text => {
            let decorator = slog_term::TermDecorator::new().stderr();
            let decorator = if std::io::stderr().is_terminal() {
                decorator
            } else {
                decorator.force_plain()
            };
            Box::new(slog_term::FullFormat::new(decorator.build()).build().fuse())
        }
        LogFormat::Json => Box::new(slog_json::Json::default(std::io::stderr()).fuse()),
    };
    // Full queue: lines are dropped and counted. A flood of refused requests does not slow the broker down.
    let drain = slog_async::Async::new(drain).chan_size(4096).build().fuse();
    Logger::root(drain, o!("program" => "cella-kbs"))
}
