//! The digest of an EFI program (Windows Authenticode portable executable signature format, "Calculating the PE image hash").

use ring::digest::{Context, SHA384};

use crate::reader::Reader;

/// Most sections that are looked at: the format's limit.
const MAX_SECTIONS: usize = 96;

/// SHA-384 of an image without its checksum and without a signature. Pure.
pub(super) fn sha384(image: &[u8]) -> Result<[u8; 48], &'static str> {
    digest(image).ok_or("is no EFI program that can be measured")
}

fn digest(image: &[u8]) -> Option<[u8; 48]> {
    // Signers pad to eight bytes, firmware does not: only where there is nothing to pad is there one digest.
    if !image.len().is_multiple_of(8) {
        return None;
    }
    let header = usize::try_from(Reader(image.get(0x3c..)?).u32()?).ok()?;
    let mut at = Reader(image.get(header..)?);
    if at.array() != Some(*b"PE\0\0") {
        return None;
    }
    let _machine = at.u16()?;
    let count = usize::from(at.u16()?);
    let _times_and_symbols: [u8; 12] = at.array()?;
    let optional_len = usize::from(at.u16()?);
    let optional = header.checked_add(24)?;
    let mut fields = Reader(image.get(optional..)?);
    // PE32+ only: a kernel for 64 bits.
    if fields.u16()? != 0x20b || count > MAX_SECTIONS {
        return None;
    }
    let headers_len = usize::try_from(Reader(image.get(optional + 60..)?).u32()?).ok()?;
    let directories = Reader(image.get(optional + 108..)?).u32()?;
    let (checksum, security) = (optional + 64, optional + 112 + 4 * 8);
    if directories < 5 || Reader(image.get(security..)?).u64()? != 0 {
        // A signature stands behind what is measured; kernels here have none.
        return None;
    }
    let mut context = Context::new(&SHA384);
    for part in [0..checksum, checksum + 4..security, security + 8..headers_len] {
        context.update(image.get(part)?);
    }
    let mut sections = Vec::new();
    let mut table = Reader(image.get(optional.checked_add(optional_len)?..)?);
    for _ in 0..count {
        let mut section = Reader(table.bytes(40)?);
        let _name_and_memory: [u8; 16] = section.array()?;
        let (len, start) = (
            usize::try_from(section.u32()?).ok()?,
            usize::try_from(section.u32()?).ok()?,
        );
        if len > 0 {
            sections.push((start, len));
        }
    }
    sections.sort_unstable();
    let mut end = headers_len;
    for (start, len) in sections {
        context.update(image.get(start..start.checked_add(len)?)?);
        end = end.checked_add(len)?;
    }
    // What no section holds is measured too.
    context.update(image.get(end..).unwrap_or_default());
    let mut out = [0; 48];
    out.copy_from_slice(context.finish().as_ref());
    Some(out)
}
