//! The same bytes for attache and for hyper: they differ only where attache refuses.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::differential::check(data));
