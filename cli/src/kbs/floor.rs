//! Floors at the broker: raised, shown, never lowered.

use std::fmt::Write as _;

use serde::Deserialize;

use super::BrokerArgs;
use super::client::{AdminClient, ClientError};

/// What to do with floors.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum FloorCommand {
    /// Raise a floor. It is never lowered again.
    Raise(RaiseArgs),
    /// List the floors.
    List(BrokerArgs),
}

/// `cellactl kbs floor raise`.
#[derive(Debug, clap::Args)]
pub(crate) struct RaiseArgs {
    /// resource/REPOSITORY/TYPE (compared with the tags of its keys), model/NAME or policy/NAME (compared with the guest's
    /// measured policy).
    name: String,
    /// The least version that is still let in.
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    version: u64,
    #[command(flatten)]
    broker: BrokerArgs,
}

#[derive(Debug, Deserialize)]
struct Floors {
    floors: Vec<Floor>,
}

#[derive(Debug, Deserialize)]
struct Floor {
    name: String,
    floor: u64,
}

pub(super) async fn run(command: FloorCommand) -> Result<String, ClientError> {
    match command {
        FloorCommand::Raise(args) => {
            let client = AdminClient::new(&args.broker)?;
            let path = format!("cella-floor/{}?version={}", args.name, args.version);
            client.post(&path, Vec::new()).await?;
            Ok(format!("{}: nothing below {} is let in\n", args.name, args.version))
        }
        FloorCommand::List(args) => {
            let listed: Floors = AdminClient::new(&args)?.get("cella-floors").await?;
            if listed.floors.is_empty() {
                return Ok("the broker has no floors\n".to_owned());
            }
            Ok(listed.floors.iter().fold(String::new(), |mut out, floor| {
                // Writing to a string cannot fail.
                let _ = writeln!(out, "{}  {}", floor.name, floor.floor);
                out
            }))
        }
    }
}
