//! ClientHellos, read by rustls too.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::sni::check(data));
