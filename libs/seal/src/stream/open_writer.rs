//! Opening a sealed file as it arrives, in pieces of any length.
use std::io::Write;

use zeroize::Zeroizing;

use super::{HEADER, Header, Layout, OpenError, Opener, TAG};
use crate::secret::DataKey;

/// Takes a sealed file of known length from front to back and hands each segment's plaintext on once it was authenticated.
/// Keeps one segment in memory.
///
/// That the whole is complete is known only from the `Ok` of [`OpenWriter::finish`].
#[must_use = "a file that was not finished is not known to be whole"]
pub struct OpenWriter<W: Write> {
    main_key: DataKey,
    associated_data: Vec<u8>,
    layout: Layout,
    out: W,
    /// Known once the header is here.
    opener: Option<Opener>,
    /// The next segment.
    index: u32,
    /// The header, or the next segment's body and tag, as far as they are here.
    buffer: Zeroizing<Vec<u8>>,
}

impl<W: Write> OpenWriter<W> {
    /// For a sealed file of the length that `layout` was made from.
    pub fn new(main_key: DataKey, associated_data: Vec<u8>, layout: Layout, out: W) -> Self {
        Self {
            main_key,
            associated_data,
            layout,
            out,
            opener: None,
            index: 0,
            buffer: Zeroizing::new(Vec::with_capacity(layout.largest_plaintext().max(HEADER) + TAG)),
        }
    }

    /// Takes the next bytes of the sealed file.
    ///
    /// # Errors
    /// [`OpenError::NotAuthentic`] with the segment, [`OpenError::Header`], [`OpenError::Trailing`], [`OpenError::Write`].
    /// Nothing may follow an error.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), OpenError> {
        while !bytes.is_empty() {
            let wanted = self.wanted().ok_or(OpenError::Trailing)?;
            let (now, later) = bytes.split_at(bytes.len().min(wanted - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == wanted {
                self.take()?;
            }
        }
        Ok(())
    }

    /// Says whether the file was whole, and gives the writer back.
    ///
    /// # Errors
    /// [`OpenError::Incomplete`] when bytes are missing, [`OpenError::Write`].
    pub fn finish(mut self) -> Result<W, OpenError> {
        let segments = self.layout.segments();
        match &self.opener {
            Some(opener) => opener.finish()?,
            None => return Err(OpenError::Incomplete { opened: 0, segments }),
        }
        let index = segments - 1;
        self.out.flush().map_err(|source| OpenError::Write { index, source })?;
        Ok(self.out)
    }

    /// Bytes that the buffer must have before something can be done with it; `None` behind the last segment.
    fn wanted(&self) -> Option<usize> {
        match &self.opener {
            None => Some(HEADER),
            Some(_) => Some(self.layout.segment(self.index)?.plaintext_len() + TAG),
        }
    }

    fn take(&mut self) -> Result<(), OpenError> {
        let Some(opener) = &self.opener else {
            let mut header = [0; HEADER];
            header.copy_from_slice(&self.buffer);
            let header = Header::parse(&header)?;
            self.opener = Some(Opener::new(
                &self.main_key,
                &header,
                &self.associated_data,
                self.layout,
            )?);
            self.buffer.clear();
            return Ok(());
        };
        let index = self.index;
        let body_len = self.buffer.len() - TAG;
        let (body, tail) = self.buffer.split_at_mut(body_len);
        let mut tag = [0; TAG];
        tag.copy_from_slice(tail);
        opener.open_in_place(index, body, &tag)?;
        self.out
            .write_all(body)
            .map_err(|source| OpenError::Write { index, source })?;
        self.buffer.clear();
        self.index += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SealWriter, SegmentSize};
    use super::*;

    const AD: &[u8] = b"place";

    fn key() -> DataKey {
        DataKey::from_slice(&[7; 32]).unwrap()
    }

    fn sealed(len: usize) -> (Vec<u8>, Vec<u8>) {
        let plain: Vec<u8> = (0..251).cycle().take(len).collect();
        let mut writer = SealWriter::new(&key(), AD, Vec::new()).unwrap();
        writer.write_all(&plain).unwrap();
        (plain, writer.finish().unwrap().0)
    }

    fn open(layout: Layout, sealed: &[u8], piece: usize) -> Result<Vec<u8>, OpenError> {
        let mut writer = OpenWriter::new(key(), AD.to_vec(), layout, Vec::new());
        sealed.chunks(piece).try_for_each(|bytes| writer.push(bytes))?;
        writer.finish()
    }

    fn layout(sealed: &[u8]) -> Layout {
        Layout::of_ciphertext(SegmentSize::MIB1, sealed.len() as u64).unwrap()
    }

    #[test]
    fn pieces_of_any_length_give_the_plaintext() {
        for len in [0, 1, 1_048_520, 1_048_521, 2_500_000] {
            let (plain, sealed) = sealed(len);
            for piece in [1021, 65_536, 1 << 20, 10 << 20] {
                assert!(open(layout(&sealed), &sealed, piece).unwrap() == plain, "{len} {piece}");
            }
        }
    }

    #[test]
    fn errors_name_the_segment() {
        let (_, mut bytes) = sealed(2_500_000);
        let layout = layout(&bytes);
        let cut = open(layout, &bytes[..bytes.len() - 1], 65_536).unwrap_err();
        assert!(matches!(cut, OpenError::Incomplete { opened: 2, segments: 3 }));
        assert!(matches!(
            open(layout, &bytes[..39], 65_536),
            Err(OpenError::Incomplete { opened: 0, segments: 3 })
        ));
        let longer = [bytes.clone(), vec![0]].concat();
        assert!(matches!(open(layout, &longer, 65_536), Err(OpenError::Trailing)));
        bytes[1_500_000] ^= 1;
        assert!(matches!(
            open(layout, &bytes, 65_536),
            Err(OpenError::NotAuthentic { index: 1 })
        ));
        bytes[0] = 24;
        assert!(matches!(open(layout, &bytes, 65_536), Err(OpenError::Header(_))));
    }
}
