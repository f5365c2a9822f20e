//! Answers of the rate limit service.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::rate_limit::check(data));
