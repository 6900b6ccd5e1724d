//! Why no evidence was to be had.

use std::{io, path::PathBuf};

use cella_attest::{
    GuestEvidenceError, MAX_EVENT_LOG, Tee,
    cert_table::CertTableError,
    configfs::QuoteError,
    tdx::{EventLogError, LocalReportError},
};
use nix::errno::Errno;

/// Why no evidence was to be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// The kernel's interface failed.
    #[error("reading a report from configfs-tsm failed")]
    Configfs(#[source] QuoteError),
    /// The certificates that came with the report are unreadable.
    #[error("the certificates that came with the report are unreadable")]
    Certificates(#[source] CertTableError),
    /// A device of the kernel could not be opened.
    #[error("opening {} failed", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The security processor gave no report through `/dev/sev-guest`.
    #[error("no report from {}: firmware error {firmware:#x}, hypervisor error {hypervisor:#x}", path.display())]
    SevGuest {
        /// The device.
        path: PathBuf,
        /// The security processor's error; 0 where it had none.
        firmware: u32,
        /// The host's error: 1 is too little room for certificates, 2 is busy.
        hypervisor: u32,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// The security processor's answer is not a report.
    #[error("what came from {} is not a report: status {status:#x}, {size} bytes", path.display())]
    SevAnswer {
        /// The device.
        path: PathBuf,
        /// Status in the answer.
        status: u32,
        /// Length in the answer.
        size: u32,
    },
    /// The TDX module gave no report through `/dev/tdx_guest`.
    #[error("no report from {}", path.display())]
    TdxGuest {
        /// The device.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// What the TDX module gave is not a report of this guest.
    #[error("the TDX module's report cannot be read")]
    Local(#[from] LocalReportError),
    /// The TDX module's report is of another request.
    #[error("the TDX module's report does not repeat the request")]
    LocalChallenge,
    /// TDX without the device that gives the module's own report: a quote comes through the host and proves nothing to the guest.
    #[error("quotes of this guest are TDX's, but {} is missing", path.display())]
    NoLocalReport {
        /// The device.
        path: PathBuf,
    },
    /// The event log could not be read.
    #[error("reading the event log {}", path.display())]
    ReadLog {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The event log is longer than any.
    #[error("the event log {} is longer than {MAX_EVENT_LOG} bytes", path.display())]
    LongLog {
        /// The file.
        path: PathBuf,
    },
    /// The event log is malformed.
    #[error("the event log {} is malformed", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: EventLogError,
    },
    /// The simulated platform could not be reached or stopped talking.
    #[error("talking to the simulated platform failed while {what}")]
    Platform {
        /// What was being done.
        what: &'static str,
        /// What the socket said.
        #[source]
        source: io::Error,
    },
    /// The simulated platform answered with a length that is none.
    #[error("the simulated platform answered with {length} bytes; 1 to {limit} are allowed")]
    Length {
        /// The length that it announced.
        length: u32,
        /// The largest length that is taken.
        limit: u32,
    },
    /// The simulated platform refused: it could not tell what was launched.
    #[error("the simulated platform has no report for this guest: see its log on the host")]
    Refused,
    /// What came is not evidence.
    #[error("what the platform gave is not evidence")]
    Malformed(#[from] GuestEvidenceError),
    /// The platform changed its kind.
    #[error("this guest's first evidence was {}, this is {}", first.as_str(), now.as_str())]
    OtherTee {
        /// The kind at boot.
        first: Tee,
        /// The kind now.
        now: Tee,
    },
}
