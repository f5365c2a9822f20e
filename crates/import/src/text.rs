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

/// A text with variables behind `%`, in attache's notation; `%%` stays. `variable` gets what stands behind a `%`, and gives the variable in
/// attache's notation with the rest of the text. `None` where it knows none.
pub(crate) fn template(
    text: &str,
    variable: impl for<'a> Fn(&'a str) -> Option<(String, &'a str)>,
) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            out.push_str("%%");
            rest = after;
            continue;
        }
        let (name, after) = variable(after)?;
        out.push_str(&name);
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}
