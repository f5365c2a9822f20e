//! The record of an injection, which the annotation [`MARKER`] keeps, and how the injection is removed.
//!
//! The record names the containers, volumes, variables and annotations to remove. It uses names and not indexes, so
//! that it stays valid after other tools have added their own items. For a replaced value it has the old value and, in
//! YAML, its original text. A collection that becomes empty by the removal is removed as well, unless the record says
//! what it was before.

use serde_json::{Map, Value, json};

use crate::edit::{ObjectEdit, ObjectPath, find};

/// The annotation of a pod that has attache.
pub const MARKER: &str = "attache.dev/injected";

/// One change to undo. Paths begin at the pod (template), and name items of lists by their name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Undo {
    /// Removes it.
    Remove(ObjectPath),
    /// Restores the value that it had before items were added to it.
    Empty { path: ObjectPath, value: Value, raw: Option<String> },
    /// Replaces the key `old` by the original key `new`.
    Swap { object: ObjectPath, old: String, new: String, value: Value, raw: Option<String> },
}

impl Undo {
    pub(crate) fn remove(path: &[&str]) -> Self {
        Self::Remove(path.iter().map(ToString::to_string).collect())
    }
}

/// All changes of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct InjectionRecord {
    pub(crate) undo: Vec<Undo>,
}

impl InjectionRecord {
    /// The annotation's text: JSON.
    pub(crate) fn text(&self) -> String {
        let mut removed = Vec::new();
        let mut restored = Vec::new();
        for undo in &self.undo {
            match undo {
                Undo::Remove(path) => removed.push(Value::from(written(path))),
                Undo::Empty { path, value, raw } => {
                    restored.push(with_raw(json!({"at": written(path), "empty": value}), raw.as_ref()));
                }
                Undo::Swap { object, old, new, value, raw } => {
                    let entry = json!({"at": written(object), "now": old, "was": new, "value": value});
                    restored.push(with_raw(entry, raw.as_ref()));
                }
            }
        }
        let mut record = Map::new();
        record.insert("version".to_owned(), env!("CARGO_PKG_VERSION").into());
        record.insert("remove".to_owned(), removed.into());
        if !restored.is_empty() {
            record.insert("restore".to_owned(), restored.into());
        }
        Value::Object(record).to_string()
    }

    /// # Errors
    /// The annotation isn't what attache writes.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("its annotation {MARKER} isn't a record that attache {} knows", env!("CARGO_PKG_VERSION"))
        };
        let record: Value = serde_json::from_str(text).map_err(|_| wrong())?;
        let mut undo = Vec::new();
        for path in record.get("remove").and_then(Value::as_array).ok_or_else(wrong)? {
            undo.push(Undo::Remove(read(path).ok_or_else(wrong)?));
        }
        for entry in record.get("restore").and_then(Value::as_array).into_iter().flatten() {
            undo.push(restored(entry).ok_or_else(wrong)?);
        }
        Ok(Self { undo })
    }

    /// The same without the original YAML texts.
    pub(crate) fn without_raw(mut self) -> Self {
        for undo in &mut self.undo {
            match undo {
                Undo::Remove(_) => {}
                Undo::Empty { raw, .. } | Undo::Swap { raw, .. } => *raw = None,
            }
        }
        self
    }
}

fn restored(entry: &Value) -> Option<Undo> {
    let path = read(entry.get("at")?)?;
    let raw = entry.get("raw").and_then(Value::as_str).map(str::to_owned);
    let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
    Some(match entry.get("empty") {
        Some(value) => Undo::Empty { path, value: value.clone(), raw },
        None => Undo::Swap {
            object: path,
            old: text("now")?,
            new: text("was")?,
            value: entry.get("value")?.clone(),
            raw,
        },
    })
}

fn with_raw(mut entry: Value, raw: Option<&String>) -> Value {
    if let (Some(raw), Some(entries)) = (raw, entry.as_object_mut()) {
        entries.insert("raw".to_owned(), raw.as_str().into());
    }
    entry
}

fn written(path: &[String]) -> String {
    path.split_last().map_or_else(String::new, |(last, path)| crate::edit::pointer(path, last))
}

fn read(pointer: &Value) -> Option<ObjectPath> {
    let rest = pointer.as_str()?.strip_prefix('/')?;
    Some(rest.split('/').map(|token| token.replace("~1", "/").replace("~0", "~")).collect())
}

/// The record of a pod (template) that has attache.
///
/// # Errors
/// It is broken.
pub(crate) fn of(template: &Value) -> Option<Result<InjectionRecord, String>> {
    let marker = template.get("metadata")?.get("annotations")?.get(MARKER)?;
    Some(InjectionRecord::parse(marker.as_str().unwrap_or_default()))
}

/// The edits that take attache out of the pod at `base` of an object; `None` if it isn't in it.
///
/// # Errors
/// The record is broken.
pub(crate) fn removal(object: &Value, base: &[String]) -> Result<Option<Vec<ObjectEdit>>, String> {
    let Some(record) = find(object, base).and_then(of) else { return Ok(None) };
    let mut undo = record?.undo;
    undo.push(Undo::remove(&["metadata", "annotations", MARKER]));
    let resolve = |path: &[String]| by_index(object, base, path);
    let mut gone: Vec<ObjectPath> = undo
        .iter()
        .filter_map(|undo| match undo {
            Undo::Remove(path) => resolve(path),
            _ => None,
        })
        .collect();
    gone.sort();
    gone.dedup();
    let empties: Vec<(ObjectPath, &Value, &Option<String>)> = undo
        .iter()
        .filter_map(|undo| match undo {
            Undo::Empty { path, value, raw } => resolve(path).map(|path| (path, value, raw)),
            _ => None,
        })
        .collect();

    let mut edits = Vec::new();
    // Empty collections are removed, the deepest first, because the collection around one may then be empty as well.
    loop {
        let mut whole: Option<ObjectPath> = None;
        for path in &gone {
            let Some((_, parent)) = path.split_last() else { continue };
            let left = match find(object, parent) {
                Some(Value::Object(entries)) => entries.len(),
                Some(Value::Array(items)) => items.len(),
                _ => continue,
            };
            let taken =
                gone.iter().filter(|other| other.split_last().is_some_and(|(_, p)| p == parent)).count();
            if taken == left && parent.len() > base.len() && parent.last().is_some_and(|last| last != "spec")
            {
                whole = Some(parent.to_vec());
                break;
            }
        }
        let Some(parent) = whole else { break };
        gone.retain(|path| !path.starts_with(&parent));
        match empties.iter().find(|(path, ..)| *path == parent) {
            Some((path, value, raw)) => {
                let Some((key, object)) = path.split_last() else { continue };
                edits.push(ObjectEdit::Swap {
                    object: object.to_vec(),
                    old: key.clone(),
                    new: key.clone(),
                    value: (*value).clone(),
                    raw: (*raw).clone(),
                });
            }
            None => gone.push(parent),
        }
    }
    for path in gone {
        let Some((last, parent)) = path.split_last() else { continue };
        edits.push(match find(object, parent) {
            Some(Value::Array(_)) => {
                ObjectEdit::Delete { list: parent.to_vec(), index: last.parse().unwrap_or(usize::MAX) }
            }
            _ => ObjectEdit::Unset { object: parent.to_vec(), key: last.clone() },
        });
    }
    for undo in &undo {
        if let Undo::Swap { object: place, old, new, value, raw } = undo
            && let Some(place) = resolve(place)
            && find(object, &place).is_some_and(|place| place.get(old).is_some())
        {
            let (old, new, value, raw) = (old.clone(), new.clone(), value.clone(), raw.clone());
            edits.push(ObjectEdit::Swap { object: place, old, new, value, raw });
        }
    }
    Ok(Some(edits))
}

/// Translates a path of names below the pod into one of indexes from the object's root; `None` if it no longer exists.
fn by_index(object: &Value, base: &[String], path: &[String]) -> Option<ObjectPath> {
    let mut value = find(object, base)?;
    let mut found = base.to_vec();
    for token in path {
        match value {
            Value::Object(entries) => {
                value = entries.get(token)?;
                found.push(token.clone());
            }
            Value::Array(items) => {
                let named = |item: &Value| item.get("name").and_then(Value::as_str) == Some(token);
                let index = items.iter().position(named)?;
                value = items.get(index)?;
                found.push(index.to_string());
            }
            _ => return None,
        }
    }
    Some(found)
}
