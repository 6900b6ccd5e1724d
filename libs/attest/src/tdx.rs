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
//! A guest has the part without signatures: its own report, local or in a quote, and the event log of its boot. The rest is in the verifiers'
//! build only (feature `verify`).
//!
//! `Quote::parse`, [`EventLog::parse`], [`LocalReport::parse`], `Collateral::from_json` and the parsers below them are pure: the entries of the
//! fuzz targets.

mod event_log;
mod head;
mod local;
mod report;

#[cfg(feature = "verify")]
mod collateral;
#[cfg(feature = "verify")]
mod enclave;
#[cfg(feature = "verify")]
mod error;
#[cfg(feature = "verify")]
mod options;
#[cfg(feature = "verify")]
mod pck;
#[cfg(feature = "verify")]
mod qe_identity;
#[cfg(feature = "verify")]
mod quote;
#[cfg(feature = "verify")]
mod roots;
#[cfg(feature = "verify")]
mod signed;
#[cfg(feature = "verify")]
mod status;
#[cfg(feature = "verify")]
mod tcb_info;
#[cfg(feature = "verify")]
mod verify;

#[cfg(feature = "measure")]
pub(crate) use event_log::extend;
pub use event_log::{Event, EventLog, EventLogError};
pub use head::QuoteError;
pub use local::{LOCAL_REPORT_LEN, LocalReport, LocalReportError};
pub use report::{
    ATTRIBUTE_DEBUG, ATTRIBUTE_MIGRATABLE, ATTRIBUTE_PERFMON, ATTRIBUTE_PKS, ATTRIBUTE_SEPT_VE_DISABLE, TdReport,
};

pub use crate::evidence::{MAX_EVENT_LOG, MAX_QUOTE};

#[cfg(feature = "verify")]
pub use collateral::{Collateral, CollateralError};
#[cfg(feature = "verify")]
pub use error::TdxError;
#[cfg(feature = "verify")]
pub use options::{TcbException, TdxOptions};
#[cfg(feature = "verify")]
pub use pck::{PckError, Platform};
#[cfg(feature = "verify")]
pub use quote::Quote;
#[cfg(feature = "verify")]
pub use roots::Roots;
#[cfg(feature = "verify")]
pub use signed::SignedError;
#[cfg(feature = "verify")]
pub use status::TcbStatus;
#[cfg(feature = "verify")]
pub use verify::{TdxEvidence, TdxExpected, VerifiedTd, verify};
