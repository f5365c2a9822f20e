//! Parse, edit, write, parse with httparse: the same message.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::round_trip::check(data));
