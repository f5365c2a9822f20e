//! An authorizer changes what it may of a request, and nothing else, whatever it answers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::authorizer::check(data));
