//! Headers of the PROXY protocol, read by `ppp` too.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::proxy_protocol::check(data));
