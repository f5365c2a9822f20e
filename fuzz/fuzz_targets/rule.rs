//! Rules let nothing through that some upstream could take for what they forbid: the same question, asked of the request as the
//! most lenient reader would see it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::rule::check(data));
