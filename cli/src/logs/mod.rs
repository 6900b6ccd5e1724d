//! `cellactl logs`: the console of a pod's guest, and what its agent reported.
//!
//! Both are the guest's words. The console is read from the files that the shim keeps (the older one first), the events are
//! asked of the agent itself, over the pod's vsock. What reaches the terminal is escaped.

mod console;
mod events;

use std::io::{self, Write as _};

use self::console::Console;
use crate::node::{NodeArgs, NodeError};

/// `cellactl logs`.
#[derive(Debug, clap::Args)]
pub(crate) struct LogsArgs {
    /// The pod: its name, namespace/name, sandbox id or the beginning of it.
    pod: String,
    #[command(flatten)]
    node: NodeArgs,
    /// Goes on until the pod is gone.
    #[arg(long, short)]
    follow: bool,
    /// Only the guest's console.
    #[arg(long, conflicts_with = "events")]
    console: bool,
    /// Only the agent's events: refusals by policy, containers that ran out of memory.
    #[arg(long)]
    events: bool,
}

/// Prints as it reads; gives nothing more to print.
pub(crate) async fn run(args: &LogsArgs) -> Result<String, LogsError> {
    let pod = args.node.pod(&args.pod)?;
    let mut console = Console::of(&pod.dir);
    let console = async {
        if !args.events {
            console.copy(args.follow, print).await?;
        }
        Ok::<_, LogsError>(())
    };
    let events = async {
        if !args.console {
            events::copy(&pod, args.follow, args.events, print).await?;
        }
        Ok::<_, LogsError>(())
    };
    let outcome = if args.follow {
        tokio::try_join!(console, events).map(drop)
    } else {
        async {
            console.await?;
            events.await
        }
        .await
    };
    match outcome {
        // A reader that has seen enough is no failure.
        Err(LogsError::Output { source }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(String::new()),
        outcome => outcome.map(|()| String::new()),
    }
}

/// A line on standard output; an error ends the command.
fn print(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LogsError {
    /// No such pod.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The console's files.
    #[error("reading the console log")]
    Console { source: io::Error },
    /// Nobody reads what is printed.
    #[error("writing to standard output")]
    Output { source: io::Error },
    /// The agent, asked for its events.
    #[error("asking the agent for its events")]
    Events { source: events::EventsError },
}
