//! Keys in the wrong column, which an error about something else would hide.

use serde_json::Value;

use crate::{
    describe::{flag, list, resolve, title},
    yaml::{Entry, Kind, Node},
};

/// An unknown key that a key without a value, further up in the same mapping, could have below it: its line is not indented far enough.
pub(crate) fn above<'a>(
    root: &Value,
    known: &serde_json::Map<String, Value>,
    entries: &'a [Entry],
    key: &str,
) -> Option<&'a str> {
    let before = entries.iter().take_while(|entry| entry.key != key);
    let empty = before.filter(|entry| is_empty(&entry.value)).last()?;
    known.get(&empty.key).is_some_and(|of| takes(root, of, key)).then_some(empty.key.as_str())
}

/// The section that has this key, of what each free key of a mapping stands for: the key is not indented far enough, and taken for a name.
pub(crate) fn of_each(root: &Value, of: &Value, key: &str) -> Option<String> {
    let of = resolve(root, of);
    if let Some(alternatives) = list(of, "anyOf") {
        return alternatives.iter().find_map(|of| of_each(root, of, key));
    }
    of.get("properties").is_some_and(|properties| properties.get(key).is_some()).then(|| title(of))
}

/// A mapping of this schema may have the key.
fn takes(root: &Value, schema: &Value, key: &str) -> bool {
    let schema = resolve(root, schema);
    if let Some(alternatives) = list(schema, "anyOf") {
        return alternatives.iter().any(|schema| takes(root, schema, key));
    }
    flag(schema, "x-map") || schema.get("properties").is_some_and(|properties| properties.get(key).is_some())
}

fn is_empty(node: &Node) -> bool {
    matches!(&node.kind, Kind::Scalar(scalar) if scalar.is_missing())
}
