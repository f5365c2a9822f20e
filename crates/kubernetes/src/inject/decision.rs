//! What is decided about an object, and what the object itself asks for.

use serde_json::Value;

use super::settings::{PREFIX, Settings};
use crate::edit::Edit;

/// What is decided about an object.
#[derive(Debug)]
pub(crate) enum Decision {
    /// It gets attache.
    Inject { edits: Vec<Edit>, warnings: Vec<String>, settings: Box<Settings> },
    /// It isn't meant to get it.
    Skip(String),
    /// It can't get it.
    Refuse(String),
    /// It has it.
    Present,
}

/// What `attache.dev/inject` says, as an annotation or label of an object or of its pod template, and whose it is. A "false" wins.
///
/// # Errors
/// It is neither true nor false.
pub(crate) fn asks(object: &Value, template: &Value) -> Result<Option<(bool, &'static str)>, String> {
    let key = format!("{PREFIX}inject");
    let mut asked = None;
    for (place, metadata) in
        [("its", object.get("metadata")), ("its pod template's", template.get("metadata"))]
    {
        for kind in ["annotations", "labels"] {
            match metadata.and_then(|metadata| metadata.get(kind)?.get(&key)) {
                None => {}
                Some(Value::Bool(true)) => asked = Some((true, place)),
                Some(Value::Bool(false)) => return Ok(Some((false, place))),
                Some(Value::String(text)) if matches!(text.as_str(), "false" | "no" | "disabled") => {
                    return Ok(Some((false, place)));
                }
                Some(Value::String(text)) if matches!(text.as_str(), "true" | "yes" | "enabled") => {
                    asked = Some((true, place));
                }
                Some(other) => return Err(format!("`{key}` is {other}, not \"true\" or \"false\"")),
            }
        }
    }
    Ok(asked)
}
