//! Mistakes that would otherwise cause an error about something else: keys in the wrong column, missing spaces, and
//! values in the words of another program.

use serde_json::Value;

use crate::{
    describe::{flag, list, resolve, title},
    yaml::{Scalar, YamlEntry, YamlKind, YamlNode},
};

/// The right way to write a refused value: `off` for `no`, `{}` for `yes`, a list for several values in one text. It is
/// suggested only if `fits` accepts it.
pub(crate) fn in_other_words(node: &YamlNode, fits: impl Fn(&YamlNode) -> bool) -> Option<String> {
    let YamlKind::Scalar(scalar) = &node.kind else { return None };
    let fits = |kind: YamlKind| fits(&node.with(kind));
    let word = |text: &str| YamlKind::Scalar(Scalar { text: text.to_owned(), ..scalar.clone() });
    match scalar.text.to_ascii_lowercase().as_str() {
        "no" | "false" | "none" | "never" | "disable" | "disabled" if fits(word("off")) => {
            return Some("write `off`".to_owned());
        }
        "yes" | "true" | "on" | "enable" | "enabled" if fits(YamlKind::Mapping(Vec::new())) => {
            return Some("write a mapping of its keys; `{}` leaves each at its default".to_owned());
        }
        _ => {}
    }
    let parts: Vec<&str> =
        scalar.text.split([',', ' ']).map(str::trim).filter(|part| !part.is_empty()).collect();
    if scalar.secret || parts.len() < 2 || parts.len() > 20 {
        return None;
    }
    let items = parts.iter().map(|part| node.with(word(part))).collect();
    fits(YamlKind::Sequence(items)).then(|| format!("several are a list: `[{}]`", parts.join(", ")))
}

/// The key that an unknown key could belong to: it has no value, and stands further up in the same mapping. The line of
/// the unknown key is not indented far enough.
pub(crate) fn above<'a>(
    root: &Value,
    known: &serde_json::Map<String, Value>,
    entries: &'a [YamlEntry],
    key: &str,
) -> Option<&'a str> {
    let before = entries.iter().take_while(|entry| entry.key != key);
    let empty = before.filter(|entry| is_empty(&entry.value)).last()?;
    known.get(&empty.key).is_some_and(|of| takes(root, of, key)).then_some(empty.key.as_str())
}

/// The section that has this key, among those that a name of this mapping may stand for: the line is not indented far
/// enough, so its key looks like a name.
pub(crate) fn of_each(root: &Value, of: &Value, key: &str) -> Option<String> {
    let of = resolve(root, of);
    if let Some(alternatives) = list(of, "anyOf") {
        return alternatives.iter().find_map(|of| of_each(root, of, key));
    }
    of.get("properties").is_some_and(|properties| properties.get(key).is_some()).then(|| title(of))
}

/// True if a mapping of this schema may have the key.
fn takes(root: &Value, schema: &Value, key: &str) -> bool {
    let schema = resolve(root, schema);
    if let Some(alternatives) = list(schema, "anyOf") {
        return alternatives.iter().any(|schema| takes(root, schema, key));
    }
    flag(schema, "x-map") || schema.get("properties").is_some_and(|properties| properties.get(key).is_some())
}

fn is_empty(node: &YamlNode) -> bool {
    matches!(&node.kind, YamlKind::Scalar(scalar) if scalar.is_missing())
}

/// `a:http://b` is one word in YAML, which is never intended.
pub(crate) fn no_space(text: &str) -> Option<String> {
    let (key, value) = text.split_once(':')?;
    let is_key =
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    (is_key && !value.is_empty() && !value.starts_with("//"))
        .then(|| format!("write a space behind the colon: `{key}: {value}`"))
}
