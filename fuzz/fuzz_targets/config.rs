//! Any text is a config or has diagnostics, and each of them points into the text.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attache_fuzz_checks::config::check(data));
