//! gRPC-Web: pieces make no difference, and what goes back can be read again.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::grpc_web::check(data));
