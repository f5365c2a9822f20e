//! What an unquoted YAML scalar means, and which texts need quotes.
//!
//! kubectl and the API server read YAML 1.1 (sigs.k8s.io/yaml), most other tools 1.2. Values are read as in 1.1;
//! written values mean the same in both.

use std::fmt::Write;

use serde_json::{Number, Value};

/// The value of a plain scalar.
pub(crate) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    number(text).unwrap_or_else(|| Value::String(text.to_owned()))
}

fn number(text: &str) -> Option<Value> {
    let first = text.bytes().next()?;
    if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) {
        return None;
    }
    let plain = text.replace('_', "");
    let (sign, digits) = match plain.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let radix = match digits.as_bytes() {
        [b'0', b'x', ..] => Some((16, &digits[2..])),
        [b'0', b'o', ..] => Some((8, &digits[2..])),
        [b'0', b'b', ..] => Some((2, &digits[2..])),
        [b'0', _, ..] if digits.bytes().all(|digit| matches!(digit, b'0'..=b'7')) => Some((8, &digits[1..])),
        _ => None,
    };
    if let Some((radix, digits)) = radix {
        return i64::from_str_radix(&format!("{sign}{digits}"), radix).ok().map(Value::from);
    }
    if let Ok(number) = plain.parse::<i64>() {
        return Some(number.into());
    }
    if let Ok(number) = plain.parse::<u64>() {
        return Some(number.into());
    }
    // `f64::from_str` also accepts words.
    let only = digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    let some = digits.bytes().any(|b| b.is_ascii_digit());
    if only && some {
        return plain.parse::<f64>().ok().and_then(Number::from_f64).map(Value::Number);
    }
    None
}

/// A text as a YAML scalar of one line, quoted where it must be.
pub(crate) fn quoted(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    if text.contains('"') && text.chars().all(is_printable) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    escaped(&Value::String(text.to_owned()).to_string())
}

/// JSON may contain characters unescaped that YAML requires to be escaped.
pub(crate) fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if is_printable(c) || c == '\n' {
            out.push(c);
        } else {
            // All of those have at most four digits.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        }
    }
    out
}

/// True if a YAML text may contain the character unescaped within one line (by YAML 1.1's rule, the stricter one).
pub(crate) fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// True if it means the same text without quotes, for every parser.
fn is_plain(text: &str) -> bool {
    let Some(first) = text.bytes().next() else { return false };
    let harmless =
        text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/' | b':'));
    if !harmless || text.ends_with(':') {
        return false;
    }
    if first.is_ascii_digit() {
        // A quantity such as `50m` needs no quotes; a text that could be a time, a date or a number in some notation
        // does.
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
        return matches!(unit, "m" | "k" | "M" | "G" | "T" | "Ki" | "Mi" | "Gi" | "Ti");
    }
    let word = text.strip_prefix("--").unwrap_or(text);
    word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/') && resolve(text).is_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn scalars_mean_what_kubectl_reads() {
        for (text, value) in [
            ("true", json!(true)),
            ("yes", json!(true)),
            ("off", json!(false)),
            ("~", json!(null)),
            ("8080", json!(8080)),
            ("-1", json!(-1)),
            ("0644", json!(420)),
            ("0o644", json!(420)),
            ("0x1F", json!(31)),
            ("1_000", json!(1000)),
            ("1.5", json!(1.5)),
            ("1e3", json!(1000.0)),
            ("1.21.0", json!("1.21.0")),
            ("50m", json!("50m")),
            ("0999", json!(999)),
            ("-", json!("-")),
            (".", json!(".")),
            (".inf", json!(".inf")),
            ("2024-01-01", json!("2024-01-01")),
            ("infinity", json!("infinity")),
        ] {
            assert_eq!(resolve(text), value, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_quoted_text_reads_back_as_itself(text in "\\PC*|[ -~\n\t\u{85}\u{2028}]*|[0-9a-f:._+-]{1,8}|(yes|no|null|~|true)") {
            let documents = crate::yaml::parse(&format!("k: {}\n", quoted(&text))).unwrap();
            prop_assert_eq!(&documents[0].value["k"], &Value::String(text.clone()));
            let json = escaped(&Value::String(text.clone()).to_string());
            let documents = crate::yaml::parse(&format!("[{json}]\n")).unwrap();
            prop_assert_eq!(&documents[0].value[0], &Value::String(text));
        }
    }
}
