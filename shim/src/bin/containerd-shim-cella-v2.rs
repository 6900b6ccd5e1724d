//! The runtime `io.containerd.cella.v2`. containerd starts it; see the crate's documentation.

use std::path::PathBuf;
use std::process::ExitCode;

use cella_shim::config::Config;
use cella_shim::options::ConfigSource;
use cella_shim::shim::{CellaShim, RUNTIME, shim_config};

/// Enough for one pod's requests and streams; each thread costs resident memory on every node, for every pod.
const WORKERS: usize = 2;

/// `check-config FILE`, for `cellactl doctor`: what comes of a configuration on this host.
fn check_config(path: PathBuf) -> ExitCode {
    match Config::load(&ConfigSource::File(path)) {
        Ok(config) => {
            println!("{config}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let flags = containerd_shim::parse(&arguments).ok();
    if flags.as_ref().is_some_and(|flags| flags.version) {
        println!("containerd-shim-cella-v2 {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    if let [command, path] = arguments.as_slice()
        && command == "check-config"
    {
        return check_config(path.into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(4)
        .thread_keep_alive(std::time::Duration::from_secs(1))
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            // Without an action it is the server.
            if let Some(flags) = flags.filter(|flags| flags.action.is_empty() && !flags.info) {
                return runtime.block_on(cella_shim::server::run(flags));
            }
            runtime.block_on(containerd_shim::run::<CellaShim>(RUNTIME, Some(shim_config())));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{RUNTIME}: cannot start the runtime: {error}");
            ExitCode::FAILURE
        }
    }
}
