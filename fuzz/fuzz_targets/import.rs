//! What is imported is a config that attache accepts.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::imported::check(data));
