//! Netlink messages as bytes, without I/O: a header of 16 bytes, a fixed part of the message's type, attributes.
//!
//! Numbers are in the host's byte order but where a name says otherwise. What is read is bounded by the slice it is in: a
//! length that does not fit ends the reading.

/// Bytes of a message's header.
pub(super) const HEADER: usize = 16;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// The bits of an attribute's type that are its type.
const TYPE: u16 = 0x3fff;

/// Attributes that are being written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        // Ours are a few hundred bytes at most.
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// With the terminating zero.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    pub(crate) fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// In network byte order, as nftables has it.
    pub(crate) fn be32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    #[cfg(test)]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn nested(self, kind: u16, inner: Self) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }
}

/// One message as it is sent.
pub(super) fn message(kind: u16, flags: u16, sequence: u32, fixed: &[u8], attributes: &Attributes) -> Vec<u8> {
    let length = HEADER + fixed.len() + attributes.0.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(fixed);
    bytes.extend(&attributes.0);
    bytes
}

/// One message as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) payload: &'a [u8],
}

/// The messages in a datagram.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let message = Message {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            sequence: u32_at(bytes, 8)?,
            payload: bytes.get(HEADER..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes after a fixed part of `fixed` bytes, as type and value.
fn attributes(payload: &[u8], fixed: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut bytes = payload.get(fixed..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let attribute = (u16_at(bytes, 2)? & TYPE, bytes.get(4..length)?);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(attribute)
    })
}

/// The first attribute of a type.
pub(crate) fn attribute(payload: &[u8], fixed: usize, kind: u16) -> Option<&[u8]> {
    attributes(payload, fixed).find_map(|(k, value)| (k == kind).then_some(value))
}

/// Text up to its terminating zero; nothing if it is not UTF-8.
pub(crate) fn text(value: &[u8]) -> Option<&str> {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    std::str::from_utf8(value.get(..end)?).ok()
}

pub(crate) fn u8_at(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let attributes = Attributes::new()
            .text(1, "eth0")
            .nested(2, Attributes::new().u32(3, 7).be32(4, 7));
        message(16, 5, 9, &[1, 2, 3, 4], &attributes)
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let bytes = sample();
        assert_eq!(bytes.len() % 4, 0);
        let all: Vec<_> = messages(&bytes).collect();
        assert_eq!(all.len(), 1);
        let Message {
            kind,
            flags,
            sequence,
            payload,
        } = all[0];
        assert_eq!((kind, flags, sequence), (16, 5, 9));
        assert_eq!(attribute(payload, 4, 1).and_then(text), Some("eth0"));
        let inner = attribute(payload, 4, 2).unwrap();
        assert_eq!(attribute(inner, 0, 3).unwrap(), 7u32.to_ne_bytes());
        assert_eq!(attribute(inner, 0, 4).unwrap(), 7u32.to_be_bytes());
        assert_eq!(attribute(payload, 4, 5), None);
    }

    #[test]
    fn two_messages_in_one_datagram() {
        let bytes = [sample(), sample()].concat();
        assert_eq!(messages(&bytes).count(), 2);
    }

    #[test]
    fn what_is_cut_short_ends_the_reading() {
        let bytes = sample();
        for end in 0..bytes.len() {
            assert_eq!(messages(&bytes[..end]).count(), 0, "{end}");
            assert!(attributes(&bytes[..end], HEADER + 4).count() <= 2);
        }
    }

    #[test]
    fn nonsense_never_panics_and_always_ends() {
        let bytes = sample();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                for message in messages(&bad) {
                    for (_, value) in attributes(message.payload, 4) {
                        assert!(attributes(value, 0).count() <= bad.len());
                    }
                }
            }
        }
        // A length of zero would be read forever.
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert_eq!(attributes(&[0; 64], 0).count(), 0);
    }
}
