//! Heads of answers: nothing panics, a part decides nothing that the whole would not, and httparse reads the same head.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::response::check(data));
