//! The program's allocator, and the one thing that is asked of it beyond allocation.
//!
//! glibc's `malloc` took a sixth of a request's instructions (docs/performance.md).
//!
//! The crate `mimalloc` asks for every block by its alignment, also where any block will do; beyond 1 KiB that is a slow way
//! which makes the block larger, and six blocks of a request went it. Here only the few that want more than `malloc`'s alignment do.
//!
//! mimalloc passes free memory on to the system when it is next asked for some, so an idle process that was busy keeps what it had.
#![expect(unsafe_code, reason = "an allocator is one by an unsafe trait, and mimalloc is C")]

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys as mi;

#[global_allocator]
static ALLOCATOR: Mimalloc = Mimalloc;

struct Mimalloc;

/// `mi_malloc` aligns every block of 16 bytes and more to 16, and smaller ones to 8 (`MI_MAX_ALIGN_SIZE`, asserted in mimalloc's
/// `mi_page_malloc_zero`); a block is never smaller than what was asked for, so an alignment up to the size is kept, too.
const fn is_plain(size: usize, align: usize) -> bool {
    align <= 16 && align <= size
}

// SAFETY: blocks come from mimalloc alone and go back to it; they are as large and as aligned as the layout says, by `is_plain` or
// because mimalloc was asked for it. mimalloc does not unwind, and gives null where it has nothing.
unsafe impl GlobalAlloc for Mimalloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: may be called with any size, and an alignment that is a power of two, as a layout's is.
        unsafe {
            if is_plain(size, align) { mi::mi_malloc(size) } else { mi::mi_malloc_aligned(size, align) }
        }
        .cast()
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: as above.
        unsafe {
            if is_plain(size, align) { mi::mi_zalloc(size) } else { mi::mi_zalloc_aligned(size, align) }
        }
        .cast()
    }

    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the caller's block came from here, so from mimalloc.
        unsafe { mi::mi_free(block.cast()) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (block, align) = (block.cast(), layout.align());
        // SAFETY: as above; the new block is aligned by the same rule, by its new size.
        unsafe {
            if is_plain(size, align) {
                mi::mi_realloc(block, size)
            } else {
                mi::mi_realloc_aligned(block, size, align)
            }
        }
        .cast()
    }
}

/// Passes memory that is free since a moment on to the system. For the calling thread's own memory; costs microseconds.
pub(crate) fn release_memory() {
    // SAFETY: may be called at any time on any thread: it touches that thread's own heap and the process's free pages.
    unsafe { mi::mi_collect(false) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end on what it did not expect")]

    use super::*;

    proptest::proptest! {
        #[test]
        fn blocks_are_aligned_whole_and_keep_their_bytes(
            blocks in proptest::collection::vec((1_usize..20_000, 0_u32..9, 1_usize..20_000), 1..200),
        ) {
            let mut live = Vec::new();
            for (size, align, grown) in blocks {
                let layout = Layout::from_size_align(size, 1 << align).unwrap();
                // SAFETY: sizes are above zero, each block is written within its size and freed once with its last layout.
                unsafe {
                    let block = ALLOCATOR.alloc(layout);
                    assert_eq!(block.addr() % layout.align(), 0, "{layout:?}");
                    block.write_bytes(0xa5, size);
                    let block = ALLOCATOR.realloc(block, layout, grown);
                    assert_eq!(block.addr() % layout.align(), 0, "{layout:?} {grown}");
                    let kept = std::slice::from_raw_parts(block, size.min(grown));
                    assert!(kept.iter().all(|byte| *byte == 0xa5));
                    let zeroed = ALLOCATOR.alloc_zeroed(layout);
                    assert_eq!(zeroed.addr() % layout.align(), 0, "{layout:?}");
                    assert!(std::slice::from_raw_parts(zeroed, size).iter().all(|byte| *byte == 0));
                    zeroed.write_bytes(0x5a, size);
                    live.push((block, Layout::from_size_align(grown, 1 << align).unwrap()));
                    live.push((zeroed, layout));
                }
            }
            for (block, layout) in live {
                // SAFETY: as above.
                unsafe { ALLOCATOR.dealloc(block, layout) };
            }
        }
    }
}
