//! A header names an upstream only once, and exactly.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::named::check(data));
