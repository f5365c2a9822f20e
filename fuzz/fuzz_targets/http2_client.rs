//! An HTTP/2 client against any server, with any application.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::http2::client(data));
