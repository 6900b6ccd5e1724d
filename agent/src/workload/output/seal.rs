//! One file sealed on its way out: read once, in constant memory, both of its digests taken as it goes by.

use std::{
    fs::OpenOptions,
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
};

use cella_oci::{Digest, Verifier};
use cella_seal::{DataKey, stream::SealWriter};

use super::{OutputError, collect::OutputFile, pipe::Inlet};

/// What was sealed.
pub(super) struct Sealed {
    /// Drawn for this file and this try.
    pub(super) key: DataKey,
    /// Of the plaintext.
    pub(super) plain: Digest,
    /// Of what was sent.
    pub(super) cipher: Digest,
}

/// Seals `file` for `place` into `out`. Blocks; an error with [`io::ErrorKind::BrokenPipe`] inside where the sender has given up.
pub(super) fn seal(file: &OutputFile, place: &[u8], out: Inlet) -> Result<Sealed, OutputError> {
    let read = |source: io::Error| OutputError::Read { source };
    let mut from = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(&file.on_disk)
        .map_err(read)?;
    let key = DataKey::random()?;
    let out = Hashing {
        out,
        seen: Verifier::new(),
    };
    let mut writer = SealWriter::new(&key, place, out).map_err(OutputError::Seal)?;
    let mut plain = Verifier::new();
    let mut buffer = vec![0; PIECE];
    loop {
        let count = from.read(&mut buffer).map_err(read)?;
        match buffer.get(..count) {
            Some([]) | None => break,
            Some(bytes) => {
                plain.update(bytes);
                writer.write_all(bytes).map_err(read)?;
            }
        }
    }
    if plain.length() != file.bytes {
        let path = file.path.to_string();
        return Err(OutputError::Changed { path });
    }
    let (out, _) = writer.finish().map_err(OutputError::Seal)?;
    Ok(Sealed {
        key,
        plain: plain.digest(),
        cipher: out.seen.digest(),
    })
}

/// A writer that sees what goes through it.
struct Hashing {
    out: Inlet,
    seen: Verifier,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.seen.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

const PIECE: usize = 1 << 20;
