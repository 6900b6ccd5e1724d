//! The memory that one model file lives in: a shared mapping of a file on a huge-page tmpfs.
//!
//! ```text
//!  Region::create ──populate every part──▶ pieces() ──all pieces dropped──▶ freeze() ──▶ Frozen
//!   writable, no content                    writable                                     read-only, locked
//! ```
//!
//! Content is written through [`Piece`]s only. Pieces do not overlap and each is owned by one task at a time, so segments
//! are filled and opened in place by many threads without a copy. A piece that is given up for a [`Settled`] is written no more, and
//! everybody may read it. Every page is there before the first piece is handed
//! out: a lack of memory is an error of [`Region::populate`], never a signal while writing. A region that is dropped
//! before or after it was frozen is zeroed first: no plaintext stays behind in pages that go back to the kernel.
//!
//! From its first moment the mapping is left out of core dumps and is not inherited by forks.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io,
    ops::{Deref, DerefMut, Range},
    os::fd::AsRawFd,
    ptr::{self, NonNull},
    slice,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use libc::c_void;

/// Size of a huge page; mappings start and end on a multiple of it.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// What [`Region::populate`] takes in at a time.
const PART: usize = 64 << 20;

/// Smallest page of the processor.
const PAGE: usize = 4096;

/// Writable memory of a file of known length.
#[derive(Debug)]
pub(crate) struct Region {
    map: Arc<Map>,
    /// One flag for each part of [`PART`] bytes: its pages are there.
    populated: Vec<AtomicBool>,
}

impl Region {
    /// Maps `file`, which must be empty, private to the caller and on a tmpfs, with a length of `len` bytes.
    ///
    /// The file gets exactly that length. The address range starts on a huge page and is rounded up to whole ones, so
    /// that the last huge page is locked as a whole. Nothing is allocated yet.
    pub(crate) fn create(file: &File, len: usize) -> io::Result<Self> {
        let bytes = u64::try_from(len).map_err(io::Error::other)?;
        file.set_len(bytes)?;
        let map = Map::new(file, len)?;
        let populated = (0..len.div_ceil(PART)).map(|_| AtomicBool::new(false)).collect();
        Ok(Self {
            map: Arc::new(map),
            populated,
        })
    }

    /// Length of the file in bytes.
    pub(crate) fn len(&self) -> u64 {
        u64::try_from(self.map.len).unwrap_or(u64::MAX)
    }

    /// Number of parts for [`Region::populate`].
    pub(crate) fn parts(&self) -> usize {
        self.populated.len()
    }

    /// Allocates and maps the pages of one part. Blocks; different parts may be populated by different threads.
    pub(crate) fn populate(&self, part: usize) -> io::Result<()> {
        let Some(flag) = self.populated.get(part) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let start = part * PART;
        let end = (start + PART).min(self.map.len.next_multiple_of(PAGE));
        self.map.advise(start..end, libc::MADV_POPULATE_WRITE)?;
        flag.store(true, Ordering::Release);
        Ok(())
    }

    /// Cuts the memory into consecutive pieces of the given lengths, which must add up to the whole.
    ///
    /// Refused while pieces of an earlier call live, and before every part is populated.
    pub(crate) fn pieces(&mut self, lengths: impl IntoIterator<Item = usize>) -> Result<Vec<Piece>, PieceError> {
        if !self.populated.iter().all(|flag| flag.load(Ordering::Acquire)) {
            return Err(PieceError::NotPopulated);
        }
        let Some(map) = Arc::get_mut(&mut self.map) else {
            return Err(PieceError::InUse);
        };
        map.dirty = true;
        let total = map.len;
        let mut pieces = Vec::new();
        let mut start = 0usize;
        for len in lengths {
            let end = start
                .checked_add(len)
                .filter(|end| *end <= total)
                .ok_or(PieceError::Lengths)?;
            pieces.push(Piece {
                map: Arc::clone(&self.map),
                range: start..end,
            });
            start = end;
        }
        if start != total {
            return Err(PieceError::Lengths);
        }
        Ok(pieces)
    }

    /// Makes the memory read-only and locks it. Blocks. Refused while a piece lives.
    ///
    /// The agent has CAP_IPC_LOCK, so RLIMIT_MEMLOCK does not apply to it.
    pub(crate) fn freeze(self) -> Result<Frozen, FreezeError> {
        let mut map = Arc::try_unwrap(self.map).map_err(|_| FreezeError::InUse)?;
        map.protect(libc::PROT_READ).map_err(FreezeError::Protect)?;
        map.lock().map_err(FreezeError::Lock)?;
        Ok(Frozen { map })
    }
}

/// One piece of a [`Region`]: exclusive, writable bytes.
#[derive(Debug)]
pub(crate) struct Piece {
    map: Arc<Map>,
    range: Range<usize>,
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the range lies within the mapping's `len` bytes (checked in `pieces`), which stay mapped, readable and
        // backed by pages as long as `self.map` lives. No other piece covers them, and this one is borrowed shared.
        unsafe { slice::from_raw_parts(self.map.base.as_ptr().add(self.range.start), self.range.len()) }
    }
}

impl DerefMut for Piece {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; in addition the mapping is writable while pieces exist (`freeze` needs the only `Arc`),
        // pieces of one call do not overlap, a second call is refused while one lives, and `&mut self` makes this the
        // only borrow. Nobody else writes to the file: it lies in a folder that only the agent reaches.
        unsafe { slice::from_raw_parts_mut(self.map.base.as_ptr().add(self.range.start), self.range.len()) }
    }
}

impl Piece {
    /// Gives up writing: the bytes are final.
    pub(crate) fn settle(self) -> Settled {
        Settled(self)
    }
}

/// What was a [`Piece`]: nobody writes to it any more.
#[derive(Debug)]
pub(crate) struct Settled(Piece);

/// The bytes `range` of a region, which must lie within `settled`: consecutive pieces of it, in order.
pub(crate) fn settled_bytes<'s>(
    settled: impl IntoIterator<Item = &'s Settled>,
    range: Range<usize>,
) -> Option<&'s [u8]> {
    let mut settled = settled.into_iter().map(|Settled(piece)| piece);
    let first = settled.next().filter(|first| first.range.start <= range.start)?;
    let mut end = first.range.end;
    for next in settled {
        if !Arc::ptr_eq(&next.map, &first.map) || next.range.start != end {
            return None;
        }
        end = next.range.end;
    }
    if range.start > range.end || range.end > end {
        return None;
    }
    // SAFETY: the range lies within the mapping's `len` bytes, as each of the pieces does (checked in `pieces`), and these cover it
    // without a gap. All of them are borrowed for `'s`, so the mapping stays, and the only writable access there ever was to these
    // bytes, the pieces themselves, was given up: pieces of one call do not overlap, and a second call is refused while these live.
    Some(unsafe { slice::from_raw_parts(first.map.base.as_ptr().add(range.start), range.len()) })
}

/// Read-only, locked memory of one complete file.
#[derive(Debug)]
pub(crate) struct Frozen {
    map: Map,
}

impl Frozen {
    /// Addresses of the mapping, as smaps shows them; empty for an empty file.
    pub(crate) fn range(&self) -> Range<u64> {
        // A usize is 64 bits wide on every target of the agent; the fallback only makes a figure wrong.
        let start = u64::try_from(self.map.base.addr().get()).unwrap_or(0);
        start..start + u64::try_from(self.map.span).unwrap_or(0)
    }

    /// Length of the file in bytes.
    pub(crate) fn len(&self) -> usize {
        self.map.len
    }

    /// The content.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes are mapped and populated as long as `self` lives, and nothing writes to them any more.
        unsafe { slice::from_raw_parts(self.map.base.as_ptr(), self.map.len) }
    }
}

/// The mapping itself. Owns the address range.
#[derive(Debug)]
struct Map {
    base: NonNull<u8>,
    /// Bytes of the file.
    len: usize,
    /// Bytes of address space: `len` rounded up to huge pages, or to pages where the last huge page was not to be had.
    span: usize,
    /// Pieces were handed out: there may be content.
    dirty: bool,
}

// SAFETY: the mapping is process-wide memory without thread affinity. Access to it goes through `Piece`, `Frozen` and
// `Drop`, which follow the usual borrowing rules.
unsafe impl Send for Map {}
// SAFETY: `&Map` gives no access to the bytes; its methods are system calls that do not change content.
unsafe impl Sync for Map {}

impl Map {
    fn new(file: &File, len: usize) -> io::Result<Self> {
        let span = len
            .checked_next_multiple_of(HUGE_PAGE)
            .ok_or(io::ErrorKind::InvalidInput)?;
        if span == 0 {
            return Ok(Self {
                base: NonNull::dangling(),
                len,
                span,
                dirty: false,
            });
        }
        let reserved = span.checked_add(HUGE_PAGE).ok_or(io::ErrorKind::InvalidInput)?;
        let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new anonymous reservation at an address of the kernel's choice touches no existing memory.
        let start = check_map(unsafe { libc::mmap(ptr::null_mut(), reserved, libc::PROT_NONE, private, -1, 0) })?;
        let lead = start.addr().get().next_multiple_of(HUGE_PAGE) - start.addr().get();
        // SAFETY: `lead` < HUGE_PAGE, so the result stays inside the reservation.
        let base = unsafe { start.add(lead) };
        // SAFETY: [base, base + span) lies inside the reservation made above, which nobody else knows; MAP_FIXED replaces
        // that part of it and nothing else.
        let mapped = unsafe {
            libc::mmap(
                base.as_ptr().cast(),
                span,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_FIXED,
                file.as_raw_fd(),
                0,
            )
        };
        if let Err(error) = check_map(mapped) {
            // SAFETY: the reservation is ours and unused.
            unsafe { libc::munmap(start.as_ptr().cast(), reserved) };
            return Err(error);
        }
        // SAFETY: both ends are the unused rest of the reservation, before and behind the file's mapping.
        unsafe {
            if lead > 0 {
                libc::munmap(start.as_ptr().cast(), lead);
            }
            libc::munmap(base.add(span).as_ptr().cast(), HUGE_PAGE - lead);
        }
        let map = Self {
            base,
            len,
            span,
            dirty: false,
        };
        map.advise(0..span, libc::MADV_DONTDUMP)?;
        map.advise(0..span, libc::MADV_DONTFORK)?;
        Ok(map)
    }

    /// madvise(2) on a part of the mapping, whose start is page-aligned.
    fn advise(&self, range: Range<usize>, advice: libc::c_int) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        if range.end > self.span || !range.start.is_multiple_of(PAGE) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        loop {
            // SAFETY: the range lies within our mapping. The advices used (populate, don't dump, don't fork) neither
            // unmap it nor change what it holds.
            let result = unsafe { libc::madvise(self.base.add(range.start).as_ptr().cast(), range.len(), advice) };
            match check(result) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn protect(&mut self, protection: libc::c_int) -> io::Result<()> {
        if self.span == 0 {
            return Ok(());
        }
        // SAFETY: the whole of our mapping; `&mut self` shows that no piece borrows it, so nothing writes to memory that
        // becomes read-only.
        check(unsafe { libc::mprotect(self.raw(), self.span, protection) })
    }

    /// Locks every page. Where the last huge page could not be had, what lies behind the file's last page cannot be
    /// locked (nothing is there) and is given back.
    fn lock(&mut self) -> io::Result<()> {
        if self.span == 0 {
            return Ok(());
        }
        // SAFETY: the whole of our mapping; locking changes no content.
        let whole = check(unsafe { libc::mlock(self.raw(), self.span) });
        let pages = self.len.next_multiple_of(PAGE);
        if whole.is_ok() || pages == self.span {
            return whole;
        }
        // SAFETY: the range [pages, span) of our mapping lies behind the file's end, so no piece ever covered it.
        check(unsafe { libc::munmap(self.base.add(pages).as_ptr().cast(), self.span - pages) })?;
        self.span = pages;
        // SAFETY: as above.
        check(unsafe { libc::mlock(self.raw(), self.span) })
    }

    fn raw(&self) -> *mut c_void {
        self.base.as_ptr().cast()
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if self.span == 0 {
            return;
        }
        if self.dirty && self.protect(libc::PROT_READ | libc::PROT_WRITE).is_ok() {
            // SAFETY: `len` bytes are mapped, writable and populated (`pieces` checked that before it set `dirty`), and
            // nothing borrows them: this is the last owner.
            unsafe { ptr::write_bytes(self.base.as_ptr(), 0, self.len) };
        }
        // SAFETY: the mapping is ours, and nothing borrows from it.
        unsafe { libc::munmap(self.raw(), self.span) };
    }
}

/// Why memory was not cut into pieces.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PieceError {
    /// A part has no pages yet.
    #[error("memory is handed out before it is populated")]
    NotPopulated,
    /// Pieces of an earlier call are alive.
    #[error("memory is handed out twice")]
    InUse,
    /// The lengths do not add up to the region.
    #[error("the pieces do not add up to the memory")]
    Lengths,
}

/// Why memory was not made read-only and locked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FreezeError {
    /// A piece is alive.
    #[error("memory is locked while it is being written")]
    InUse,
    /// mprotect(2) failed.
    #[error("making model memory read-only failed")]
    Protect(#[source] io::Error),
    /// mlock(2) failed.
    #[error("locking model memory failed")]
    Lock(#[source] io::Error),
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn check_map(address: *mut c_void) -> io::Result<NonNull<u8>> {
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

#[cfg(test)]
mod tests;
