//! Zeroes what this process has in memory, at its end (threat T15): ciphers leave copies of keys on stacks, and not everything is dropped.
//! What was freed before is zeroed already ([`crate::zeroing`]).
//!
//! ```text
//!  end() ──▶ a thread with a stack of its own ──▶ every other thread parked in a signal handler ──▶ mappings zeroed ──▶ last()
//!    └── no thread to be had, or a second call ───────────────────────────────────────────────────────────────────────────┘
//! ```
//! From the parking on nothing here allocates, locks or returns: the memory under every other thread is gone. A mistake in this is a
//! fault in process 1, upon which the kernel ends the machine as well. Only pages that are there are written, so nothing grows.
//!
//! The kernel takes the stack of a thread that ends as it is, and keeps its vector registers, in which copies are made, where it saved
//! them; [`own_stack`] is for the moment before.
#![allow(unsafe_code)]

use std::{
    arch::{asm, is_x86_feature_detected},
    fs::{self, File},
    hint::black_box,
    io::{self, Read},
    mem,
    ops::Range,
    ptr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering, compiler_fence},
    thread,
    time::{Duration, Instant},
};

use libc::{c_int, c_void};

/// Zeroes this process's memory and goes on with `last`, which may use neither heap nor locks.
pub(super) fn end(last: fn() -> !) -> ! {
    static BEGUN: AtomicBool = AtomicBool::new(false);
    if BEGUN.swap(true, Ordering::SeqCst) {
        last() // a panic in here
    }
    let wiper = thread::Builder::new().stack_size(STACK).spawn(move || {
        wipe();
        last()
    });
    match wiper {
        // Until the wiper parks this thread for good.
        Ok(_) => loop {
            thread::park();
        },
        Err(_) => last(),
    }
}

/// Zeroes what earlier calls have left of this thread's stack, and overwrites its vector registers.
pub(super) fn own_stack() {
    cover();
    if let Ok(stack) = stack() {
        zero(stack.start..here().saturating_sub(MARGIN));
    }
    overwrite_registers();
}

/// The wiper's stack: the list of mappings lies on it.
const STACK: usize = 1 << 20;
/// Room for that list, of which the agent's has some hundred lines.
const LIST: usize = 256 << 10;
/// How long the other threads have to stop.
const PATIENCE: Duration = Duration::from_millis(500);
/// Of a stack that is in use, the frames of the functions in here.
const MARGIN: usize = 16 << 10;
const PAGE: usize = 4096;

/// Threads that stand still.
static PARKED: AtomicUsize = AtomicUsize::new(0);

fn wipe() {
    cover();
    let Ok(stack) = stack() else { return };
    let used = here().saturating_sub(MARGIN)..stack.end;
    if park_others().is_err() {
        return;
    }
    let mut list = [0; LIST];
    let Ok(len) = read_mappings(&mut list) else { return };
    let mappings = || Mappings::of(list.get(..len).unwrap_or_default());
    // Keys first; a model may be large.
    for shared in [false, true] {
        for mapping in mappings().filter(|mapping| mapping.shared == shared) {
            if shared && !writable(&mapping.range) {
                continue;
            }
            zero(mapping.range.start..mapping.range.end.min(used.start));
            zero(mapping.range.start.max(used.end)..mapping.range.end);
        }
    }
}

/// Stops every other thread, and waits until they stand.
fn park_others() -> io::Result<()> {
    // SAFETY: gettid and getpid have no preconditions.
    let (own, process) = unsafe { (libc::gettid(), libc::getpid()) };
    let mut threads = Vec::new();
    for entry in fs::read_dir("/proc/self/task")? {
        let name = entry?.file_name();
        threads.extend(name.to_str().and_then(|text| text.parse::<c_int>().ok()));
    }
    threads.retain(|thread| *thread != own);
    // SAFETY: a sigaction of zeroes is one without flags; the handler is a function of the form that sa_sigaction wants.
    let installed = unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = park as *const () as usize;
        libc::sigfillset(&raw mut action.sa_mask);
        libc::sigaction(libc::SIGUSR2, &raw const action, ptr::null_mut())
    };
    if installed != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut signalled = 0;
    for thread in &threads {
        // SAFETY: three integers; the handler touches an atomic and waits.
        if unsafe { libc::syscall(libc::SYS_tgkill, process, *thread, libc::SIGUSR2) } == 0 {
            signalled += 1;
        }
    }
    mem::forget(threads); // the allocator's lock may be held by a thread that stands
    let begun = Instant::now();
    while PARKED.load(Ordering::SeqCst) < signalled && begun.elapsed() < PATIENCE {
        thread::yield_now();
    }
    Ok(())
}

/// The other threads end here: in the kernel, with nothing of their stack in use any more.
extern "C" fn park(_: c_int) {
    overwrite_registers();
    PARKED.fetch_add(1, Ordering::SeqCst);
    loop {
        // SAFETY: no arguments; every signal is blocked in the handler, so it does not return.
        unsafe { libc::syscall(libc::SYS_pause) };
    }
}

/// Reads the list of this process's mappings, as much as has room.
fn read_mappings(list: &mut [u8]) -> io::Result<usize> {
    let mut file = File::open("/proc/self/maps")?;
    let mut len = 0;
    while let Some(rest) = list.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            read => len += read,
        }
    }
    Ok(len)
}

/// Memory that this process can write, apart from the data of its own program.
#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    range: Range<usize>,
    /// A file's, which it shares: a model's.
    shared: bool,
}

/// The mappings that are to be zeroed, out of the text of `/proc/self/maps`.
struct Mappings<'a> {
    lines: std::slice::Split<'a, u8, fn(&u8) -> bool>,
    /// Where the program's data ends: what the file has of it, and behind that what it has not.
    program: usize,
}

impl<'a> Mappings<'a> {
    fn of(text: &'a [u8]) -> Self {
        let newline: fn(&u8) -> bool = |byte| *byte == b'\n';
        Self {
            lines: text.split(newline),
            program: 0,
        }
    }
}

impl Iterator for Mappings<'_> {
    type Item = Mapping;

    fn next(&mut self) -> Option<Mapping> {
        loop {
            let line = std::str::from_utf8(self.lines.next()?).unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            let (Some(range), Some(mode), Some(inode)) = (words.next(), words.next(), words.nth(2)) else {
                continue;
            };
            let Some((Ok(start), Ok(end))) = range
                .split_once('-')
                .map(|(start, end)| (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16)))
            else {
                continue;
            };
            let mapping = |shared| Mapping {
                range: start..end,
                shared,
            };
            match (mode.get(..2), mode.ends_with('s'), inode == "0") {
                (Some("rw" | "r-"), true, false) => return Some(mapping(true)),
                (_, false, false) => self.program = end,
                (_, false, true) if start == self.program && words.next().is_none() => self.program = end,
                (Some("rw"), false, true) => return Some(mapping(false)),
                _ => {}
            }
        }
    }
}

/// Takes back the protection of what was frozen.
fn writable(range: &Range<usize>) -> bool {
    let at = ptr::with_exposed_provenance_mut::<c_void>(range.start);
    // SAFETY: a whole mapping of this process, of which nobody relies on not being written any more.
    unsafe { libc::mprotect(at, range.len(), libc::PROT_READ | libc::PROT_WRITE) == 0 }
}

/// Zeroes those pages of a range that are in memory. What is not there holds nothing, and stays away.
fn zero(range: Range<usize>) {
    const STEP: usize = 1024;
    let mut there = [0_u8; STEP];
    let mut start = range.start;
    while start < range.end {
        let end = (start + STEP * PAGE).min(range.end);
        // SAFETY: `there` has a byte for each page of the range, whose length is at most STEP pages.
        let told = unsafe {
            libc::mincore(
                ptr::with_exposed_provenance_mut::<c_void>(start),
                end - start,
                there.as_mut_ptr(),
            )
        };
        if told == 0 {
            for (page, _) in (start..end)
                .step_by(PAGE)
                .zip(&there)
                .filter(|(_, there)| **there & 1 == 1)
            {
                let bytes = PAGE.min(end - page);
                // SAFETY: a page of a mapping that this process may write. Whose it was does not run any more, or, of the own
                // stack, has returned.
                unsafe { ptr::with_exposed_provenance_mut::<u8>(page).write_bytes(0, bytes) };
            }
        }
        start = end;
    }
    compiler_fence(Ordering::SeqCst);
}

/// Sets every bit of the vector registers. Not zero: the processor does not save registers of zeroes, and what was saved before would
/// stay.
#[inline(never)]
fn overwrite_registers() {
    /// One instruction for each register, whose number is `n`.
    macro_rules! each {
        ($numbers:literal, $instruction:literal) => {
            asm!(
                concat!(".irp n,", $numbers), $instruction, ".endr",
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                options(nomem, nostack, preserves_flags)
            )
        };
    }
    // SAFETY: writes vector registers that the processor has, and nothing else; all that the compiler uses are named.
    unsafe {
        if is_x86_feature_detected!("avx512f") {
            each!(
                "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
                "vpternlogd zmm\\n, zmm\\n, zmm\\n, 255"
            );
        } else if is_x86_feature_detected!("avx") {
            each!(
                "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
                "vcmpps ymm\\n, ymm\\n, ymm\\n, 15"
            );
        } else {
            each!("0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15", "pcmpeqd xmm\\n, xmm\\n");
        }
    }
}

/// The bounds of this thread's stack.
fn stack() -> io::Result<Range<usize>> {
    let (mut low, mut size) = (ptr::null_mut::<c_void>(), 0);
    // SAFETY: the attributes are filled in before they are read, and destroyed once.
    unsafe {
        let mut attributes: libc::pthread_attr_t = mem::zeroed();
        if libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes) != 0 {
            return Err(io::Error::last_os_error());
        }
        let told = libc::pthread_attr_getstack(&raw const attributes, &raw mut low, &raw mut size);
        libc::pthread_attr_destroy(&raw mut attributes);
        if told != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let low = low.addr().next_multiple_of(PAGE);
    Ok(low..low.saturating_add(size))
}

/// A page's beginning at about where the stack is used now.
#[inline(never)]
fn here() -> usize {
    let mark = 0_u8;
    black_box(&raw const mark).addr() & !(PAGE - 1)
}

/// Zeroes the stack below the caller's frame for as far as [`MARGIN`] leaves it alone.
#[inline(never)]
fn cover() {
    black_box(&mut [0_u8; MARGIN + 2 * PAGE]);
}

#[cfg(test)]
mod tests;
