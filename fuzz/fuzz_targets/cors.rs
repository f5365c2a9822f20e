//! An origin is allowed only if it is of the list.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::cors::check(data));
