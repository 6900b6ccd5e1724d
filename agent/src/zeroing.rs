//! The agent's allocator: what is freed is zeroed first (threat T15). Ciphers keep expanded keys in memory that they free as it is, messages
//! and futures hold copies, and what the allocator gives back to the kernel can be zeroed by nobody any more.
#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    arch::asm,
};

/// The system's allocator, which zeroes what it is given back. Growing moves: the old place is zeroed, too.
#[derive(Debug)]
pub struct Zeroing;

// SAFETY: every block comes from the system's allocator and goes back to it with the layout that it was asked for with; in between only
// bytes of the block itself are written, at a moment when its owner has given it up.
unsafe impl GlobalAlloc for Zeroing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block has this many bytes and is not used any more. The empty assembly, which may read all memory, keeps the compiler
        // from leaving out writes that nobody reads.
        unsafe {
            block.write_bytes(0, layout.size());
            asm!("/* {block} */", block = in(reg) block, options(nostack, preserves_flags, readonly));
            System.dealloc(block, layout);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Seek, SeekFrom},
    };

    use super::*;

    /// The memory at an address, whoever it belongs to.
    fn at(address: usize, len: usize) -> Vec<u8> {
        let mut memory = File::open("/proc/self/mem").unwrap();
        memory.seek(SeekFrom::Start(address as u64)).unwrap();
        let mut bytes = vec![0; len];
        memory.read_exact(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn t15_what_is_freed_or_moved_is_zeroed() {
        for len in [24, 544, 100_000] {
            let layout = Layout::from_size_align(len, 16).unwrap();
            // SAFETY: the layouts are those that the blocks were asked for with, and no block is used after it was freed: it is looked at
            // from outside.
            unsafe {
                let block = Zeroing.alloc(layout);
                block.write_bytes(0x5a, len);
                assert!(at(block.addr(), len).iter().all(|byte| *byte == 0x5a));
                let moved = Zeroing.realloc(block, layout, 2 * len);
                assert!(at(moved.addr(), len).iter().all(|byte| *byte == 0x5a));
                // The allocator writes its own links into a free block.
                assert!(!at(block.addr(), len).windows(8).any(|bytes| bytes == [0x5a; 8]));
                Zeroing.dealloc(moved, Layout::from_size_align(2 * len, 16).unwrap());
                assert!(!at(moved.addr(), len).windows(8).any(|bytes| bytes == [0x5a; 8]));
            }
        }
    }
}
