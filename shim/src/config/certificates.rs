//! The certificates of this host's processor, kept in a file for guests whose reports come without.
//!
//! Whose bytes: the operator's, from AMD's key distribution service. They are passed on as they are, within the bounds that the agent has too; whether
//! they lead to a report's signature, the key broker finds out.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cella_attest::cert_table::{MAX_CERT, MAX_CERTS};

/// Longest file, in bytes.
const MAX_FILE: u64 = 32 * 1024;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// VCEK or VLEK, ASK or ASVK, ARK, in DER; or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificates(pub Vec<Vec<u8>>);

/// A file that does not hold certificates.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificatesError {
    /// It cannot be read.
    #[error("cannot read {path}, which snp-certificates names")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is no list of certificates.
    #[error(
        "{path}, which snp-certificates names, does not hold 1 to {MAX_CERTS} certificates in PEM, each of at most {MAX_CERT} bytes in DER"
    )]
    Form {
        /// The file.
        path: PathBuf,
    },
}

impl Certificates {
    /// Reads the file that the configuration names. Blocks.
    pub(super) fn load(path: &Path) -> Result<Self, CertificatesError> {
        let failed = |source| CertificatesError::Read {
            path: path.to_owned(),
            source,
        };
        let mut text = String::new();
        let file = File::open(path).map_err(failed)?;
        file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(failed)?;
        let form = || CertificatesError::Form { path: path.to_owned() };
        if u64::try_from(text.len()).map_or(true, |len| len > MAX_FILE) {
            return Err(form());
        }
        parse(&text).map(Self).ok_or_else(form)
    }
}

/// The certificates in a PEM text; what stands between them is passed over.
fn parse(text: &str) -> Option<Vec<Vec<u8>>> {
    let mut chain = Vec::new();
    let mut rest = text;
    while let Some((_, block)) = rest.split_once(BEGIN) {
        let (body, tail) = block.split_once(END)?;
        let base64: String = body.split_ascii_whitespace().collect();
        let der = STANDARD.decode(base64).ok()?;
        if der.is_empty() || der.len() > MAX_CERT || chain.len() == MAX_CERTS {
            return None;
        }
        chain.push(der);
        rest = tail;
    }
    (!chain.is_empty()).then_some(chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(der: &[u8]) -> String {
        format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(der))
    }

    fn load(text: &str) -> Result<Certificates, CertificatesError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chain.pem");
        std::fs::write(&path, text).unwrap();
        Certificates::load(&path)
    }

    #[test]
    fn a_chain_is_read_in_its_order() {
        let text = format!("VCEK\n{}\nASK\n{}{}", pem(&[1; 100]), pem(&[2; MAX_CERT]), pem(&[3]));
        let chain = vec![vec![1; 100], vec![2; MAX_CERT], vec![3]];
        assert_eq!(load(&text).unwrap(), Certificates(chain));
    }

    #[test]
    fn what_is_no_chain_is_refused() {
        let long = pem(&[1; 4096]);
        for text in [
            "",
            "no certificate",
            BEGIN,
            "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----",
            &pem(&[]),
            &pem(&[1; MAX_CERT + 1]),
            &pem(&[1]).repeat(4),
            &format!("{long}{}", " ".repeat(32 * 1024)),
        ] {
            assert!(matches!(load(text), Err(CertificatesError::Form { .. })), "{text:.80}");
        }
        let absent = Certificates::load(Path::new("/nonexistent"));
        assert!(matches!(absent, Err(CertificatesError::Read { .. })));
    }
}
