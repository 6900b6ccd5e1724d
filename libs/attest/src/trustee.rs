//! Evidence in the forms that Confidential Containers' Trustee and its clients exchange, as JSON.
//!
//! | guest | written by | read by | form |
//! |---|---|---|---|
//! | SEV-SNP | [`to_json`] | `from_json` | the report's members, and the certificates of the host's table |
//! | TDX | [`td_to_json`] | [`td_from_json`] | `{"cc_eventlog":"<base64>"\|null,"quote":"<base64>"}` |
//!
//! Whose bytes: what is read comes from a guest that may lie. Reading checks lengths and form; nothing is believed by it.

mod snp;
mod td;

#[cfg(feature = "verify")]
pub use snp::from_json;
pub use snp::to_json;
pub use td::{td_from_json, td_to_json};

use crate::evidence::{MAX_CERT, MAX_EVENT_LOG, MAX_QUOTE};

/// Most entries in a certificate table that are looked at.
const MAX_ENTRIES: usize = 16;

/// Whether a value looks like SNP evidence in this form, and not like that of [`crate::Evidence::to_json`].
#[cfg(feature = "verify")]
pub fn is_trustee(json: &serde_json::Value) -> bool {
    json.get("attestation_report").is_some()
}

/// Why evidence is not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrusteeError {
    /// Not this form: a member is missing, unknown, or of the wrong type or length.
    #[error("evidence is not of the form {form}")]
    Json {
        /// Its members.
        form: &'static str,
        /// What the parser stopped at.
        #[source]
        source: serde_json::Error,
    },
    /// The report is none that is known.
    #[error("the report in the evidence is malformed")]
    Report,
    /// The report's processor is unknown, so the layout of its TCB is.
    #[error("the report names an unknown processor")]
    Processor,
    /// The form cannot hold the report: bytes are set that it has no member for.
    #[error("the report has bytes set that the form has no member for")]
    NotRepresentable,
    /// What was rebuilt from the members does not give the members again.
    #[error("the members of the report contradict each other")]
    NotTheSame,
    /// More certificates than a host's table has.
    #[error("{found} certificates in the evidence; at most {MAX_ENTRIES} are looked at")]
    Certificates {
        /// Entries that came.
        found: usize,
    },
    /// A certificate is too large, or PEM that is none.
    #[error("certificate {index} in the evidence is not DER or PEM of at most {MAX_CERT} bytes")]
    Certificate {
        /// Position in the list, from 0.
        index: usize,
    },
    /// The quote is empty, too long, or no base64.
    #[error("the quote in the evidence is not base64 of 1 to {MAX_QUOTE} bytes")]
    Quote,
    /// The event log is empty, too long, or no base64.
    #[error("the event log in the evidence is not base64 of 1 to {MAX_EVENT_LOG} bytes")]
    EventLog,
}
