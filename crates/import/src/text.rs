//! Texts in attache's notation.

/// A value pattern for exactly this value.
pub(crate) fn exact(value: &str) -> String {
    if value.starts_with(['!', '~', '=']) || value.contains('*') || value.is_empty() {
        format!("={value}")
    } else {
        value.to_owned()
    }
}

/// A path that stands in a rewriting of attache.
pub(crate) fn literal(path: &str) -> String {
    path.replace('{', "%7B").replace('}', "%7D")
}
