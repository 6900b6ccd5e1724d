//! Owners of a resource: who they are, and their yes, signed with keys that only they have.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cella_kbs_client::statement::{Approval, Ownership, is_owner_name};
use ring::signature::Ed25519KeyPair;
use serde_json::{Value, json};

use super::client::{AdminClient, ClientError, ResourcePath};
use super::token::TokenError;
use super::{BrokerArgs, PeerArgs};
use crate::signing::{SigningKeyError, key_pair, public_key};

/// What to do with owners.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum OwnersCommand {
    /// Name the owners whose yes a resource needs. Where there are owners, all of them must have signed for it (see sign).
    Set(SetArgs),
    /// Sign, as an owner of today, for the owners to come; prints the signature for --consent of set.
    Sign(SignArgs),
    /// Show a resource's owners and what they have approved.
    Show(ShowArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct SetArgs {
    /// Its name: repository/type/tag, or kbs:///repository/type/tag.
    resource: ResourcePath,
    /// An owner and the PEM of the Ed25519 public key. Repeat for more; none: the resource has no owners any more.
    #[arg(long = "owner", value_name = "NAME=PEM", value_parser = owner)]
    owners: Vec<(String, PathBuf)>,
    /// What an owner of today printed with sign.
    #[arg(long = "consent", value_name = "NAME=SIGNATURE", value_parser = pair)]
    consents: Vec<(String, String)>,
    #[command(flatten)]
    broker: BrokerArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SignArgs {
    /// Its name: repository/type/tag, or kbs:///repository/type/tag.
    resource: ResourcePath,
    /// One more than the generation that show prints.
    #[arg(long, value_name = "N")]
    generation: u64,
    /// The owners to come, as set will name them, in the same order.
    #[arg(long = "owner", value_name = "NAME=PEM", value_parser = owner)]
    owners: Vec<(String, PathBuf)>,
    /// This owner's Ed25519 key, PKCS#8 PEM, mode 0600.
    #[arg(long, value_name = "FILE")]
    owner_key: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// Its name: repository/type/tag, or kbs:///repository/type/tag.
    resource: ResourcePath,
    #[command(flatten)]
    broker: BrokerArgs,
}

/// `cellactl kbs approve`.
#[derive(Debug, clap::Args)]
pub(crate) struct ApproveArgs {
    /// Its name: repository/type/tag, or kbs:///repository/type/tag.
    resource: ResourcePath,
    /// The version of the resource, as list shows it.
    #[arg(long, value_name = "N")]
    version: u64,
    /// The launch digest that may have it: 96 hexadecimal digits.
    #[arg(long, value_name = "HEX", value_parser = digest::<48>)]
    launch_digest: Digest<48>,
    /// The policy that may have it: 64 hexadecimal digits, as cellactl policy digest prints it.
    #[arg(long, value_name = "HEX", value_parser = digest::<32>)]
    policy_digest: Digest<32>,
    /// For how many days.
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=3650))]
    days: u64,
    /// Take back what was approved for this launch digest and policy.
    #[arg(long)]
    withdraw: bool,
    /// Who says so: the owner's name at the broker.
    #[arg(long, value_name = "NAME")]
    owner: String,
    /// The owner's Ed25519 key, PKCS#8 PEM, mode 0600.
    #[arg(long, value_name = "FILE")]
    owner_key: PathBuf,
    #[command(flatten)]
    peer: PeerArgs,
}

/// Bytes of a digest.
#[derive(Debug, Clone, Copy)]
struct Digest<const N: usize>([u8; N]);

pub(super) async fn run(command: OwnersCommand) -> Result<String, OwnersError> {
    match command {
        OwnersCommand::Set(args) => {
            let owners = owners(&args.owners)?;
            let owner = |(name, key): &(String, [u8; 32])| json!({"name": name, "key": hex::encode(key)});
            let consent = |(name, signature): &(String, String)| json!({"owner": name, "signature": signature});
            let body = json!({
                "owners": owners.iter().map(owner).collect::<Vec<_>>(),
                "consents": args.consents.iter().map(consent).collect::<Vec<_>>(),
            });
            let path = format!("cella-owners/{}", args.resource.as_str());
            let client = AdminClient::new(&args.broker)?;
            client.post(&path, body.to_string().into_bytes()).await?;
            Ok(format!("{}: {} owners\n", args.resource, owners.len()))
        }
        OwnersCommand::Sign(args) => {
            let statement = Ownership {
                resource: args.resource.wire()?,
                generation: args.generation,
                owners: owners(&args.owners)?,
            }
            .statement();
            Ok(format!("{}\n", sign(&key_pair(&args.owner_key)?, &statement)))
        }
        OwnersCommand::Show(args) => {
            let path = format!("cella-owners/{}", args.resource.as_str());
            let shown: Value = AdminClient::new(&args.broker)?.get(&path).await?;
            Ok(format!("{shown:#}\n"))
        }
    }
}

pub(super) async fn approve(args: &ApproveArgs) -> Result<String, OwnersError> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(|_| TokenError::Clock)?
        .as_secs();
    let approval = Approval {
        resource: args.resource.wire()?,
        version: args.version,
        launch_digest: args.launch_digest.0,
        policy_digest: args.policy_digest.0,
        issued: now,
        expires: if args.withdraw {
            now
        } else {
            now.saturating_add(args.days * 24 * 3600)
        },
    };
    let signature = sign(&key_pair(&args.owner_key)?, &approval.statement());
    let body = json!({
        "owner": args.owner,
        "version": approval.version,
        "launch-digest": hex::encode(approval.launch_digest),
        "policy-digest": hex::encode(approval.policy_digest),
        "issued": approval.issued,
        "expires": approval.expires,
        "signature": signature,
    });
    let path = format!("cella-approval/{}", args.resource.as_str());
    let client = AdminClient::without_token(&args.peer)?;
    client.post(&path, body.to_string().into_bytes()).await?;
    let what = if args.withdraw { "withdrawn" } else { "approved" };
    Ok(format!(
        "{}: version {} {what} by {}\n",
        args.resource, args.version, args.owner
    ))
}

fn sign(pair: &Ed25519KeyPair, statement: &str) -> String {
    URL_SAFE_NO_PAD.encode(pair.sign(statement.as_bytes()))
}

fn owners(named: &[(String, PathBuf)]) -> Result<Vec<(String, [u8; 32])>, OwnersError> {
    named
        .iter()
        .map(|(name, path)| Ok((name.clone(), public_key(path)?)))
        .collect()
}

fn owner(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = pair(text)?;
    Ok((name, PathBuf::from(path)))
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if is_owner_name(name) && !value.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=…, the name of letters, digits, _ . and -".to_owned()),
    }
}

fn digest<const N: usize>(text: &str) -> Result<Digest<N>, String> {
    let mut bytes = [0; N];
    match hex::decode_to_slice(text, &mut bytes) {
        Ok(()) => Ok(Digest(bytes)),
        Err(_) => Err(format!("must be {} hexadecimal digits", 2 * N)),
    }
}

/// Why nothing was signed or set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum OwnersError {
    /// A key.
    #[error(transparent)]
    Key(#[from] SigningKeyError),
    /// The clock.
    #[error(transparent)]
    Clock(#[from] TokenError),
    /// The broker.
    #[error(transparent)]
    Client(#[from] ClientError),
}
