//! An answer is compressed only in a way that the client takes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::coding::check(data));
