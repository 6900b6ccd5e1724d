//! The certificate table that an SNP host hands to its guests (GHCB specification, section 4.1.8.1): configfs-tsm's `auxblob`, or beside a report
//! from `/dev/sev-guest`.
//!
//! Whose bytes: the host's. A table that cannot be read is an error; what the certificates are worth, [`crate::verify()`] finds out.

pub use crate::evidence::{MAX_CERT, MAX_CERTS};

/// Largest table that is looked at, in bytes.
pub const MAX_TABLE: usize = 64 * 1024;

/// One entry's length: GUID, offset u32, length u32.
const ENTRY: usize = 24;
/// Most entries that are looked at.
const MAX_ENTRIES: usize = 16;

// GUIDs in the byte order of their text, as Linux hands them through.
const VCEK: [u8; 16] = 0x63da758d_e664_4564_adc5_f4b93be8accd_u128.to_be_bytes();
const VLEK: [u8; 16] = 0xa8074bc2_a25a_483e_aae6_39c045a0b8a1_u128.to_be_bytes();
const ASK: [u8; 16] = 0x4ab7b379_bbac_4fe4_a02f_05aef327c782_u128.to_be_bytes();
const ARK: [u8; 16] = 0xc0b406a4_a803_4952_9743_3fb6014cd0ae_u128.to_be_bytes();

/// Why a certificate table is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertTableError {
    /// Longer than any table.
    #[error("the host's certificate table has {len} bytes; at most {MAX_TABLE} are read")]
    TooLarge {
        /// Bytes that came.
        len: usize,
    },
    /// The list of entries has no end.
    #[error("the host's certificate table has no terminating entry")]
    Unterminated,
    /// An entry points outside the table, or at more than a certificate.
    #[error("entry {index} of the host's certificate table names bytes that cannot be a certificate")]
    Range {
        /// Entry, from 0.
        index: usize,
    },
    /// One kind of certificate stands twice.
    #[error("entry {index} of the host's certificate table repeats a kind of certificate")]
    Duplicate {
        /// Entry, from 0.
        index: usize,
    },
    /// Not a whole chain.
    #[error("the host's certificate table holds no {what} certificate")]
    Missing {
        /// What is missing.
        what: &'static str,
    },
}

/// Takes the chain out of a table: VCEK or, without one, VLEK; ASK; ARK. Other entries are passed over.
///
/// # Errors
/// [`CertTableError`]; never a panic.
pub fn chain(table: &[u8]) -> Result<Vec<Vec<u8>>, CertTableError> {
    if table.len() > MAX_TABLE {
        return Err(CertTableError::TooLarge { len: table.len() });
    }
    let (mut vcek, mut vlek, mut ask, mut ark) = (None, None, None, None);
    let mut rest = table;
    for index in 0..MAX_ENTRIES {
        let Some((entry, tail)) = rest.split_first_chunk::<ENTRY>() else {
            return Err(CertTableError::Unterminated);
        };
        rest = tail;
        if *entry == [0; ENTRY] {
            let vek = vcek.or(vlek).ok_or(CertTableError::Missing { what: "VCEK or VLEK" })?;
            let ask = ask.ok_or(CertTableError::Missing { what: "ASK" })?;
            let ark = ark.ok_or(CertTableError::Missing { what: "ARK" })?;
            return Ok(vec![vek, ask, ark]);
        }
        let (guid, range) = entry.split_at(16);
        let slot = match guid {
            guid if guid == VCEK => &mut vcek,
            guid if guid == VLEK => &mut vlek,
            guid if guid == ASK => &mut ask,
            guid if guid == ARK => &mut ark,
            _ => continue,
        };
        let certificate = slice(table, range).ok_or(CertTableError::Range { index })?;
        if slot.replace(certificate.to_vec()).is_some() {
            return Err(CertTableError::Duplicate { index });
        }
    }
    Err(CertTableError::Unterminated)
}

/// The bytes that an entry's offset and length, both u32 little endian, name.
fn slice<'a>(table: &'a [u8], range: &[u8]) -> Option<&'a [u8]> {
    let (offset, len) = range.split_first_chunk::<4>()?;
    let offset = usize::try_from(u32::from_le_bytes(*offset)).ok()?;
    let len = usize::try_from(u32::from_le_bytes(*len.first_chunk::<4>()?)).ok()?;
    table
        .get(offset..offset.checked_add(len)?)
        .filter(|bytes| !bytes.is_empty() && bytes.len() <= MAX_CERT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[([u8; 16], &[u8])]) -> Vec<u8> {
        let mut head = Vec::new();
        let mut body = Vec::new();
        for (guid, certificate) in entries {
            let offset = (entries.len() + 1) * ENTRY + body.len();
            head.extend_from_slice(guid);
            head.extend_from_slice(&u32::try_from(offset).unwrap().to_le_bytes());
            head.extend_from_slice(&u32::try_from(certificate.len()).unwrap().to_le_bytes());
            body.extend_from_slice(certificate);
        }
        [head, vec![0; ENTRY], body].concat()
    }

    fn full() -> Vec<u8> {
        table(&[
            (ARK, b"ark"),
            ([9; 16], b"other"),
            (VLEK, b"vlek"),
            (ASK, b"ask"),
            (VCEK, b"vcek"),
        ])
    }

    #[test]
    fn a_chain_comes_out_in_order() {
        assert_eq!(
            chain(&full()).unwrap(),
            [b"vcek".to_vec(), b"ask".to_vec(), b"ark".to_vec()]
        );
        let vlek = table(&[(ARK, b"ark"), (VLEK, b"vlek"), (ASK, b"ask")]);
        assert_eq!(chain(&vlek).unwrap()[0], b"vlek");
    }

    #[test]
    fn bad_tables_are_refused() {
        assert_eq!(chain(&[]), Err(CertTableError::Unterminated));
        assert_eq!(
            chain(&[0; ENTRY]),
            Err(CertTableError::Missing { what: "VCEK or VLEK" })
        );
        assert_eq!(
            chain(&table(&[(VCEK, b"v")])),
            Err(CertTableError::Missing { what: "ASK" })
        );
        assert_eq!(
            chain(&vec![1; MAX_TABLE + 1]),
            Err(CertTableError::TooLarge { len: MAX_TABLE + 1 })
        );
        assert_eq!(chain(&vec![1; MAX_TABLE]), Err(CertTableError::Unterminated));
        let twice = table(&[(VCEK, b"v"), (VCEK, b"w")]);
        assert_eq!(chain(&twice), Err(CertTableError::Duplicate { index: 1 }));
        let empty = table(&[(VCEK, b"")]);
        assert_eq!(chain(&empty), Err(CertTableError::Range { index: 0 }));
        let mut far = table(&[(VCEK, b"v")]);
        far[16..20].fill(0xff);
        assert_eq!(chain(&far), Err(CertTableError::Range { index: 0 }));
        let mut long = table(&[(VCEK, b"v")]);
        long[20..24].fill(0xff);
        assert_eq!(chain(&long), Err(CertTableError::Range { index: 0 }));
    }

    #[test]
    fn truncated_or_flipped_never_panics() {
        let whole = full();
        for len in 0..whole.len() {
            assert!(chain(&whole[..len]).is_err(), "{len} bytes were taken");
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                let _ = chain(&flipped);
            }
        }
    }
}
