//! Any text is a config or has diagnostics, and each of them points into the text.

/// Panics if the rule of this module does not hold.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let env = |name: &str| name.len().is_multiple_of(2).then(|| "127.0.0.1:1".to_owned());
    let Err(wrong) = attache_config::parse(text, None, &env) else { return };
    let said = wrong.to_string();
    assert!(said.contains("error"), "{said}");
}
