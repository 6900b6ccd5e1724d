//! MRTD: the measurement of the firmware image (Intel TDX virtual firmware design guide, section 11; TDX module ABI, TDH.MEM.PAGE.ADD and
//! TDH.MR.EXTEND).

use ring::digest::{Context, SHA384};

use crate::reader::Reader;

/// How the host builds the guest's first memory. Which one is a property of the host's QEMU and kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageOrder {
    /// Each page is added and then extended.
    OnePass,
    /// All pages of a section are added, then all are extended.
    TwoPass,
}

/// Why an image is no TDX virtual firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TdvfError {
    /// No table of GUIDs at the end, or no entry of TDX in it.
    #[error("the image has no TDX metadata")]
    NoMetadata,
    /// The metadata is cut off or contradicts itself.
    #[error("the image's TDX metadata is malformed")]
    Malformed,
    /// More memory than a firmware has.
    #[error("section {index} of the image's TDX metadata is larger than a firmware's")]
    TooLarge {
        /// Which section, from 0.
        index: usize,
    },
}

/// Ends the table of GUIDs, which is read from its end.
const TABLE_FOOTER: [u8; 16] = guid(0x96b5_82de, 0x1fb2, 0x45f7, 0xbaea_a366_c55a_082d);
/// Names the entry that says where the metadata is.
const METADATA_OFFSET: [u8; 16] = guid(0xe47a_6535, 0x984a, 0x4798, 0x865e_4685_a7bf_8ec2);
/// Where the table ends, from the end of the image.
const TABLE_END: usize = 0x20;
const PAGE: usize = 4096;
const CHUNK: usize = 256;
const MAX_SECTIONS: u32 = 64;
/// Most memory of a section: real ones have at most 4 MiB.
const MAX_SECTION: u64 = 64 << 20;
/// Type of the section with the firmware's variables.
const CONFIGURATION: u32 = 1;
/// Attributes of a section: its contents are measured.
const EXTEND: u32 = 1;
/// Its pages are added when the guest runs.
const PAGE_AUG: u32 = 2;

/// A part of the guest's first memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Section<'a> {
    data: &'a [u8],
    address: u64,
    memory: usize,
    kind: u32,
    attributes: u32,
}

/// The configuration volume: the firmware's variables as they are in the image, which the firmware measures into RTMR0. Pure.
///
/// # Errors
/// [`TdvfError`]; never a panic.
pub(super) fn configuration(image: &[u8]) -> Result<&[u8], TdvfError> {
    let sections = sections(image)?;
    let mut volumes = sections.iter().filter(|section| section.kind == CONFIGURATION);
    match (volumes.next(), volumes.next()) {
        (Some(volume), None) => Ok(volume.data),
        _ => Err(TdvfError::Malformed),
    }
}

/// Computes MRTD of a firmware image. Pure.
///
/// # Errors
/// [`TdvfError`]; never a panic.
pub fn mrtd(image: &[u8], order: PageOrder) -> Result<[u8; 48], TdvfError> {
    let mut context = Context::new(&SHA384);
    for section in sections(image)?
        .iter()
        .filter(|section| section.attributes & PAGE_AUG == 0)
    {
        match order {
            PageOrder::OnePass => {
                for page in (0..section.memory).step_by(PAGE) {
                    add(&mut context, section, page)?;
                    extend(&mut context, section, page)?;
                }
            }
            PageOrder::TwoPass => {
                for page in (0..section.memory).step_by(PAGE) {
                    add(&mut context, section, page)?;
                }
                for page in (0..section.memory).step_by(PAGE) {
                    extend(&mut context, section, page)?;
                }
            }
        }
    }
    let mut out = [0; 48];
    out.copy_from_slice(context.finish().as_ref());
    Ok(out)
}

/// What TDH.MEM.PAGE.ADD measures: where the page is.
fn add(context: &mut Context, section: &Section<'_>, page: usize) -> Result<(), TdvfError> {
    context.update(&record(b"MEM.PAGE.ADD", address(section, page)?));
    Ok(())
}

/// What TDH.MR.EXTEND measures of a page, in chunks: where each is, and its contents, zero where the image has none.
fn extend(context: &mut Context, section: &Section<'_>, page: usize) -> Result<(), TdvfError> {
    if section.attributes & EXTEND == 0 {
        return Ok(());
    }
    for start in (page..page + PAGE).step_by(CHUNK) {
        context.update(&record(b"MR.EXTEND", address(section, start)?));
        let mut chunk = [0; CHUNK];
        let data = section.data.get(start..).unwrap_or_default();
        chunk.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
        context.update(&chunk);
    }
    Ok(())
}

fn address(section: &Section<'_>, offset: usize) -> Result<u64, TdvfError> {
    let offset = u64::try_from(offset).map_err(|_| TdvfError::Malformed)?;
    section.address.checked_add(offset).ok_or(TdvfError::Malformed)
}

/// 128 bytes: a name, and an address at 16.
fn record(name: &[u8], address: u64) -> [u8; 128] {
    let mut record = [0; 128];
    record.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
    record
        .iter_mut()
        .skip(16)
        .zip(address.to_le_bytes())
        .for_each(|(to, from)| *to = from);
    record
}

/// Reads the metadata's sections, in their order.
fn sections(image: &[u8]) -> Result<Vec<Section<'_>>, TdvfError> {
    let offset = metadata_offset(image).ok_or(TdvfError::NoMetadata)?;
    let start = image.len().checked_sub(offset).ok_or(TdvfError::Malformed)?;
    let mut at = Reader(image.get(start..).ok_or(TdvfError::Malformed)?);
    let malformed = TdvfError::Malformed;
    if at.array() != Some(*b"TDVF") {
        return Err(malformed);
    }
    let _length_and_version: [u8; 8] = at.array().ok_or(malformed)?;
    let count = at.u32().filter(|count| *count <= MAX_SECTIONS).ok_or(malformed)?;
    let mut sections = Vec::new();
    for _ in 0..count {
        let index = sections.len();
        sections.push(
            section(&mut at, image)
                .ok_or(malformed)?
                .ok_or(TdvfError::TooLarge { index })?,
        );
    }
    Ok(sections)
}

/// Reads one section; `Some(None)`: it is too large.
fn section<'a>(at: &mut Reader<'_>, image: &'a [u8]) -> Option<Option<Section<'a>>> {
    let (offset, raw) = (usize::try_from(at.u32()?).ok()?, usize::try_from(at.u32()?).ok()?);
    let (address, memory) = (at.u64()?, at.u64()?);
    let (kind, attributes) = (at.u32()?, at.u32()?);
    if memory > MAX_SECTION {
        return Some(None);
    }
    let memory = usize::try_from(memory).ok()?;
    let data = image.get(offset..offset.checked_add(raw)?)?;
    let whole = memory.is_multiple_of(PAGE) && raw <= memory;
    whole.then_some(Some(Section {
        data,
        address,
        memory,
        kind,
        attributes,
    }))
}

/// Finds the entry of TDX in the table of GUIDs: the offset of the metadata from the end of the image.
fn metadata_offset(image: &[u8]) -> Option<usize> {
    let table_end = image.len().checked_sub(TABLE_END)?;
    let (mut rest, footer) = split_tail::<16>(image.get(..table_end)?)?;
    if footer != TABLE_FOOTER {
        return None;
    }
    let (before, total) = split_tail::<2>(rest)?;
    // The total counts its own entry, which is length and GUID.
    let entries = usize::from(u16::from_le_bytes(total)).checked_sub(18)?;
    rest = before.get(before.len().checked_sub(entries)?..)?;
    while !rest.is_empty() {
        let (before, name) = split_tail::<16>(rest)?;
        let (before, len) = split_tail::<2>(before)?;
        let len = usize::from(u16::from_le_bytes(len)).checked_sub(18)?;
        let (next, data) = before.split_at_checked(before.len().checked_sub(len)?)?;
        if name == METADATA_OFFSET {
            return usize::try_from(Reader(data).u32()?).ok();
        }
        rest = next;
    }
    None
}

fn split_tail<const N: usize>(bytes: &[u8]) -> Option<(&[u8], [u8; N])> {
    bytes.split_last_chunk::<N>().map(|(rest, tail)| (rest, *tail))
}

/// A GUID as images store it: the first three groups little endian.
const fn guid(a: u32, b: u16, c: u16, d: u64) -> [u8; 16] {
    let ([a0, a1, a2, a3], [b0, b1], [c0, c1]) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    let [d0, d1, d2, d3, d4, d5, d6, d7] = d.to_be_bytes();
    [a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, d2, d3, d4, d5, d6, d7]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image of one page of code and two pages of temporary memory.
    fn image() -> Vec<u8> {
        let mut image = vec![0xcc; 3 * PAGE];
        let metadata = PAGE + 0x100;
        let mut bytes = b"TDVF".to_vec();
        bytes.extend([0; 8]);
        bytes.extend(2u32.to_le_bytes());
        for (offset, raw, address, memory, attributes) in [
            (0u32, 0x1000u32, 0xffff_f000u64, 0x1000u64, 1u32),
            (0, 0, 0x80_0000, 0x2000, 0),
        ] {
            bytes.extend(offset.to_le_bytes());
            bytes.extend(raw.to_le_bytes());
            bytes.extend(address.to_le_bytes());
            bytes.extend(memory.to_le_bytes());
            bytes.extend(0u32.to_le_bytes());
            bytes.extend(attributes.to_le_bytes());
        }
        image[metadata..metadata + bytes.len()].copy_from_slice(&bytes);
        let back = u32::try_from(image.len() - metadata).unwrap();
        let entry = [
            &[1, 2, 3, 4][..],
            &22u16.to_le_bytes(),
            &[9; 16],
            &back.to_le_bytes(),
            &22u16.to_le_bytes(),
            &METADATA_OFFSET,
        ]
        .concat();
        let table = [&entry[..], &62u16.to_le_bytes(), &TABLE_FOOTER].concat();
        let end = image.len() - TABLE_END;
        image[end - table.len()..end].copy_from_slice(&table);
        image
    }

    #[test]
    fn sections_are_found() {
        let image = image();
        let sections = sections(&image).unwrap();
        assert_eq!(sections.len(), 2);
        assert_eq!(
            (sections[0].address, sections[0].memory, sections[0].data.len()),
            (0xffff_f000, PAGE, PAGE)
        );
        assert_eq!((sections[1].memory, sections[1].attributes), (2 * PAGE, 0));
    }

    #[test]
    fn the_order_of_pages_and_each_byte_of_code_count() {
        let mut image = image();
        let (one, two) = (
            mrtd(&image, PageOrder::OnePass).unwrap(),
            mrtd(&image, PageOrder::TwoPass).unwrap(),
        );
        assert_eq!(one, two, "with one page a section the orders are one");
        let mut plain = Context::new(&SHA384);
        plain.update(&record(b"MEM.PAGE.ADD", 0xffff_f000));
        for start in (0..PAGE).step_by(CHUNK) {
            plain.update(&record(b"MR.EXTEND", 0xffff_f000 + u64::try_from(start).unwrap()));
            plain.update(&image[start..start + CHUNK]);
        }
        plain.update(&record(b"MEM.PAGE.ADD", 0x80_0000));
        plain.update(&record(b"MEM.PAGE.ADD", 0x80_1000));
        assert_eq!(plain.finish().as_ref(), one);
        image[0xfff] ^= 1;
        assert_ne!(mrtd(&image, PageOrder::OnePass).unwrap(), one);
    }

    #[test]
    fn truncated_or_flipped_never_panics() {
        let image = image();
        for len in 0..image.len() {
            assert!(mrtd(&image[..len], PageOrder::OnePass).is_err(), "{len}");
        }
        for at in (PAGE + 0x100..PAGE + 0x200).chain(image.len() - 0x80..image.len() - TABLE_END) {
            for bit in 0..8 {
                let mut flipped = image.clone();
                flipped[at] ^= 1 << bit;
                let _ = mrtd(&flipped, PageOrder::TwoPass);
            }
        }
        let mut huge = image.clone();
        huge[PAGE + 0x100 + 16 + 16 + 6] = 1;
        assert_eq!(mrtd(&huge, PageOrder::OnePass), Err(TdvfError::TooLarge { index: 0 }));
        assert_eq!(mrtd(&[], PageOrder::OnePass), Err(TdvfError::NoMetadata));
    }

    #[test]
    fn there_is_one_configuration_volume_or_none_that_counts() {
        let kind = |section: usize| PAGE + 0x100 + 16 + section * 32 + 24;
        let mut image = image();
        assert_eq!(configuration(&image), Err(TdvfError::Malformed));
        image[kind(0)] = 1;
        assert_eq!(configuration(&image).unwrap().len(), PAGE);
        image[kind(1)] = 1;
        assert_eq!(configuration(&image), Err(TdvfError::Malformed));
    }
}
