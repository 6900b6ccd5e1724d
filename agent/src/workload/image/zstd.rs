//! Zstandard as image layers use it: any number of frames, skippable ones in between (zstd:chunked ends in some).

use std::io::{self, BufRead, Read};

use ruzstd::decoding::{
    BlockDecodingStrategy, FrameDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};

/// Largest window that a frame may ask for: `zstd -19` takes 8 MiB.
const MAX_WINDOW: u64 = 64 << 20;

/// The plaintext of a Zstandard stream.
pub(crate) struct ZstdReader<R> {
    source: R,
    decoder: FrameDecoder,
    /// A frame has been begun.
    begun: bool,
}

impl<R: BufRead> ZstdReader<R> {
    /// Reads `source` to its end.
    pub(crate) fn new(source: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_WINDOW);
        Self {
            source,
            decoder,
            begun: false,
        }
    }

    /// The source, wherever it stands.
    pub(crate) fn into_inner(self) -> R {
        self.source
    }

    /// Begins the next frame; `false` at the end of the source.
    fn next_frame(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => {
                    self.begun = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let skipped = io::copy(&mut (&mut self.source).take(length.into()), &mut io::sink())?;
                    if skipped != u64::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
        if self.begun {
            Ok(false)
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

impl<R: BufRead> Read for ZstdReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.begun && self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            }
            if self.begun && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            } else if !self.next_frame()? {
                return Ok(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn skippable(data: &[u8]) -> Vec<u8> {
        let mut frame = 0x184d_2a50_u32.to_le_bytes().to_vec();
        frame.extend_from_slice(&u32::try_from(data.len()).unwrap().to_le_bytes());
        frame.extend_from_slice(data);
        frame
    }

    fn decode(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        ZstdReader::new(bytes).read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn frames_are_joined_and_skippable_ones_passed_over() {
        let first: Vec<u8> = (0..300_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let mut stream = skippable(b"start");
        stream.extend(compress_to_vec(&first[..], CompressionLevel::Fastest));
        stream.extend(skippable(b""));
        stream.extend(compress_to_vec(&b"second"[..], CompressionLevel::Fastest));
        stream.extend(skippable(b"footer"));
        assert_eq!(decode(&stream).unwrap(), [&first[..], b"second"].concat());
    }

    #[test]
    fn garbage_and_truncation_are_errors() {
        assert!(decode(b"").is_err());
        assert!(decode(b"garbage").is_err());
        let frame = compress_to_vec(&b"some text, some text, some text"[..], CompressionLevel::Fastest);
        assert!(decode(&[&frame[..], b"garbage"].concat()).is_err());
        for length in 0..frame.len() - 4 {
            assert!(decode(&frame[..length]).is_err(), "cut after {length}");
        }
        assert!(decode(&skippable(b"0123")[..10]).is_err());
    }
}
