//! `cellactl reference`: reference values as a publisher signs them and anybody reads them.
//!
//! `cellactl measure --reference FILE` puts values into a file; what is signed is the file as it is then. Trustee's RVPS imports it as well.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use cella_attest::reference::{Document, MAX_DOCUMENT, Measured, ReferenceError, ReferenceName, Values};

use crate::files::{self, FileError};
use crate::signing::{self, SigningKeyError};

const DAY_S: u64 = 24 * 3600;

/// What to do with reference values.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ReferenceCommand {
    /// Sign the values in a file, in place.
    Sign(SignArgs),
    /// Show the values in a file, whoever wrote them.
    Show(ShowArgs),
    /// Show the values in a file if a signer that you trust has signed them and they have not expired.
    Verify(VerifyArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct SignArgs {
    /// The file, as cellactl measure --reference made it.
    file: PathBuf,
    /// What rules will call the values: reference:NAME.
    #[arg(long, value_name = "NAME")]
    name: ReferenceName,
    /// The publisher's Ed25519 key, PKCS#8 PEM, mode 0600.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// For how many days they count.
    #[arg(long, value_name = "N", default_value_t = 180, value_parser = clap::value_parser!(u64).range(1..=366))]
    days: u64,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// The file.
    file: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// The file.
    file: PathBuf,
    /// PEM of the Ed25519 public key of a publisher. Repeat for more.
    #[arg(long = "signer", value_name = "PEM", required = true)]
    signers: Vec<PathBuf>,
}

/// Does it; returns what belongs on standard output.
pub(crate) fn run(command: &ReferenceCommand) -> Result<String, ReferenceCommandError> {
    match command {
        ReferenceCommand::Sign(args) => {
            let (path, now) = (&args.file, now()?);
            let expires = now.saturating_add(args.days * DAY_S);
            let signed = read(path)?
                .sign(&signing::key_pair(&args.key)?, args.name.clone(), now, expires)
                .map_err(|source| refused(path, source))?;
            files::write(path, &signed.to_json())?;
            let (name, days) = (&args.name, args.days);
            Ok(format!("{}: signed as {name}, for {days} days\n", path.display()))
        }
        ReferenceCommand::Show(args) => {
            let values = read(&args.file)?.unverified();
            Ok(table(&values.map_err(|source| refused(&args.file, source))?))
        }
        ReferenceCommand::Verify(args) => {
            let keys = args.signers.iter().map(|path| signing::public_key(path));
            let signers: Vec<_> = keys.collect::<Result<_, _>>()?;
            let now = now()?;
            let references = read(&args.file)?
                .verify(&signers, now)
                .map_err(|source| refused(&args.file, source))?;
            let days = references.expires.saturating_sub(now) / DAY_S;
            let signer = hex::encode(references.signer);
            Ok(format!(
                "name    {}\nsigner  {signer}\nissued  {}\nexpires {}, in {days} days\n{}",
                references.name,
                references.issued,
                references.expires,
                table(&references.values)
            ))
        }
    }
}

/// Adds values to those in a file, which is made if it is not there. A signature that was there does not count any more and goes.
pub(crate) fn add(path: &Path, values: &[(Measured, [u8; 48])]) -> Result<(), ReferenceCommandError> {
    let mut all = match read(path) {
        Ok(document) => document.unverified().map_err(|source| refused(path, source))?,
        Err(ReferenceCommandError::File(FileError::Read { source, .. }))
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            Values::new()
        }
        Err(error) => return Err(error),
    };
    for (of, value) in values {
        all.add(*of, *value);
    }
    Ok(files::write(path, &Document::of(&all).to_json())?)
}

/// The document in a file, of which only the form was checked.
pub(crate) fn read(path: &Path) -> Result<Document, ReferenceCommandError> {
    let json = files::read(path, MAX_DOCUMENT as u64)?;
    Document::parse(&json).map_err(|source| refused(path, source))
}

fn table(values: &Values) -> String {
    values.iter().fold(String::new(), |mut out, (of, value)| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{:<22}  {}", of.name(), hex::encode(value));
        out
    })
}

fn now() -> Result<u64, ReferenceCommandError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since
        .map(|since| since.as_secs())
        .map_err(|_| ReferenceCommandError::Clock)
}

fn refused(path: &Path, source: ReferenceError) -> ReferenceCommandError {
    ReferenceCommandError::Refused {
        path: path.to_owned(),
        source,
    }
}

/// Why reference values are not read, written or believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ReferenceCommandError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key.
    #[error(transparent)]
    Key(#[from] SigningKeyError),
    /// What is in the file.
    #[error("{} is refused", path.display())]
    Refused { path: PathBuf, source: ReferenceError },
    /// The clock stands before 1970.
    #[error("the clock of this machine stands before 1970")]
    Clock,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::kbs::test_keys;

    #[derive(Parser)]
    struct Reference {
        #[command(subcommand)]
        command: ReferenceCommand,
    }

    fn command(args: &[&str]) -> Result<String, ReferenceCommandError> {
        let parsed = Reference::try_parse_from(["r"].iter().chain(args));
        run(&parsed.unwrap_or_else(|error| panic!("{error}")).command)
    }

    const VALUES: [(Measured, [u8; 48]); 2] = [(Measured::SnpLaunchDigest, [1; 48]), (Measured::Mrtd, [2; 48])];

    #[test]
    fn values_are_gathered_signed_and_verified() {
        let folder = tempfile::tempdir().unwrap();
        let (key, public) = test_keys(folder.path(), "publisher");
        let (_, other) = test_keys(folder.path(), "other");
        let path = folder.path().join("values.json");
        let file = path.to_str().unwrap();
        add(&path, &VALUES[..1]).unwrap();
        add(&path, &VALUES).unwrap();
        let shown = command(&["show", file]).unwrap();
        let hex = |byte: &str| byte.repeat(48);
        let lines = format!("mr_td                   {}\n", hex("02"));
        assert!(shown.ends_with(&lines) && shown.contains(&hex("01")), "{shown}");
        assert_eq!(shown.lines().count(), 2);

        let verify = |signer: &str| command(&["verify", file, "--signer", signer]);
        let refusal = |signer: &str| match verify(signer).unwrap_err() {
            ReferenceCommandError::Refused { source, .. } => source,
            error => panic!("{error}"),
        };
        assert!(matches!(refusal(&public), ReferenceError::Unsigned));
        command(&["sign", file, "--name", "guest", "--key", &key, "--days", "2"]).unwrap();
        let verified = verify(&public).unwrap();
        assert!(
            verified.starts_with("name    guest\n") && verified.ends_with(&shown),
            "{verified}"
        );
        assert!(matches!(refusal(&other), ReferenceError::Signature));
        // More values: the old signature is not for them.
        add(&path, &[(Measured::Rtmr1, [3; 48])]).unwrap();
        assert!(matches!(refusal(&public), ReferenceError::Unsigned));
    }

    #[test]
    fn files_and_flags_that_make_no_sense_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("values.json");
        std::fs::write(&path, b"{}").unwrap();
        let error = add(&path, &VALUES).unwrap_err();
        assert!(matches!(error, ReferenceCommandError::Refused { .. }), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"{}", "nothing is overwritten");
        let error = command(&["show", "/nonexistent"]).unwrap_err();
        assert!(matches!(error, ReferenceCommandError::File(_)), "{error}");
        for flags in [
            &["sign", "f", "--name", "a b", "--key", "k"][..],
            &["sign", "f", "--name", "a", "--key", "k", "--days", "367"],
            &["verify", "f"],
        ] {
            assert!(
                Reference::try_parse_from(["r"].iter().chain(flags)).is_err(),
                "{flags:?}"
            );
        }
    }
}
