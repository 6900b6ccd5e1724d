//! Asking the firmware for a quote in the guest, through Linux's configfs-tsm (`Documentation/ABI/testing/configfs-tsm`).
//!
//! Whose bytes: the guest kernel's, which is trusted; the report inside is the firmware's and the certificates are the host's.
//! Only plain file operations, so that tests run against a directory tree.

mod entry;

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    Evidence,
    cert_table::{self, CertTableError, MAX_TABLE},
};
use entry::{Dir, Entry};

/// Where quotes are asked for, once configfs is mounted.
pub const ROOT: &str = "/sys/kernel/config/tsm/report";

/// Largest report or quote that is read, in bytes. TDX quotes take about 5 KiB.
const MAX_REPORT: usize = 32 * 1024;
/// How often a quote is asked for again when another writer came between.
const ATTEMPTS: u32 = 5;

/// What the kernel gave.
#[derive(Clone, PartialEq, Eq)]
pub struct RawEvidence {
    /// Which firmware answered.
    pub provider: Provider,
    /// SNP report or TDX quote.
    pub report: Vec<u8>,
    /// SNP: the host's certificate table, where it hands one out.
    pub certs: Option<Vec<u8>>,
}

impl RawEvidence {
    /// The evidence of an SNP guest, with the chain of the host's table; where there is no table, or one that cannot be read, with `cached`, a chain
    /// that the host has handed over in another way. The chain is empty when there is neither.
    ///
    /// # Errors
    /// [`CertTableError`] when the host's table cannot be read and nothing else is there.
    pub fn into_snp_evidence(self, cached: &[Vec<u8>]) -> Result<Evidence, CertTableError> {
        let chain = match self.certs.as_deref().map(cert_table::chain) {
            Some(Ok(chain)) => chain,
            Some(Err(error)) if cached.is_empty() => return Err(error),
            None | Some(Err(_)) => cached.to_vec(),
        };
        Ok(Evidence {
            report: self.report,
            chain,
        })
    }
}

/// The technology behind configfs-tsm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// AMD SEV-SNP.
    SevGuest,
    /// Intel TDX.
    TdxGuest,
}

/// Why there is no quote.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuoteError {
    /// The kernel has no configfs-tsm, configfs is not mounted, or this is no confidential guest.
    #[error("creating {}: this kernel offers no quotes", path.display())]
    Create {
        /// The entry.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// An attribute could not be read or written.
    #[error("{what} of a quote in {}", path.display())]
    Attribute {
        /// What was being done.
        what: &'static str,
        /// The entry.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// Quotes of a technology that is not known here.
    #[error("quotes come from an unknown provider; sev_guest and tdx_guest are known")]
    Provider,
    /// The counter of writes is no number.
    #[error("the generation of a quote is not a number")]
    Generation,
    /// Other writers kept coming between.
    #[error("the quote was disturbed by another writer {ATTEMPTS} times")]
    Disturbed,
}

/// Asks for a quote over `report_data`. Blocks: mainline TDX can take a second, so keep it off async threads.
///
/// `root` is [`ROOT`], or a directory tree that stands for it.
///
/// # Errors
/// [`QuoteError`]. The entry in `root` is removed on every path.
pub fn quote(root: &Path, report_data: &[u8; 64]) -> Result<RawEvidence, QuoteError> {
    quote_through(report_data, || Dir::create(root))
}

/// Asks again, with a new entry each time, while another writer disturbs.
fn quote_through<E: Entry>(
    report_data: &[u8; 64],
    mut create: impl FnMut() -> Result<E, QuoteError>,
) -> Result<RawEvidence, QuoteError> {
    for _ in 0..ATTEMPTS {
        if let Some(evidence) = attempt(&create()?, report_data)? {
            return Ok(evidence);
        }
    }
    Err(QuoteError::Disturbed)
}

/// One quote in one entry; `None` when another writer came between.
fn attempt(entry: &impl Entry, report_data: &[u8; 64]) -> Result<Option<RawEvidence>, QuoteError> {
    let failed = |what| {
        move |source| QuoteError::Attribute {
            what,
            path: entry.path().to_owned(),
            source,
        }
    };
    let provider = match entry
        .read("provider", 64)
        .map_err(failed("reading the provider"))?
        .trim_ascii()
    {
        b"sev_guest" => Provider::SevGuest,
        b"tdx_guest" => Provider::TdxGuest,
        _ => return Err(QuoteError::Provider),
    };
    if provider == Provider::SevGuest {
        entry
            .write("privlevel", b"0")
            .map_err(failed("setting the privilege level"))?;
    }
    let before = generation(entry)?;
    entry
        .write("inblob", report_data)
        .map_err(failed("writing the challenge"))?;
    let report = match entry.read("outblob", MAX_REPORT) {
        Err(error) if matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::WouldBlock) => {
            return Ok(None);
        }
        other => other.map_err(failed("reading the report"))?,
    };
    let certs = match entry.read("auxblob", MAX_TABLE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        other => Some(other.map_err(failed("reading the certificates"))?).filter(|table| !table.is_empty()),
    };
    let undisturbed = generation(entry)? == before.wrapping_add(1);
    Ok(undisturbed.then_some(RawEvidence {
        provider,
        report,
        certs,
    }))
}

/// The kernel's count of writes to an entry.
fn generation(entry: &impl Entry) -> Result<u64, QuoteError> {
    let text = entry.read("generation", 64).map_err(|source| QuoteError::Attribute {
        what: "reading the generation",
        path: entry.path().to_owned(),
        source,
    })?;
    let text = std::str::from_utf8(&text).map_err(|_| QuoteError::Generation)?;
    text.trim().parse().map_err(|_| QuoteError::Generation)
}

#[cfg(test)]
mod tests;
