//! A path has one form under each policy: what was put into it stays as it is, and where dot segments are resolved none
//! is left, plain or escaped.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::path::check(data));
