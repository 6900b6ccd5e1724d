//! `cellactl kbs`: keys and release rules at the owner's key broker.

mod client;
mod rule;
mod token;

use std::fmt::Write as _;
use std::path::PathBuf;

use zeroize::Zeroizing;

use self::client::{AdminClient, ClientError, ResourcePath};
use self::rule::{RuleArgs, RuleError};
use crate::keyfile::{self, KeyFileError};

/// What to do at the broker.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum KbsCommand {
    /// Store a key. Nothing is released before it has a rule.
    SetKey(SetKeyArgs),
    /// Say under which conditions a key is released. Replaces the rule that was there.
    SetRule(SetRuleArgs),
    /// Remove a key and its rule.
    Delete(DeleteArgs),
    /// List what the broker holds: names, sizes and rules, never keys.
    List(BrokerArgs),
}

/// Which broker, and who asks.
#[derive(Debug, clap::Args)]
pub(crate) struct BrokerArgs {
    /// The broker: https://host:port.
    #[arg(long)]
    url: String,
    /// PEM of the authority that signed the broker's certificate.
    #[arg(long, value_name = "PEM")]
    ca: PathBuf,
    /// The administrator's Ed25519 key, PKCS#8 PEM, mode 0600.
    #[arg(long, value_name = "FILE")]
    admin_key: PathBuf,
    /// Who this is, for the broker's audit log.
    #[arg(long, default_value = "cellactl")]
    subject: String,
}

/// `cellactl kbs set-key`.
#[derive(Debug, clap::Args)]
pub(crate) struct SetKeyArgs {
    /// Its name: repository/type/tag, or kbs:///repository/type/tag.
    resource: ResourcePath,
    /// File of the key: 32 raw bytes, mode 0600.
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    #[command(flatten)]
    broker: BrokerArgs,
}

/// `cellactl kbs set-rule`.
#[derive(Debug, clap::Args)]
pub(crate) struct SetRuleArgs {
    /// Its name: repository/type/tag, or kbs:///repository/type/tag.
    resource: ResourcePath,
    #[command(flatten)]
    rule: RuleArgs,
    #[command(flatten)]
    broker: BrokerArgs,
}

/// `cellactl kbs delete`.
#[derive(Debug, clap::Args)]
pub(crate) struct DeleteArgs {
    /// Its name: repository/type/tag, or kbs:///repository/type/tag.
    resource: ResourcePath,
    #[command(flatten)]
    broker: BrokerArgs,
}

/// Does it; returns what belongs on standard output.
pub(crate) async fn run(command: KbsCommand) -> Result<String, KbsError> {
    match command {
        KbsCommand::SetKey(args) => {
            let kek = keyfile::load(&args.key_file)?;
            let client = AdminClient::new(&args.broker)?;
            let bytes = Zeroizing::new(kek.expose().to_vec());
            client.set_key(&args.resource, &bytes).await?;
            // An answer that says yes is not proof: tools are known to take any answer for one.
            let stored = client.list().await?;
            match stored
                .iter()
                .find(|entry| entry.path == args.resource.as_str())
                .and_then(|entry| entry.bytes)
            {
                Some(KEY_LEN) => Ok(format!("{}: stored\n", args.resource)),
                found => Err(KbsError::NotStored {
                    resource: args.resource.clone(),
                    found,
                }),
            }
        }
        KbsCommand::SetRule(args) => {
            let rule = args.rule.json()?;
            AdminClient::new(&args.broker)?.set_rule(&args.resource, &rule).await?;
            Ok(format!("{}: rule set\n", args.resource))
        }
        KbsCommand::Delete(args) => {
            AdminClient::new(&args.broker)?.delete(&args.resource).await?;
            Ok(format!("{}: deleted\n", args.resource))
        }
        KbsCommand::List(args) => Ok(table(&AdminClient::new(&args)?.list().await?)),
    }
}

fn table(entries: &[client::Entry]) -> String {
    if entries.is_empty() {
        return "the broker holds no keys\n".to_owned();
    }
    entries.iter().fold(String::new(), |mut out, entry| {
        let bytes = entry
            .bytes
            .map_or("no key".to_owned(), |bytes| format!("{bytes} bytes"));
        let rule = entry
            .rule
            .as_ref()
            .map_or("no rule: released to nobody".to_owned(), ToString::to_string);
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}  {bytes}  {rule}", entry.path);
        out
    })
}

/// Why the broker was not asked, or did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum KbsError {
    /// The key file.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// The rule.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// The broker.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It said yes and has another key, or none.
    #[error("the broker took {resource} and does not hold {KEY_LEN} bytes under that name, but {found:?}")]
    NotStored { resource: ResourcePath, found: Option<u64> },
}

const KEY_LEN: u64 = 32;
