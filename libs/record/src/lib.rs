//! The record that a guest makes of its boot: what it runs, on what, and who released which keys to it; signed, and checked offline.
//! And of a run: what a job read and what it left, signed with the same key ([`SignedRun`]).
//!
//! ```text
//!  record ──Ed25519 signature──▶ the guest's record key ──commitment──▶ its TEE key ──report_data──▶ evidence ──▶ vendor's root
//!     └── measurement, TCB, initdata digest: each compared with what the evidence says
//! ```
//! The record key is made in the guest at boot and never leaves it. What the record says beyond the evidence is the word of the
//! agent, and as good as the measurement that the checker expects.
//!
//! The text is JSON in canonical form (RFC 8785): one value has one text, and a text that is not the canonical one of what it says is
//! refused before its signature is looked at. Nothing in a record is secret.
//!
//! Whose bytes: [`SignedRecord::parse`] takes what anybody hands over. Bounded, no panic, no I/O.
#![forbid(unsafe_code)]

mod bytes;
mod canonical;
mod evidence;
mod key;
mod record;
mod run;
mod signed;
#[cfg(feature = "verify")]
mod verify;

pub use bytes::{Base64, Hex, NotHex};
pub use canonical::CanonicalError;
pub use evidence::{EvidenceText, SnpText, TdxText};
pub use key::{KeyError, RecordKey};
pub use record::{
    BootRecord, BrokerRecord, ImageRecord, InitdataRecord, KeyRecord, ModelFileRecord, ModelRecord, PolicyRecord, Tee,
    TimeRecord, TokenRecord, VERSION,
};
pub use run::{
    InputRecord, OutputFileRecord, OutputRecord, RUN_MEDIA_TYPE, RUN_VERSION, RunRecord, RunTime, SignedRun,
};
pub use signed::{BindingText, MAX_TEXT, ParseError, SignedRecord};
#[cfg(feature = "verify")]
pub use verify::{Checked, Expectations, Refusal, TdxTrust, Trust, check, check_run};
