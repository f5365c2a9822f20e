//! What is put into a manifest is taken out again without a trace, and a review of the webhook gets an answer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::manifest::check(data));
