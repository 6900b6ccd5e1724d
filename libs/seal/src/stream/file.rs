//! Sealing a file with several threads and constant memory.
//!
//! Each thread takes the next segment, reads it, seals it and writes it where it belongs: one segment a thread is in
//! memory. Both files are hashed on the way, in file order: the registry wants the one digest, ModelPack's `diffIds` and
//! policies that pin a model two of the other. The hashes are stages, so that they run beside each other.
use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, Ordering};

use ring::digest::{Context, SHA256};
use zeroize::Zeroizing;

use super::turnstile::Turnstile;
use super::{HEADER, Layout, SealError, Sealer, Segment, TAG};
use crate::secret::DataKey;
use crate::tree::{Blake3Digest, InOrder};

/// What sealing a file gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedFile {
    /// Both lengths.
    pub layout: Layout,
    /// SHA-256 of the plaintext: `diffIds` of the layer, `digest` of the private options.
    pub plaintext_sha256: [u8; 32],
    /// BLAKE3 of the plaintext: what a policy's `provenance = "digest"` is about.
    pub plaintext_blake3: Blake3Digest,
    /// SHA-256 of the sealed file: digest of the layer.
    pub ciphertext_sha256: [u8; 32],
}

/// Seals all of `from` into `out`, as [`Sealing::into_file`] does, unwatched.
///
/// # Errors
/// As there.
pub fn seal_file(
    main_key: &DataKey,
    associated_data: &[u8],
    from: &File,
    out: &File,
    threads: NonZeroUsize,
) -> Result<SealedFile, SealError> {
    let sealing = Sealing {
        main_key,
        associated_data,
        from,
        threads,
        watch: &|_| true,
    };
    sealing.into_file(out)
}

/// A file about to be sealed, with at most `threads` threads, each with one segment in memory.
///
/// Cost: AES at several GB/s a core, two SHA-256 at about 1.5 GB/s in sequence each, BLAKE3 faster than these.
pub struct Sealing<'a> {
    /// Must be used for this one file only.
    pub main_key: &'a DataKey,
    /// The file's place; see [`crate::place`].
    pub associated_data: &'a [u8],
    /// The plaintext: all of the file.
    pub from: &'a File,
    /// How many threads.
    pub threads: NonZeroUsize,
    /// Told after each segment how many bytes of plaintext it had; `false` gives up.
    pub watch: &'a (dyn Fn(u64) -> bool + Sync),
}

impl Sealing<'_> {
    /// Seals into a file, which should be empty; it is written from offset 0 by position, and not synced.
    ///
    /// # Errors
    /// [`SealError::Read`], [`SealError::Write`], [`SealError::Changed`] when `from` is not as long as at first,
    /// [`SealError::GivenUp`] when `watch` said so; whatever `out` holds then is of no use.
    pub fn into_file(&self, out: &File) -> Result<SealedFile, SealError> {
        self.run(Some(out), &mut io::sink())
    }

    /// Seals into a writer, which gets the sealed file from front to back.
    ///
    /// # Errors
    /// As [`Sealing::into_file`].
    pub fn into_writer(&self, out: &mut (dyn Write + Send)) -> Result<SealedFile, SealError> {
        self.run(None, out)
    }

    fn run(&self, at: Option<&File>, in_order: &mut (dyn Write + Send)) -> Result<SealedFile, SealError> {
        let length = self
            .from
            .metadata()
            .map_err(|source| SealError::Read { index: 0, source })?
            .len();
        let sealer = Sealer::new(self.main_key, self.associated_data, Layout::from_plaintext_len(length)?)?;
        let job = Job {
            sealing: self,
            at,
            next: AtomicU32::new(0),
            plaintext: Turnstile::new(Context::new(&SHA256)),
            tree: Turnstile::new(InOrder::default()),
            ciphertext: Turnstile::new((Context::new(&SHA256), in_order)),
            sealer,
        };
        job.run()?;
        if self
            .from
            .read_at(&mut [0], length)
            .map_err(|source| SealError::Read { index: 0, source })?
            != 0
        {
            return Err(SealError::Changed { expected: length });
        }
        Ok(SealedFile {
            layout: *job.sealer.layout(),
            plaintext_sha256: finish(job.plaintext.into_inner()),
            plaintext_blake3: job.tree.into_inner().digest(),
            ciphertext_sha256: finish(job.ciphertext.into_inner().0),
        })
    }
}

struct Job<'f> {
    sealing: &'f Sealing<'f>,
    /// Where segments are written by position.
    at: Option<&'f File>,
    sealer: Sealer,
    /// The next segment that nobody has taken.
    next: AtomicU32,
    plaintext: Turnstile<Context>,
    tree: Turnstile<InOrder>,
    /// The hash, and where segments are written in order.
    ciphertext: Turnstile<(Context, &'f mut (dyn Write + Send))>,
}

impl Job<'_> {
    fn run(&self) -> Result<(), SealError> {
        let segments = usize::try_from(self.sealer.layout().segments()).unwrap_or(usize::MAX);
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.sealing.threads.get().min(segments))
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
            if !(self.sealing.watch)(segment.plaintext.end - segment.plaintext.start) {
                return Err(SealError::GivenUp);
            }
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
        self.sealing
            .from
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
        self.tree
            .pass(index, |hash| hash.update(body))
            .ok_or(SealError::GivenUp)?;
        let tag = self.sealer.seal_in_place(index, body)?;
        buffer.extend_from_slice(&tag);
        let failed = |source| SealError::Write { index, source };
        self.ciphertext
            .pass(index, |(hash, in_order)| {
                hash.update(buffer);
                in_order.write_all(buffer)
            })
            .ok_or(SealError::GivenUp)?
            .map_err(failed)?;
        self.at
            .map_or(Ok(()), |out| out.write_all_at(buffer, segment.ciphertext.start))
            .map_err(failed)
    }
}

/// Turns the other threads away when one leaves early.
struct StopOnDrop<'j, 'f>(&'j Job<'f>);

impl Drop for StopOnDrop<'_, '_> {
    fn drop(&mut self) {
        self.0.plaintext.stop();
        self.0.tree.stop();
        self.0.ciphertext.stop();
    }
}

fn finish(hash: Context) -> [u8; 32] {
    let mut digest = [0; 32];
    digest
        .iter_mut()
        .zip(hash.finish().as_ref())
        .for_each(|(to, from)| *to = *from);
    digest
}
