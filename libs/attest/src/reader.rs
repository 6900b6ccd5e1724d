//! Reading little-endian records whose lengths a peer has chosen.

/// What is left to read. Each method gives `None`, and reads nothing, when there is less than it needs.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// As many bytes as the u16 in front of them says.
    #[cfg(feature = "verify")]
    pub(crate) fn with_u16_len(&mut self) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let len = usize::from(ahead.u16()?);
        let bytes = ahead.bytes(len)?;
        *self = ahead;
        Some(bytes)
    }

    /// As many bytes as the u32 in front of them says.
    pub(crate) fn with_u32_len(&mut self) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let len = usize::try_from(ahead.u32()?).ok()?;
        let bytes = ahead.bytes(len)?;
        *self = ahead;
        Some(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
