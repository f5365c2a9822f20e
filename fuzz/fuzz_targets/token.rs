//! Only the token that was signed is accepted, and no changed copy of it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::token::check(data));
