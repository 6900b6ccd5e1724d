//! The simulated platform: makes the keys of an SNP chip and of a TDX platform that do not exist, and answers a guest's requests for evidence with
//! reports or quotes about the QEMU process that the guest really runs in. For development hosts only: it gives no memory encryption, and whoever can read
//! its state can sign any report.

mod cmdline;
mod launch;
mod logging;
mod process;
mod serve;
mod state;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use slog::{Logger, crit};

use crate::{
    logging::Format,
    serve::{Config, Qemu},
};

/// Stands where the CPU's security processor stands. Development only: nothing here is confidential.
#[derive(Parser)]
#[command(name = "cella-sim-platform", version)]
struct Cli {
    /// Form of the log on stderr.
    #[arg(long, global = true, value_enum, default_value_t = Format::Term)]
    log_format: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the platform's keys, unless they are there, and print the path of SNP's root certificate (ARK). TDX's root is tdx/root.pem in the same
    /// folder, its collateral tdx/collateral.json, which is issued again when it is 15 days old.
    Init {
        /// Folder of the platform's keys. Its files are readable by their owner only.
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
    },
    /// Answer requests for evidence about one QEMU process, until that ends.
    Serve(ServeArgs),
}

#[derive(Args)]
struct ServeArgs {
    /// Folder that `init` made.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Unix socket to listen on: what vhost-device-vsock connects to for the guest, `<uds-path>_1027`. It appears when
    /// it accepts connections, and is removed at the end.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    #[command(flatten)]
    qemu: QemuArgs,
    /// Firmware whose launch is simulated: the AmdSev build for SNP, the IntelTdx build for TDX; only builds that are known are taken.
    #[arg(long, value_name = "PATH")]
    firmware: PathBuf,
    /// CPU model of SNP's launch digest. It must be the one that reference values are computed for.
    #[arg(long, value_name = "MODEL", default_value = "EPYC-v4")]
    cpu_for_digest: String,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct QemuArgs {
    /// File that QEMU writes its process id to (its -pidfile). It may appear up to two minutes later.
    #[arg(long, value_name = "PATH")]
    qemu_pidfile: Option<PathBuf>,
    /// Process id of a QEMU that runs.
    #[arg(long, value_name = "PID")]
    qemu_pid: Option<u32>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let log = logging::stderr(cli.log_format);
    match run(cli.command, &log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crit!(log, "cella-sim-platform failed"; "error" => format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, log: &Logger) -> anyhow::Result<()> {
    // Nothing that is made here is for anybody else.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    match command {
        Command::Init { state } => {
            println!("{}", state::init(&state, log)?.display());
            Ok(())
        }
        Command::Serve(args) => {
            let keys = state::load(&args.state).context("reading the platform's keys; `init` makes them")?;
            let qemu = match (args.qemu.qemu_pidfile, args.qemu.qemu_pid) {
                (Some(path), _) => Qemu::PidFile(path),
                (None, Some(pid)) => Qemu::Pid(pid),
                (None, None) => anyhow::bail!("name QEMU by --qemu-pidfile or --qemu-pid"),
            };
            let config = Config {
                keys,
                socket: args.socket,
                qemu,
                firmware: args.firmware,
                cpu: args.cpu_for_digest,
            };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("starting the runtime")?;
            Ok(runtime.block_on(serve::serve(config, log))?)
        }
    }
}
