//! Requests of one connection: pieces never matter, nothing panics, and what passes has one framing for httparse too.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::request::check(data));
