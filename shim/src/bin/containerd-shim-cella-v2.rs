//! The runtime `io.containerd.cella.v2`. containerd starts it; see the crate's documentation.

use std::process::ExitCode;

use cella_shim::shim::{CellaShim, RUNTIME, shim_config};

/// Enough for one pod's requests and streams; each thread costs resident memory on every node, for every pod.
const WORKERS: usize = 2;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if containerd_shim::parse(&arguments).is_ok_and(|flags| flags.version) {
        println!("containerd-shim-cella-v2 {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(4)
        .thread_keep_alive(std::time::Duration::from_secs(1))
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            runtime.block_on(containerd_shim::run::<CellaShim>(RUNTIME, Some(shim_config())));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{RUNTIME}: cannot start the runtime: {error}");
            ExitCode::FAILURE
        }
    }
}
