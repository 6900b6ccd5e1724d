//! TDX evidence as it travels: a quote, and the event log that leads to its registers.

/// Largest quote that is looked at, in bytes. Real ones take 5 KiB.
pub const MAX_QUOTE: usize = 16 * 1024;
/// Largest event log that is looked at, in bytes: the largest area that firmware sets aside.
pub const MAX_EVENT_LOG: usize = 1 << 20;

/// A TDX quote with the event log of the boot, where the guest has one. Nothing in it is believed until `tdx::verify` has been
/// through. Its JSON form is Trustee's: [`crate::trustee::td_to_json`].
#[derive(Clone, PartialEq, Eq)]
pub struct TdEvidence {
    /// The quote, at most [`MAX_QUOTE`] bytes.
    pub quote: Vec<u8>,
    /// The area of the ACPI table CCEL, whole or cut off at the end of its events; at most [`MAX_EVENT_LOG`] bytes.
    pub event_log: Option<Vec<u8>>,
}

impl std::fmt::Debug for TdEvidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TdEvidence")
            .field("quote_len", &self.quote.len())
            .field("event_log_len", &self.event_log.as_ref().map(Vec::len))
            .finish()
    }
}
