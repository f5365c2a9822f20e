//! Messages of the SPIFFE Workload API, read by prost too.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::svid::check(data));
