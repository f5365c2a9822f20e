//! The program's allocator, and the one function that attache uses beside allocation.
//!
//! glibc's `malloc` took a sixth of a request's instructions (docs/performance.md).
//!
//! The crate `mimalloc` passes the alignment for every block, even if any block would do. Above 1 KiB, mimalloc then uses a slow path that
//! makes the block larger; six blocks of a request took that path. Here only blocks that need more than `malloc`'s alignment take it.
//!
//! mimalloc returns free memory to the system only when memory is requested the next time. So an idle process that was busy before would
//! keep its memory.
#![expect(unsafe_code, reason = "an allocator is one by an unsafe trait, and mimalloc is C")]

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys as mi;

#[global_allocator]
static ALLOCATOR: Mimalloc = Mimalloc;

struct Mimalloc;

/// `mi_malloc` aligns every block of 16 bytes and more to 16, and smaller blocks to 8 (`MI_MAX_ALIGN_SIZE`, asserted in mimalloc's
/// `mi_page_malloc_zero`). A block is never smaller than requested, so an alignment up to the size is satisfied too.
const fn is_plain(size: usize, align: usize) -> bool {
    align <= 16 && align <= size
}

// SAFETY: all blocks come from mimalloc and are returned to it. They have the size and the alignment of the layout, by `is_plain` or
// because mimalloc was asked for them. mimalloc does not unwind, and returns null if it has no memory.
unsafe impl GlobalAlloc for Mimalloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: this may be called with any size, and with an alignment that is a power of two, as that of every layout is.
        unsafe {
            if is_plain(size, align) { mi::mi_malloc(size) } else { mi::mi_malloc_aligned(size, align) }
        }
        .cast()
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: as in `alloc`.
        unsafe {
            if is_plain(size, align) { mi::mi_zalloc(size) } else { mi::mi_zalloc_aligned(size, align) }
        }
        .cast()
    }

    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the caller's block came from this allocator, so from mimalloc.
        unsafe { mi::mi_free(block.cast()) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (block, align) = (block.cast(), layout.align());
        // SAFETY: as in `alloc`; the new block is aligned by the same rule, for its new size.
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

/// Returns memory that became free a moment ago to the system. It handles the calling thread's own memory, and takes microseconds.
pub(crate) fn release_memory() {
    // SAFETY: this may be called at any time on any thread: it touches only that thread's own heap and the process's free pages.
    unsafe { mi::mi_collect(false) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    proptest::proptest! {
        #[test]
        fn blocks_have_their_size_and_alignment_and_keep_their_bytes(
            blocks in proptest::collection::vec((1_usize..20_000, 0_u32..9, 1_usize..20_000), 1..200),
        ) {
            let mut live = Vec::new();
            for (size, align, grown) in blocks {
                let layout = Layout::from_size_align(size, 1 << align).unwrap();
                // SAFETY: sizes are above zero; each block is written within its size and freed once, with its last layout.
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
