//! An HTTP/2 server against any client, with any application.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::http2::server(data));
