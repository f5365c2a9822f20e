//! Changes of an object, as data. One list of edits becomes a JSON Patch (RFC 6902), a changed [`Value`], or changes of
//! the object's text.
//!
//! All paths and indexes of a list refer to the object *before* any of its edits, so that the three forms agree in any
//! order.

use std::cmp::Reverse;

use serde_json::{Map, Value, json};

/// Keys and indexes from the object's root.
pub(crate) type ObjectPath = Vec<String>;

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ObjectEdit {
    /// Adds a key that the mapping doesn't have.
    Set { object: ObjectPath, key: String, value: Value },
    /// Replaces a key by another key (or the same) with another value. `raw` is the original YAML of the entry, so that
    /// it can be restored exactly.
    Swap { object: ObjectPath, old: String, new: String, value: Value, raw: Option<String> },
    /// Removes a key.
    Unset { object: ObjectPath, key: String },
    /// Adds items before the one with this index, or at the end.
    Insert { list: ObjectPath, before: usize, items: Vec<Value> },
    /// Removes an item.
    Delete { list: ObjectPath, index: usize },
}

impl ObjectEdit {
    /// The collection that is changed.
    fn place(&self) -> &ObjectPath {
        match self {
            Self::Set { object, .. } | Self::Swap { object, .. } | Self::Unset { object, .. } => object,
            Self::Insert { list, .. } | Self::Delete { list, .. } => list,
        }
    }

    fn index(&self) -> usize {
        match self {
            Self::Insert { before, .. } => *before,
            Self::Delete { index, .. } => *index,
            _ => usize::MAX,
        }
    }
}

/// The operations of RFC 6902, in an order in which each still finds its target: the deepest first, and in one list
/// from its end.
pub(crate) fn json_patch(edits: &[ObjectEdit]) -> Vec<Value> {
    let mut patch = Vec::new();
    for edit in ordered(edits) {
        match edit {
            ObjectEdit::Set { object, key, value } => {
                patch.push(json!({"op": "add", "path": pointer(object, key), "value": value}));
            }
            ObjectEdit::Swap { object, old, new, value, .. } if old == new => {
                patch.push(json!({"op": "replace", "path": pointer(object, old), "value": value}));
            }
            ObjectEdit::Swap { object, old, new, value, .. } => {
                patch.push(json!({"op": "remove", "path": pointer(object, old)}));
                patch.push(json!({"op": "add", "path": pointer(object, new), "value": value}));
            }
            ObjectEdit::Unset { object, key } => {
                patch.push(json!({"op": "remove", "path": pointer(object, key)}));
            }
            ObjectEdit::Insert { list, before, items } => {
                for item in items.iter().rev() {
                    patch.push(
                        json!({"op": "add", "path": pointer(list, &before.to_string()), "value": item}),
                    );
                }
            }
            ObjectEdit::Delete { list, index } => {
                patch.push(json!({"op": "remove", "path": pointer(list, &index.to_string())}));
            }
        }
    }
    patch
}

fn ordered(edits: &[ObjectEdit]) -> Vec<&ObjectEdit> {
    let mut ordered: Vec<&ObjectEdit> = edits.iter().collect();
    ordered.sort_by_key(|edit| Reverse((edit.place().len(), edit.index())));
    ordered
}

/// A JSON Pointer (RFC 6901).
pub(crate) fn pointer(path: &[String], last: &str) -> String {
    let mut out = String::new();
    for token in path.iter().map(String::as_str).chain([last]) {
        out.push('/');
        out.push_str(&token.replace('~', "~0").replace('/', "~1"));
    }
    out
}

/// Makes the changes in the object. An edit whose path doesn't exist changes nothing.
pub(crate) fn apply(object: &mut Value, edits: &[ObjectEdit]) {
    for edit in ordered(edits) {
        match (edit, find_mut(object, edit.place())) {
            (ObjectEdit::Set { key, value, .. }, Some(Value::Object(entries))) => {
                entries.insert(key.clone(), value.clone());
            }
            (ObjectEdit::Swap { old, new, value, .. }, Some(Value::Object(entries))) => {
                *entries = std::mem::take(entries)
                    .into_iter()
                    .map(|(key, own)| if key == *old { (new.clone(), value.clone()) } else { (key, own) })
                    .collect::<Map<_, _>>();
            }
            (ObjectEdit::Unset { key, .. }, Some(Value::Object(entries))) => {
                entries.shift_remove(key);
            }
            (ObjectEdit::Insert { before, items: new, .. }, Some(Value::Array(items))) => {
                let at = (*before).min(items.len());
                items.splice(at..at, new.iter().cloned());
            }
            (ObjectEdit::Delete { index, .. }, Some(Value::Array(items))) if *index < items.len() => {
                items.remove(*index);
            }
            _ => {}
        }
    }
}

/// The value at a path.
pub(crate) fn find<'v>(mut value: &'v Value, path: &[String]) -> Option<&'v Value> {
    for token in path {
        value = match value {
            Value::Object(entries) => entries.get(token)?,
            Value::Array(items) => items.get(token.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    Some(value)
}

fn find_mut<'v>(mut value: &'v mut Value, path: &[String]) -> Option<&'v mut Value> {
    for token in path {
        value = match value {
            Value::Object(entries) => entries.get_mut(token)?,
            Value::Array(items) => items.get_mut(token.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    Some(value)
}
