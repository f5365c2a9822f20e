//! Characters that look like others, and placeholders of templates.

/// A help about an unusual character or a template in the text of an error. It replaces the error's own help.
pub(crate) fn in_text(text: &str) -> Option<String> {
    if let Some(c) = text.chars().find(|c| is_lookalike(*c)) {
        let code = u32::from(c);
        return Some(match c {
            '\u{2018}'..='\u{201f}' | '\u{ab}' | '\u{bb}' => {
                format!("`{c}` (U+{code:04X}) is not a quote of YAML: write `\"` or `'`")
            }
            '\u{2010}'..='\u{2015}' | '\u{2212}' => {
                format!("`{c}` (U+{code:04X}) only looks like a `-`: write a `-`")
            }
            '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{ad}' => {
                format!("an invisible character stands here (U+{code:04X}): remove it")
            }
            _ => {
                format!("a character that only looks like a space stands here (U+{code:04X}): write a space")
            }
        });
    }
    if text.contains("{{") || text.contains("{%") {
        return Some(
            "this is a template: fill it in first, as `helm template` does; a config of attache itself takes `${VARIABLE}`".to_owned(),
        );
    }
    let (_, rest) = text.split_once('$')?;
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    let name = rest.get(..end).filter(|name| name.starts_with(|c: char| c.is_ascii_alphabetic()))?;
    Some(format!("`${{{name}}}`, in braces, is the value of that environment variable"))
}

/// It looks like a space, a quote or a dash, or like nothing at all.
fn is_lookalike(c: char) -> bool {
    matches!(
        c,
        '\u{a0}' | '\u{ad}' | '\u{ab}' | '\u{bb}' | '\u{1680}' | '\u{2000}'
            ..='\u{201f}' | '\u{202f}' | '\u{205f}' | '\u{2060}' | '\u{2212}' | '\u{3000}' | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use super::in_text;

    #[test]
    fn what_looks_like_something_else_is_named() {
        for (text, help) in [
            ("\u{a0}o", "looks like a space stands here (U+00A0)"),
            ("“http://a”", "`“` (U+201C) is not a quote"),
            ("«a»", "is not a quote"),
            ("–attempts", "(U+2013) only looks like a `-`"),
            ("o\u{200b}", "invisible character stands here (U+200B)"),
            ("http://{{ .Values.host }}", "template"),
            ("{% if x %}", "template"),
            ("http://$HOME:80", "`${HOME}`"),
        ] {
            assert!(in_text(text).is_some_and(|found| found.contains(help)), "{text}: {:?}", in_text(text));
        }
        for text in ["http://a", "größe", "$1", "a$", "{ a: b }", "5 €"] {
            assert_eq!(in_text(text), None, "{text}");
        }
    }
}
