//! Evidence of Intel TDX guests: quotes of version 4 and 5 by Intel's quoting enclave, verified offline against given collateral.
//!
//! Whose bytes: quote, event log and collateral may come from the guest or from anybody on the way; they are bounded before they are parsed and
//! believed only under Intel's root. Time and policy are the caller's.
//!
//! ```text
//! SGX root ─┬─ PCK CA ── PCK ── report of the quoting enclave ── attestation key ── quote: TD report
//!           ├─ TCB signing ── TCB info, quoting enclave's identity
//!           └─ revocation list; PCK CA ── revocation list
//! ```
//! [`Quote::parse`], [`EventLog::parse`], [`Collateral::from_json`] and the parsers below them are pure: the entries of the fuzz targets.

mod collateral;
mod enclave;
mod error;
mod event_log;
mod options;
mod pck;
mod qe_identity;
mod quote;
mod report;
mod roots;
mod signed;
mod status;
mod tcb_info;
mod verify;

pub use collateral::{Collateral, CollateralError};
pub use error::TdxError;
pub use event_log::{Event, EventLog, EventLogError, MAX_EVENT_LOG};
pub use options::{TcbException, TdxOptions};
pub use pck::{PckError, Platform};
pub use quote::{MAX_QUOTE, Quote, QuoteError};
pub use report::{
    ATTRIBUTE_DEBUG, ATTRIBUTE_MIGRATABLE, ATTRIBUTE_PERFMON, ATTRIBUTE_PKS, ATTRIBUTE_SEPT_VE_DISABLE, TdReport,
};
pub use roots::Roots;
pub use signed::SignedError;
pub use status::TcbStatus;
pub use verify::{TdxEvidence, TdxExpected, VerifiedTd, verify};
