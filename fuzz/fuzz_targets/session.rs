//! A session's cookie is accepted only if attache wrote it and it is unchanged.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::session::check(data));
