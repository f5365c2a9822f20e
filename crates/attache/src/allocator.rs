//! The program's allocator, and the one thing that is asked of it beyond allocation.
//!
//! glibc's `malloc` took a sixth of a request's instructions (docs/performance.md).
//!
//! mimalloc passes free memory on to the system when it is next asked for some, so an idle process that was busy keeps what it had.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(unsafe_code, reason = "a function of the allocator that its crate doesn't show")]
mod ffi {
    // SAFETY: mimalloc 3 (`mimalloc.h`) declares `void mi_collect(bool force)`; linked by the crate `mimalloc`, which also makes it the
    // allocator. It may be called at any time on any thread: it touches that thread's own heap and the process's free pages.
    unsafe extern "C" {
        pub(super) safe fn mi_collect(force: bool);
    }
}

/// Passes memory that is free since a moment on to the system. For the calling thread's own memory; costs microseconds.
pub(crate) fn give_back() {
    ffi::mi_collect(false);
}
