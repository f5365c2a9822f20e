//! Chunked bodies: pieces never matter, nothing panics, and nothing is read behind the end.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::chunked::check(data));
