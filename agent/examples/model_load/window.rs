//! Addresses in which a group of segments lies right in front of its ciphertext, so that the cipher reads one and writes the other
//! without a copy between.
//!
//! ```text
//!  | model file, from the group's first 2 MiB page on | a page of its own, and a gap | sealed file, the group's segments |
//!                  ^ plaintext of the group ············ ends here ^
//! ```
//! A group's plaintext begins and ends within pages that its neighbours have a part of. In front, only addresses from its own first byte
//! on are used. Behind, the page that the next group has a part of is replaced by a page of the window's own, whose bytes are copied to
//! their place at the end. So no address of a window shows memory that somebody else writes to.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::slice;

const HUGE_PAGE: u64 = 2 << 20;
const PAGE: u64 = 4096;

/// The addresses of one group. Unmapped when dropped.
pub(crate) struct Window {
    start: NonNull<u8>,
    reserved: usize,
    base: NonNull<u8>,
    /// Bytes of the model file that the group has.
    plaintext: Range<u64>,
    /// First byte of the model file that the window shows.
    shown: u64,
    /// First byte of the model file that lies in the window's own page.
    own_page: u64,
    /// Bytes of the sealed file that the window shows.
    ciphertext: Range<u64>,
    source: usize,
}

impl Window {
    /// The window of the bytes `plaintext` of `model`, which nobody else writes to while it is there, and of `ciphertext` of `sealed`,
    /// which starts on a page and nobody writes to at all.
    pub(crate) fn new(model: &File, plaintext: Range<u64>, sealed: &File, ciphertext: Range<u64>) -> io::Result<Self> {
        let shown = plaintext.start / HUGE_PAGE * HUGE_PAGE;
        let own_page = plaintext.end / PAGE * PAGE;
        let model_len = size(own_page - shown)?;
        let source_len = size((ciphertext.end - ciphertext.start).next_multiple_of(PAGE))?;
        // As far behind a 2 MiB page's start as in its file, so that the kernel can show 2 MiB pages of it as such.
        let source = (model_len + size(PAGE)?).next_multiple_of(size(HUGE_PAGE)?) + size(ciphertext.start % HUGE_PAGE)?;
        let reserved = source + source_len + size(HUGE_PAGE)?;
        let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let all = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new reservation at an address of the kernel's choice touches no existing memory.
        let start = check(unsafe {
            libc::mmap(
                ptr::null_mut(),
                reserved,
                libc::PROT_NONE,
                anonymous | libc::MAP_NORESERVE,
                -1,
                0,
            )
        })?;
        let lead = start.addr().get().next_multiple_of(size(HUGE_PAGE)?) - start.addr().get();
        // SAFETY: `lead` is less than a huge page, by which the reservation is longer than what is needed.
        let base = unsafe { start.add(lead) };
        let window = Self {
            start,
            reserved,
            base,
            plaintext,
            shown,
            own_page,
            ciphertext: ciphertext.clone(),
            source,
        };
        let fixed = |at: usize, len: usize, protection, flags, file: i32, offset: u64| {
            if len == 0 {
                return Ok(());
            }
            let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
            // SAFETY: `at..at + len` lies inside the reservation made above, which nobody else knows; MAP_FIXED replaces that part of it.
            check(unsafe {
                libc::mmap(
                    base.add(at).as_ptr().cast(),
                    len,
                    protection,
                    flags | libc::MAP_FIXED,
                    file,
                    offset,
                )
            })
            .map(drop)
        };
        fixed(0, model_len, all, libc::MAP_SHARED, model.as_raw_fd(), shown)?;
        fixed(model_len, source - model_len, all, anonymous, -1, 0)?;
        // Writable because the cipher takes one buffer; it is never written, and would be copied if it were.
        fixed(
            source,
            source_len,
            all,
            libc::MAP_PRIVATE,
            sealed.as_raw_fd(),
            ciphertext.start,
        )?;
        // SAFETY: advice about our own mapping: reading ahead changes no content.
        unsafe { libc::madvise(base.add(source).as_ptr().cast(), source_len, libc::MADV_POPULATE_READ) };
        Ok(window)
    }

    /// From the byte `plaintext` of the model file to the byte `end` of the sealed one, and where in it the byte `ciphertext` of the
    /// sealed file is.
    pub(crate) fn between(&mut self, plaintext: u64, ciphertext: u64, end: u64) -> Option<(&mut [u8], usize)> {
        if plaintext < self.plaintext.start
            || plaintext > self.plaintext.end
            || ciphertext < self.ciphertext.start
            || ciphertext > end
            || end > self.ciphertext.end
        {
            return None;
        }
        let from = usize::try_from(plaintext - self.shown).ok()?;
        let to = self.source + usize::try_from(end - self.ciphertext.start).ok()?;
        // SAFETY: `from..to` lies in the three mappings, which are consecutive, readable and writable as long as `self` lives. What
        // they show is the group's own, from its first byte on, and `&mut self` makes this the only borrow. The sealed file is
        // written by nobody.
        let slice = unsafe { slice::from_raw_parts_mut(self.base.add(from).as_ptr(), to - from) };
        let at = to - from - usize::try_from(end - ciphertext).ok()?;
        Some((slice, at))
    }

    /// Bytes of the plaintext that were opened.
    pub(crate) fn plaintext(&self, range: &Range<u64>) -> Option<&[u8]> {
        if range.start < self.plaintext.start || range.end > self.plaintext.end || range.start > range.end {
            return None;
        }
        let from = usize::try_from(range.start - self.shown).ok()?;
        let len = usize::try_from(range.end - range.start).ok()?;
        // SAFETY: as in `between`; borrowed shared.
        Some(unsafe { slice::from_raw_parts(self.base.add(from).as_ptr(), len) })
    }

    /// What lies in the window's own page, and where in the group it belongs.
    pub(crate) fn edge(&self) -> Option<(usize, &[u8])> {
        let from = self.own_page.max(self.plaintext.start);
        let bytes = self.plaintext(&(from..self.plaintext.end))?;
        Some((usize::try_from(from - self.plaintext.start).ok()?, bytes))
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: the whole reservation is ours, and nothing borrows from it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.reserved) };
    }
}

/// Private memory in 2 MiB pages, where the kernel has them. Unmapped when dropped.
pub(crate) struct HugeBuffer {
    start: NonNull<u8>,
    reserved: usize,
    lead: usize,
    len: usize,
}

// SAFETY: it owns its mapping alone, and lends it only through `&mut self`.
unsafe impl Send for HugeBuffer {}

impl HugeBuffer {
    /// `len` bytes of zero.
    pub(crate) fn zeroed(len: usize) -> io::Result<Self> {
        let huge = size(HUGE_PAGE)?;
        let reserved = len.next_multiple_of(huge) + huge;
        let (all, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        );
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let start = check(unsafe { libc::mmap(ptr::null_mut(), reserved, all, flags, -1, 0) })?;
        // SAFETY: advice about our own mapping, which changes no content.
        unsafe { libc::madvise(start.as_ptr().cast(), reserved, libc::MADV_HUGEPAGE) };
        let lead = start.addr().get().next_multiple_of(huge) - start.addr().get();
        Ok(Self {
            start,
            reserved,
            lead,
            len,
        })
    }

    /// All of it.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `lead + len` is within the mapping, which is readable and writable as long as `self` lives; `&mut self` makes this the
        // only borrow.
        unsafe { slice::from_raw_parts_mut(self.start.add(self.lead).as_ptr(), self.len) }
    }
}

impl Drop for HugeBuffer {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing borrows from it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.reserved) };
    }
}

fn size(bytes: u64) -> io::Result<usize> {
    usize::try_from(bytes).map_err(io::Error::other)
}

fn check(address: *mut libc::c_void) -> io::Result<NonNull<u8>> {
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}
