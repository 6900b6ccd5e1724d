//! `cellactl kbs`: keys and release rules at the owner's key broker.

mod admin;
mod audit;
mod backup;
mod client;
mod floor;
mod keygen;
mod owners;
mod reference;
mod rule;
mod token;

use std::fmt::Write as _;
use std::path::PathBuf;

use zeroize::Zeroizing;

pub(crate) use self::admin::{Admin, AdminError, Broker};

use self::audit::{AuditCommand, AuditError};
use self::backup::{BackupArgs, BackupError, RestoreArgs};
use self::client::{AdminClient, ClientError, ResourcePath};
use self::floor::FloorCommand;
use self::keygen::{KeygenArgs, KeygenError};
use self::owners::{ApproveArgs, OwnersCommand, OwnersError};
use self::reference::ReferenceCommand;
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
    /// List what the broker holds: names, versions, sizes and rules, never keys.
    List(BrokerArgs),
    /// Floors: versions of keys, models and policies below which nothing is released.
    #[command(subcommand)]
    Floor(FloorCommand),
    /// Owners: people whose yes, signed, a resource needs beside its rule.
    #[command(subcommand)]
    Owners(OwnersCommand),
    /// Say yes, as an owner, to releasing a resource to a guest. Needs the owner's key and no admin's.
    Approve(ApproveArgs),
    /// Reference values: digests that a publisher signed, which rules name as reference:NAME.
    #[command(subcommand)]
    Reference(ReferenceCommand),
    /// The broker's audit log, and whether it is whole.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Take a copy of everything that the broker holds, encrypted under its storage key.
    Backup(BackupArgs),
    /// Bring a backup into a broker that holds nothing yet.
    Restore(RestoreArgs),
    /// Let the broker sign tokens with a new key, five minutes from now; the old one is believed as long as its tokens live.
    RotateTokenKey(BrokerArgs),
    /// Print the keys that verify the broker's tokens (JWKS).
    Jwks(PeerArgs),
    /// Make a key pair for an admin, an owner or a publisher of reference values.
    Keygen(KeygenArgs),
}

/// Which broker.
#[derive(Debug, clap::Args)]
pub(crate) struct PeerArgs {
    /// The broker: https://host:port.
    #[arg(long)]
    url: String,
    /// PEM of the authority that signed the broker's certificate.
    #[arg(long, value_name = "PEM")]
    ca: PathBuf,
}

/// Which broker, and who asks.
#[derive(Debug, clap::Args)]
pub(crate) struct BrokerArgs {
    #[command(flatten)]
    peer: PeerArgs,
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
    /// The key's version, above every one that it had. Default: one more than the last.
    #[arg(long, value_name = "N")]
    version: Option<u64>,
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
    /// The rule's version, above every one that it had. Default: one more than the last.
    #[arg(long, value_name = "N")]
    version: Option<u64>,
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
            let version = client.set_key(&args.resource, args.version, &bytes).await?;
            // An answer that says yes is not proof: tools are known to take any answer for one.
            let stored = client.list().await?;
            let entry = stored.iter().find(|entry| entry.path == args.resource.as_str());
            match entry.map(|entry| (entry.bytes, entry.version)) {
                Some((Some(KEY_LEN), found)) if found >= Some(version) => {
                    Ok(format!("{}: stored as version {version}\n", args.resource))
                }
                found => Err(KbsError::NotStored {
                    resource: args.resource.clone(),
                    found: found.and_then(|(bytes, _)| bytes),
                }),
            }
        }
        KbsCommand::SetRule(args) => {
            let rule = args.rule.json()?;
            let client = AdminClient::new(&args.broker)?;
            let version = client.set_rule(&args.resource, args.version, &rule).await?;
            Ok(format!("{}: rule set as version {version}\n", args.resource))
        }
        KbsCommand::Floor(command) => Ok(floor::run(command).await?),
        KbsCommand::Owners(command) => Ok(owners::run(command).await?),
        KbsCommand::Approve(args) => Ok(owners::approve(&args).await?),
        KbsCommand::Reference(command) => Ok(reference::run(command).await?),
        KbsCommand::Audit(command) => Ok(audit::run(command).await?),
        KbsCommand::Backup(args) => Ok(backup::backup(&args).await?),
        KbsCommand::Restore(args) => Ok(backup::restore(&args).await?),
        KbsCommand::RotateTokenKey(args) => {
            let answer = AdminClient::new(&args)?.post("cella-token-key", Vec::new()).await?;
            let answer: serde_json::Value = client::parse(&answer)?;
            Ok(format!("{answer}\n"))
        }
        KbsCommand::Jwks(args) => {
            let keys: serde_json::Value = AdminClient::without_token(&args)?.get("cella-jwks").await?;
            Ok(format!("{keys:#}\n"))
        }
        KbsCommand::Keygen(args) => Ok(keygen::run(&args)?),
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
        let version = entry
            .version
            .map_or(String::new(), |version| format!("version {version}  "));
        let rule = match (&entry.rule, entry.rule_version) {
            (Some(rule), Some(version)) => format!("rule {version}: {rule}"),
            (Some(rule), None) => rule.to_string(),
            (None, _) => "no rule: released to nobody".to_owned(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}  {version}{bytes}  {rule}", entry.path);
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
    /// Owners.
    #[error(transparent)]
    Owners(#[from] OwnersError),
    /// Reference values.
    #[error(transparent)]
    Reference(#[from] reference::ReferenceError),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// A backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// A key pair.
    #[error(transparent)]
    Keygen(#[from] KeygenError),
    /// It said yes and has another key, or none.
    #[error("the broker took {resource} and does not hold {KEY_LEN} bytes under that name, but {found:?}")]
    NotStored { resource: ResourcePath, found: Option<u64> },
}

const KEY_LEN: u64 = 32;

/// Paths of a fresh private key and its public one.
#[cfg(test)]
pub(crate) fn test_keys(folder: &std::path::Path, name: &str) -> (String, String) {
    let file = folder.join(name);
    keygen::run(&KeygenArgs { file: file.clone() }).unwrap();
    let path = file.display().to_string();
    (path.clone(), format!("{path}.pub"))
}
