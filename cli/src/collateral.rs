//! `cellactl collateral`: Intel's collateral for TDX platforms, as the broker's `tdx.collateral` takes it.
//!
//! The broker fetches nothing. Whoever runs it gets Intel's answers with any HTTP client and packs them here; what was signed stays byte for byte
//! what it was, and the broker verifies it.

use std::path::{Path, PathBuf};

use cella_attest::tdx::{Collateral, CollateralError};
use serde::Deserialize;

use crate::files::{self, FileError, MAX_TEXT};

/// What to do with collateral.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum CollateralCommand {
    /// Pack answers of Intel's provisioning certification service (API v4) into one file.
    Pack(PackArgs),
    /// Show what a file is for and until when it counts. Nothing is verified.
    Show(ShowArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct PackArgs {
    /// Body of /tdx/certification/v4/tcb?fmspc=…
    #[arg(long, value_name = "FILE")]
    tcb: PathBuf,
    /// Its header TCB-Info-Issuer-Chain: all headers (curl -D FILE), the value, or PEM.
    #[arg(long, value_name = "FILE")]
    tcb_chain: PathBuf,
    /// Body of /tdx/certification/v4/qe/identity.
    #[arg(long, value_name = "FILE")]
    qe_identity: PathBuf,
    /// Its header SGX-Enclave-Identity-Issuer-Chain, likewise.
    #[arg(long, value_name = "FILE")]
    qe_identity_chain: PathBuf,
    /// /sgx/certification/v4/pckcrl?ca=platform&encoding=der.
    #[arg(long, value_name = "FILE")]
    pck_crl: PathBuf,
    /// IntelSGXRootCA.der, the root's revocation list.
    #[arg(long, value_name = "FILE")]
    root_crl: PathBuf,
    /// Where the collateral goes: a name that ends in .json, in the broker's folder.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// The file.
    file: PathBuf,
}

/// Does it; returns what belongs on standard output.
pub(crate) fn run(command: &CollateralCommand) -> Result<String, CollateralCommandError> {
    match command {
        CollateralCommand::Pack(args) => {
            let body = |path: &Path| files::read(path, Collateral::MAX_JSON as u64);
            let collateral = Collateral::from_pcs(
                body(&args.root_crl)?,
                body(&args.pck_crl)?,
                (&body(&args.tcb)?, chain(&args.tcb_chain, "tcb-info-issuer-chain")?),
                (
                    &body(&args.qe_identity)?,
                    chain(&args.qe_identity_chain, "sgx-enclave-identity-issuer-chain")?,
                ),
            )
            .map_err(|source| CollateralCommandError::Answers { source })?;
            let shown = show(&collateral, &args.out)?;
            files::write(&args.out, &collateral.to_json())?;
            Ok(format!("{}\n{shown}", args.out.display()))
        }
        CollateralCommand::Show(args) => {
            let json = files::read(&args.file, Collateral::MAX_JSON as u64)?;
            let collateral = Collateral::from_json(&json).map_err(|source| CollateralCommandError::Malformed {
                path: args.file.clone(),
                source,
            })?;
            show(&collateral, &args.file)
        }
    }
}

/// What the two documents say of themselves.
fn show(collateral: &Collateral, path: &Path) -> Result<String, CollateralCommandError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Said {
        issue_date: String,
        next_update: String,
        tcb_evaluation_data_number: u32,
    }
    let fmspc = collateral.fmspc().map_err(|source| CollateralCommandError::Malformed {
        path: path.to_owned(),
        source,
    })?;
    let mut out = format!("FMSPC        {}\n", hex::encode(fmspc));
    for (what, text) in [
        ("TCB info", &collateral.tcb_info),
        ("QE identity", &collateral.qe_identity),
    ] {
        let said: Said = serde_json::from_str(text).map_err(|source| CollateralCommandError::Document {
            path: path.to_owned(),
            what,
            source,
        })?;
        // Foreign text: dates have these characters only.
        let clean = |date: &str| {
            date.chars()
                .filter(|c| c.is_ascii_graphic())
                .take(32)
                .collect::<String>()
        };
        out.push_str(&format!(
            "{what:<11}  issued {}, next update {}, evaluation {}\n",
            clean(&said.issue_date),
            clean(&said.next_update),
            said.tcb_evaluation_data_number
        ));
    }
    Ok(out)
}

/// The certificates in a file: PEM, percent-encoded PEM, or the header of this name among others.
fn chain(path: &Path, header: &str) -> Result<String, CollateralCommandError> {
    let text = files::read_text(path, MAX_TEXT)?;
    let value = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case(header).then_some(value)
    });
    let chain = percent_decoded(value.unwrap_or(&text).trim());
    chain
        .filter(|chain| chain.starts_with("-----BEGIN CERTIFICATE-----"))
        .ok_or_else(|| CollateralCommandError::NoChain {
            path: path.to_owned(),
            header: header.to_owned(),
        })
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        let [byte] = <[u8; 1]>::try_from(hex::decode(digits).ok()?).ok()?;
        bytes.push(byte);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

/// Why there is no collateral.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CollateralCommandError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not what Intel's service answers.
    #[error("the files are not answers of Intel's service for TDX")]
    Answers { source: CollateralError },
    /// Not collateral.
    #[error("{} is not TDX collateral", path.display())]
    Malformed { path: PathBuf, source: CollateralError },
    /// One of its documents does not say what every one says.
    #[error("the {what} in {} does not say when it was issued", path.display())]
    Document {
        path: PathBuf,
        what: &'static str,
        source: serde_json::Error,
    },
    /// No certificates.
    #[error("{} holds neither PEM certificates nor the header {header}", path.display())]
    NoChain { path: PathBuf, header: String },
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(subcommand)]
        command: CollateralCommand,
    }

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nMAMCAQU=\n-----END CERTIFICATE-----\n";
    const ENCODED: &str = "-----BEGIN%20CERTIFICATE-----%0AMAMCAQU%3D%0A-----END%20CERTIFICATE-----%0A";
    const SAID: &str =
        r#""issueDate":"2026-01-01T00:00:00Z","nextUpdate":"2026-01-31T00:00:00Z","tcbEvaluationDataNumber":19"#;

    fn answers(folder: &Path, change: impl FnOnce(&Path)) -> Result<String, CollateralCommandError> {
        let signature = "ab".repeat(64);
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        // With the blanks that Intel would have signed.
        let tcb = format!(r#"{{"tcbInfo":{{ "fmspc":"51494D303000", {SAID}}},"signature":"{signature}"}}"#);
        write("tcb", &tcb);
        write(
            "tcb-headers",
            &format!("HTTP/2 200\r\nRequest-ID: 1\r\ntcb-info-issuer-chain: {ENCODED}\r\n\r\n"),
        );
        write(
            "qe",
            &format!(r#"{{"enclaveIdentity":{{{SAID}}},"signature":"{signature}"}}"#),
        );
        write("qe-chain", PEM);
        write("pck.crl", "pck");
        write("root.crl", "root");
        change(folder);
        let path = |name: &str| folder.join(name).display().to_string();
        let mut args = vec!["c".to_owned(), "pack".to_owned()];
        for (flag, name) in [
            ("--tcb", "tcb"),
            ("--tcb-chain", "tcb-headers"),
            ("--qe-identity", "qe"),
            ("--qe-identity-chain", "qe-chain"),
            ("--pck-crl", "pck.crl"),
            ("--root-crl", "root.crl"),
            ("--out", "out.json"),
        ] {
            args.extend([flag.to_owned(), path(name)]);
        }
        run(&Command::try_parse_from(args)
            .unwrap_or_else(|error| panic!("{error}"))
            .command)
    }

    #[test]
    fn answers_become_one_file_that_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let packed = answers(folder.path(), |_| {}).unwrap();
        let file = folder.path().join("out.json");
        let collateral = Collateral::from_json(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(collateral.tcb_info, format!(r#"{{ "fmspc":"51494D303000", {SAID}}}"#));
        assert_eq!(
            (
                collateral.tcb_info_chain.as_str(),
                collateral.qe_identity_chain.as_str()
            ),
            (PEM, PEM.trim_end())
        );
        assert_eq!(
            (collateral.pck_crl.as_slice(), collateral.root_crl.as_slice()),
            (&b"pck"[..], &b"root"[..])
        );
        let shown = run(&CollateralCommand::Show(ShowArgs { file })).unwrap();
        assert!(packed.ends_with(&shown), "{packed}");
        assert_eq!(
            shown,
            "FMSPC        51494d303000\n\
             TCB info     issued 2026-01-01T00:00:00Z, next update 2026-01-31T00:00:00Z, evaluation 19\n\
             QE identity  issued 2026-01-01T00:00:00Z, next update 2026-01-31T00:00:00Z, evaluation 19\n"
        );
    }

    #[test]
    fn files_that_are_something_else_are_named() {
        let refused = |name: &'static str, text: &'static str| {
            let folder = tempfile::tempdir().unwrap();
            let error = answers(folder.path(), |folder| std::fs::write(folder.join(name), text).unwrap()).unwrap_err();
            assert!(!folder.path().join("out.json").exists());
            error
        };
        for (name, text) in [("tcb", "{}"), ("qe", "<html>")] {
            let error = refused(name, text);
            assert!(matches!(error, CollateralCommandError::Answers { .. }), "{error}");
        }
        for text in [
            "",
            "HTTP/2 200\r\nother: 1\r\n",
            "-----BEGIN%2",
            "-----BEGIN%ZZ",
            "x%20y",
        ] {
            let error = refused("tcb-headers", text);
            assert!(
                matches!(error, CollateralCommandError::NoChain { .. }),
                "{text}: {error}"
            );
        }
        let signature = "ab".repeat(64);
        let undated: &'static str =
            Box::leak(format!(r#"{{"enclaveIdentity":{{}},"signature":"{signature}"}}"#).into());
        let error = refused("qe", undated);
        assert!(
            matches!(
                error,
                CollateralCommandError::Document {
                    what: "QE identity",
                    ..
                }
            ),
            "{error}"
        );
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.json");
        std::fs::write(&file, "{}").unwrap();
        let error = run(&CollateralCommand::Show(ShowArgs { file })).unwrap_err();
        assert!(matches!(error, CollateralCommandError::Malformed { .. }), "{error}");
    }
}
