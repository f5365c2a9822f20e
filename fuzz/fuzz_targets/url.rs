//! Authorities, absolute targets and URLs of upstreams, read by `url` and `http` too.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::url::check(data));
