//! Reference values at the broker: brought in, shown.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Deserialize;

use super::BrokerArgs;
use super::client::{AdminClient, ClientError, parse};
use crate::reference::{self, ReferenceCommandError};

/// What to do with reference values.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ReferenceCommand {
    /// Bring in values that a publisher has signed. Says what they add and what they take away.
    Import(ImportArgs),
    /// List the values that the broker holds, and whether they count.
    List(BrokerArgs),
}

/// `cellactl kbs reference import`.
#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// The file, signed (cellactl reference sign). The broker's configuration says whose signature counts.
    file: PathBuf,
    #[command(flatten)]
    broker: BrokerArgs,
}

#[derive(Debug, Deserialize)]
struct Imported {
    name: String,
    added: Vec<Value>,
    removed: Vec<Value>,
}

#[derive(Debug, Deserialize)]
struct Value {
    of: String,
    value: String,
}

#[derive(Debug, Deserialize)]
struct Listing {
    references: Vec<Kept>,
}

#[derive(Debug, Deserialize)]
struct Kept {
    name: String,
    issued: Option<u64>,
    expires: Option<u64>,
    signer: Option<String>,
    refused: Option<String>,
    values: Vec<Value>,
}

pub(super) async fn run(command: ReferenceCommand) -> Result<String, ReferenceError> {
    match command {
        ReferenceCommand::Import(args) => {
            let document = reference::read(&args.file)?;
            let client = AdminClient::new(&args.broker)?;
            let answer = client.post("cella-reference", document.to_json()).await?;
            Ok(changes(&parse(&answer)?))
        }
        ReferenceCommand::List(args) => {
            let listing: Listing = AdminClient::new(&args)?.get("cella-references").await?;
            Ok(table(&listing.references))
        }
    }
}

/// One line for each value that is new or gone.
fn changes(imported: &Imported) -> String {
    let mut out = format!("{}: imported\n", imported.name);
    for (sign, values) in [('+', &imported.added), ('-', &imported.removed)] {
        for Value { of, value } in values {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{sign} {of}  {value}");
        }
    }
    if imported.added.is_empty() && imported.removed.is_empty() {
        out.push_str("no value is new or gone\n");
    }
    out
}

fn table(kept: &[Kept]) -> String {
    if kept.is_empty() {
        return "the broker holds no reference values\n".to_owned();
    }
    kept.iter().fold(String::new(), |mut out, kept| {
        let number = |number: Option<u64>| number.map_or("unknown".to_owned(), |number| number.to_string());
        let state = match (&kept.refused, &kept.signer) {
            (Some(refused), _) => format!("do not count: {refused}"),
            (None, Some(signer)) => format!("expire {}, signed by {signer}", number(kept.expires)),
            (None, None) => "signer unknown".to_owned(),
        };
        let _ = writeln!(out, "{}  issued {}, {state}", kept.name, number(kept.issued));
        for Value { of, value } in &kept.values {
            let _ = writeln!(out, "  {of}  {value}");
        }
        out
    })
}

/// Why values were not brought in or shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ReferenceError {
    /// The file.
    #[error(transparent)]
    File(#[from] ReferenceCommandError),
    /// The broker.
    #[error(transparent)]
    Client(#[from] ClientError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(of: &str, value: &str) -> Value {
        Value {
            of: of.to_owned(),
            value: value.to_owned(),
        }
    }

    #[test]
    fn t28_what_an_import_changes_is_shown() {
        let imported = Imported {
            name: "guest".to_owned(),
            added: vec![value("mr_td", "01")],
            removed: vec![value("rtmr_1", "02")],
        };
        assert_eq!(changes(&imported), "guest: imported\n+ mr_td  01\n- rtmr_1  02\n");
        let nothing = Imported {
            added: Vec::new(),
            removed: Vec::new(),
            ..imported
        };
        assert_eq!(changes(&nothing), "guest: imported\nno value is new or gone\n");
    }

    #[test]
    fn lists_say_what_does_not_count() {
        let good = Kept {
            name: "guest".to_owned(),
            issued: Some(1),
            expires: Some(2),
            signer: Some("ab".to_owned()),
            refused: None,
            values: vec![value("mr_td", "01")],
        };
        let old = Kept {
            name: "old".to_owned(),
            issued: Some(0),
            expires: None,
            signer: None,
            refused: Some("reference values expired".to_owned()),
            values: Vec::new(),
        };
        assert_eq!(
            table(&[good, old]),
            "guest  issued 1, expire 2, signed by ab\n  mr_td  01\nold  issued 0, do not count: reference values expired\n"
        );
        assert_eq!(table(&[]), "the broker holds no reference values\n");
    }
}
