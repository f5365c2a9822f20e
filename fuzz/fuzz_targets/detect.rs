//! What is spoken on a connection: more bytes change no verdict.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::detect::check(data));
