//! The attestation report of SEV-SNP firmware, versions 2 to 5 (AMD publication 56860, "ATTESTATION_REPORT structure").

mod product;
mod report;
mod tcb;

pub use product::Product;
pub use report::{Cpuid, REPORT_LEN, Report, ReportError, SIGNED_LEN, SigningKey};
pub use tcb::TcbVersion;

/// Bit 16 of the guest policy: simultaneous multithreading is allowed.
pub const POLICY_SMT: u64 = 1 << 16;
/// Bit 17 of the guest policy: must be one.
pub const POLICY_RESERVED_ONE: u64 = 1 << 17;
/// Bit 18 of the guest policy: a migration agent may be associated with the guest.
pub const POLICY_MIGRATE_MA: u64 = 1 << 18;
/// Bit 19 of the guest policy: the host may debug the guest, which is to read and write its memory.
pub const POLICY_DEBUG: u64 = 1 << 19;
