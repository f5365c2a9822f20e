//! Every imported file of Envoy, HAProxy or nginx becomes a valid config, or has diagnostics if the original was not
//! valid either.

use attache_import::{File, ProxyKind, import};

/// Panics if the rule of this module does not hold.
pub fn check(data: &[u8]) {
    let Some((&kind, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let kind = [ProxyKind::Envoy, ProxyKind::Haproxy, ProxyKind::Nginx][usize::from(kind) % 3];
    let file = File { path: "original".into(), text: text.to_owned() };
    let Ok(imported) = import(kind, &[file]) else { return };
    if let Err(wrong) = attache_config::parse(&imported.text, None, &|_| Some("1".to_owned())) {
        assert!(wrong.to_string().contains("error"), "{wrong}");
    }
}
