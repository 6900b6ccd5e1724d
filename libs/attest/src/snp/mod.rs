//! The attestation report of SEV-SNP firmware, versions 2 to 5 (AMD publication 56860, "ATTESTATION_REPORT structure").

#[cfg(feature = "verify")]
mod options;
mod product;
mod report;
mod tcb;

#[cfg(feature = "verify")]
pub use options::VerifyOptions;
pub use product::Product;
pub use report::{Cpuid, Mitigations, REPORT_LEN, Report, ReportError, SIGNED_LEN, SigningKey};
pub use tcb::TcbVersion;

/// Bits 7 to 0 and 15 to 8 of the guest policy: the lowest minor and major version of the firmware's ABI that the guest is launched under.
pub const POLICY_ABI: u64 = 0xffff;
/// Bit 16 of the guest policy: simultaneous multithreading is allowed.
pub const POLICY_SMT: u64 = 1 << 16;
/// Bit 17 of the guest policy: must be one.
pub const POLICY_RESERVED_ONE: u64 = 1 << 17;
/// Bit 18 of the guest policy: a migration agent may be associated with the guest.
pub const POLICY_MIGRATE_MA: u64 = 1 << 18;
/// Bit 19 of the guest policy: the host may debug the guest, which is to read and write its memory.
pub const POLICY_DEBUG: u64 = 1 << 19;
/// Bit 20 of the guest policy: the guest runs on one socket only.
pub const POLICY_SINGLE_SOCKET: u64 = 1 << 20;

/// Bit 0 of the platform information: simultaneous multithreading is on.
pub const PLATFORM_SMT: u64 = 1;
/// Bit 2 of the platform information: memory has error correction.
pub const PLATFORM_ECC: u64 = 1 << 2;
/// Bit 4 of the platform information: the host reads no ciphertext of guests' memory.
pub const PLATFORM_CIPHERTEXT_HIDING: u64 = 1 << 4;
/// Bit 5 of the platform information: the firmware found no aliases in memory since the last reset (threat T20, BadRAM).
pub const PLATFORM_ALIAS_CHECK: u64 = 1 << 5;
