//! AdmissionReviews: any body has an answer, and patches apply.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::review::check(data));
