//! Sealing a file with several threads and constant memory.
//!
//! Each thread takes the next segment, reads it, seals it and writes it where it belongs: one segment a thread is in
//! memory. Both files are hashed on the way, in file order, since the registry wants the one digest and ModelPack's
//! `diffIds` the other; the hashes are two stages, so that they run beside each other.
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, Ordering};

use ring::digest::{Context, SHA256};
use zeroize::Zeroizing;

use super::turnstile::Turnstile;
use super::{HEADER, Layout, SealError, Sealer, Segment, TAG};
use crate::secret::DataKey;

/// What sealing a file gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedFile {
    /// Both lengths.
    pub layout: Layout,
    /// SHA-256 of the plaintext: `diffIds` of the layer, `digest` of the private options.
    pub plaintext_sha256: [u8; 32],
    /// SHA-256 of the sealed file: digest of the layer.
    pub ciphertext_sha256: [u8; 32],
}

/// Seals all of `from` into `out`, with at most `threads` threads, each with one segment in memory. `out` should be
/// empty; it is written from offset 0 by position, and not synced.
///
/// `main_key` must be used for this one file only.
///
/// # Errors
/// [`SealError::Read`], [`SealError::Write`], [`SealError::Changed`] when `from` is not as long as at first; whatever
/// `out` holds then is of no use. Cost: AES at several GB/s a core, two SHA-256 at about 1.5 GB/s in sequence each.
pub fn seal_file(
    main_key: &DataKey,
    associated_data: &[u8],
    from: &File,
    out: &File,
    threads: NonZeroUsize,
) -> Result<SealedFile, SealError> {
    let length = from
        .metadata()
        .map_err(|source| SealError::Read { index: 0, source })?
        .len();
    let sealer = Sealer::new(main_key, associated_data, Layout::from_plaintext_len(length)?)?;
    let job = Job {
        from,
        out,
        next: AtomicU32::new(0),
        plaintext: Turnstile::new(Context::new(&SHA256)),
        ciphertext: Turnstile::new(Context::new(&SHA256)),
        sealer,
    };
    job.run(threads)?;
    if from
        .read_at(&mut [0], length)
        .map_err(|source| SealError::Read { index: 0, source })?
        != 0
    {
        return Err(SealError::Changed { expected: length });
    }
    Ok(SealedFile {
        layout: *job.sealer.layout(),
        plaintext_sha256: finish(job.plaintext),
        ciphertext_sha256: finish(job.ciphertext),
    })
}

struct Job<'f> {
    from: &'f File,
    out: &'f File,
    sealer: Sealer,
    /// The next segment that nobody has taken.
    next: AtomicU32,
    plaintext: Turnstile<Context>,
    ciphertext: Turnstile<Context>,
}

impl Job<'_> {
    fn run(&self, threads: NonZeroUsize) -> Result<(), SealError> {
        let segments = usize::try_from(self.sealer.layout().segments()).unwrap_or(usize::MAX);
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads.get().min(segments))
                .map(|_| scope.spawn(|| self.work()))
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or(Err(SealError::GivenUp)))
                .collect()
        });
        // The thread that met the error says which; the others only that they were turned away.
        let failures = outcomes.into_iter().filter_map(Result::err);
        let cause = failures.reduce(|first, other| {
            if matches!(first, SealError::GivenUp) {
                other
            } else {
                first
            }
        });
        cause.map_or(Ok(()), Err)
    }

    fn work(&self) -> Result<(), SealError> {
        // Also when this thread panics: the others must not wait for its segment.
        let stop = StopOnDrop(self);
        let mut buffer = Zeroizing::new(Vec::with_capacity(
            HEADER + self.sealer.layout().largest_plaintext() + TAG,
        ));
        while let Some(segment) = self.sealer.layout().segment(self.next.fetch_add(1, Ordering::Relaxed)) {
            self.seal(&segment, &mut buffer)?;
        }
        std::mem::forget(stop);
        Ok(())
    }

    fn seal(&self, segment: &Segment, buffer: &mut Vec<u8>) -> Result<(), SealError> {
        let index = segment.index;
        buffer.clear();
        if index == 0 {
            buffer.extend_from_slice(&self.sealer.header().to_bytes());
        }
        let body_at = buffer.len();
        buffer.resize(body_at + segment.plaintext_len(), 0);
        let (_, body) = buffer.split_at_mut(body_at);
        self.from
            .read_exact_at(body, segment.plaintext.start)
            .map_err(|source| match source.kind() {
                io::ErrorKind::UnexpectedEof => SealError::Changed {
                    expected: self.sealer.layout().plaintext_len(),
                },
                _ => SealError::Read { index, source },
            })?;
        self.plaintext
            .pass(index, |hash| hash.update(body))
            .ok_or(SealError::GivenUp)?;
        let tag = self.sealer.seal_in_place(index, body)?;
        buffer.extend_from_slice(&tag);
        self.ciphertext
            .pass(index, |hash| hash.update(buffer))
            .ok_or(SealError::GivenUp)?;
        self.out
            .write_all_at(buffer, segment.ciphertext.start)
            .map_err(|source| SealError::Write { index, source })
    }
}

/// Turns the other threads away when one leaves early.
struct StopOnDrop<'j, 'f>(&'j Job<'f>);

impl Drop for StopOnDrop<'_, '_> {
    fn drop(&mut self) {
        self.0.plaintext.stop();
        self.0.ciphertext.stop();
    }
}

fn finish(hash: Turnstile<Context>) -> [u8; 32] {
    let mut digest = [0; 32];
    digest
        .iter_mut()
        .zip(hash.into_inner().finish().as_ref())
        .for_each(|(to, from)| *to = *from);
    digest
}
