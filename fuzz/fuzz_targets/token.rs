//! No other token is believed than the one that was signed, whatever is changed in it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::token::check(data));
