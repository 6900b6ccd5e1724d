//! `cellactl`: the tool on the desk of whoever owns a model, writes a policy or runs a node.
//!
//! It seals models, encrypts images, writes policies, computes reference values, administers the key broker and asks a
//! guest how it is. Results go to standard output, progress and errors to standard error. Keys are files of mode 0600
//! and never arguments. Exit codes: 0 done, 1 failed, 2 wrong usage.
#![forbid(unsafe_code)]

mod collateral;
mod doctor;
mod files;
mod image;
mod install;
mod interrupt;
mod kbs;
mod keyfile;
mod layout;
mod lint;
mod logs;
mod measure;
mod metrics;
mod model;
mod node;
mod policy;
mod progress;
mod ps;
mod record;
mod reference;
mod signing;
mod staging;
mod status;
mod store;
mod terminal;
#[cfg(test)]
mod test_registry;
mod trace;
mod transfer;
mod units;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Seals models, encrypts images, writes policies, computes reference values and asks guests how they are.
#[derive(Debug, Parser)]
#[command(
    name = "cellactl",
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build, push and encrypt container images.
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// Seal models, move them, and look at them.
    #[command(subcommand)]
    Model(model::ModelCommand),
    /// Write and read policies.
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Compute launch digests of a guest image.
    Measure(measure::MeasureArgs),
    /// Pack Intel's collateral for TDX platforms for the broker.
    #[command(subcommand)]
    Collateral(collateral::CollateralCommand),
    /// Sign and verify reference values.
    #[command(subcommand)]
    Reference(reference::ReferenceCommand),
    /// Administer keys and release rules at the key broker.
    #[command(subcommand)]
    Kbs(kbs::KbsCommand),
    /// Ask a running guest how far it is and what it holds.
    Status(status::StatusArgs),
    /// Write a pod's way from creation to its containers as a Chrome trace.
    Trace(trace::TraceArgs),
    /// Fetch the signed record of a guest's boot.
    Record(record::RecordArgs),
    /// Fetch the signed record of a job's run from the registry that its output was pushed to.
    RunRecord(record::RunRecordArgs),
    /// Check a guest's record of its boot or of a run: signature, evidence, and what is expected of it. Needs no network.
    VerifyRecord(Box<record::VerifyRecordArgs>),
    /// Check whether this node can run pods, and say what to do.
    Doctor(doctor::DoctorArgs),
    /// Write what a node's containerd needs, after showing the difference.
    Install(install::InstallArgs),
    /// Take out what `install` wrote.
    Uninstall(install::UninstallArgs),
    /// List the pods of this node.
    Ps(ps::PsArgs),
    /// Show a guest's console and what its agent reported.
    Logs(logs::LogsArgs),
    /// Merge the metrics of this node's shims.
    Metrics(metrics::MetricsArgs),
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(command)));
    match outcome {
        Ok(text) => print(&text),
        Err(error) => {
            explain(&error);
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<String> {
    match command {
        Command::Image(command) => image::run(command).await,
        Command::Model(command) => model::run(command).await,
        Command::Policy(command) => Ok(policy::run(command).await?),
        Command::Measure(args) => Ok(measure::run(&args)?),
        Command::Collateral(command) => Ok(collateral::run(&command)?),
        Command::Reference(command) => Ok(reference::run(&command)?),
        Command::Kbs(command) => Ok(kbs::run(command).await?),
        Command::Status(args) => Ok(status::run(&args).await?),
        Command::Trace(args) => Ok(trace::run(&args).await?),
        Command::Record(args) => Ok(record::fetch(&args).await?),
        Command::RunRecord(args) => Ok(record::pull(&args).await?),
        Command::VerifyRecord(args) => Ok(record::verify(&args)?),
        Command::Doctor(args) => Ok(doctor::run(&args)?),
        Command::Install(args) => Ok(install::install(&args)?),
        Command::Uninstall(args) => Ok(install::uninstall(&args)?),
        Command::Ps(args) => Ok(ps::run(&args).await?),
        Command::Logs(args) => Ok(logs::run(&args).await?),
        Command::Metrics(args) => Ok(metrics::run(&args).await?),
    }
}

/// A reader that has seen enough is no failure.
fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// The error, and each cause on a line of its own.
fn explain(error: &anyhow::Error) {
    let mut text = format!("cellactl: {error}\n");
    for cause in error.chain().skip(1) {
        text.push_str(&format!("  because: {cause}\n"));
    }
    // Where standard error is closed there is nobody to tell.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_argument_takes_a_secret() {
        fn names(command: &clap::Command, found: &mut Vec<String>) {
            found.extend(command.get_arguments().map(|argument| argument.get_id().to_string()));
            command.get_subcommands().for_each(|command| names(command, found));
        }
        let mut found = Vec::new();
        names(&Cli::command(), &mut found);
        for name in found {
            let is_secret = ["password", "secret", "token"].iter().any(|word| name.contains(word));
            assert!(!is_secret, "{name}: secrets are files");
        }
    }
}
