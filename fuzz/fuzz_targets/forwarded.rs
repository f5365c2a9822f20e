//! attache's own word in the forwarding headers is the last, whatever clients write.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::forwarded::check(data));
