//! Header compression: another reader reads the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::hpack::check(data));
