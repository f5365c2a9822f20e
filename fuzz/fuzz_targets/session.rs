//! A session's cookie is believed only as attache has written it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::session::check(data));
