//! The decision about an object, and the wish of the object itself.

use serde_json::Value;

use super::settings::{InjectionSettings, PREFIX};
use crate::edit::ObjectEdit;

/// The decision about an object.
#[derive(Debug)]
pub(crate) enum InjectionDecision {
    /// It gets attache.
    Inject { edits: Vec<ObjectEdit>, warnings: Vec<String>, settings: Box<InjectionSettings> },
    /// It isn't meant to get attache.
    Skip(String),
    /// It can't get attache.
    Refuse(String),
    /// It already has attache.
    Present,
}

/// The value of `attache.dev/inject`, as an annotation or label of an object or of its pod template, and where it
/// stands. A "false" wins.
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
