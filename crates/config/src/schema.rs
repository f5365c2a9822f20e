//! The JSON schema (draft 2020-12) of the file, generated from the sections of the model.

use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::{model::Config, patterns, relations, section::ParsedSection};

/// The JSON schema of a config file, for editors: draft 2020-12, with descriptions, defaults, examples and patterns.
///
/// It contains only the simplest rules between two keys; [`parse`](crate::parse) checks all of them.
pub fn schema() -> Value {
    let mut schema = described();
    patterns::for_editors(&mut schema);
    relations::for_editors(&mut schema, annotated());
    schema
}

/// The keys with their types and descriptions, without what only an editor's check needs: what `docs/config.md` is made from.
pub fn described() -> Value {
    let mut schema = annotated().clone();
    public(&mut schema);
    if let Some(root) = schema.as_object_mut() {
        root.insert("title".into(), "attache".into());
        root.insert("patternProperties".into(), json!({ "^x-": {} }));
    }
    schema
}

/// With the keywords that only the checker reads.
pub(crate) fn annotated() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let mut schema = SchemaSettings::draft2020_12()
            .into_generator()
            .into_root_schema_for::<ParsedSection<Config>>()
            .to_value();
        without_null(&mut schema);
        schema
    })
}

/// An optional key may be left out, but `key:` with nothing behind it is a mistake: `null` is no value.
fn without_null(schema: &mut Value) {
    if let Value::Object(object) = schema {
        if let Some(Value::Array(types)) = object.get_mut("type") {
            types.retain(|one| one != "null");
            if let [one] = types.as_slice() {
                let one = one.clone();
                object.insert("type".into(), one);
            }
        }
        for key in ["anyOf", "enum"] {
            if let Some(Value::Array(alternatives)) = object.get_mut(key) {
                alternatives.retain(|one| !one.is_null() && one.get("type") != Some(&json!("null")));
                if key == "anyOf"
                    && let [only] = alternatives.as_slice()
                {
                    let only = only.clone();
                    object.remove("anyOf");
                    for (key, value) in only.as_object().into_iter().flatten() {
                        if !object.contains_key(key) {
                            object.insert(key.clone(), value.clone());
                        }
                    }
                }
            }
        }
    }
    children(schema, without_null);
}

fn public(schema: &mut Value) {
    if let Value::Object(object) = schema {
        if let Some(what) = object.get("x-what").filter(|what| what.is_string()).cloned() {
            object.insert("$comment".into(), what);
        }
        // `1.3` without quotes is a number to an editor.
        if let Some(number) =
            object.get("const").and_then(Value::as_str).and_then(|word| word.parse::<f64>().ok())
            && let Some(word) = object.remove("const")
        {
            object.remove("type");
            object.insert("enum".into(), json!([word, number]));
        }
        // A property may be called `x-…` only in `properties`, whose members are schemas, never flags.
        object.retain(|key, value| match key.as_str() {
            "x-at" | "x-map" | "x-what" => value.is_object(),
            "x-rules" => value.get("rows").is_none(),
            _ => true,
        });
    }
    children(schema, public);
}

fn children(schema: &mut Value, apply: fn(&mut Value)) {
    match schema {
        Value::Object(object) => object
            .iter_mut()
            .filter(|(key, _)| !matches!(key.as_str(), "default" | "examples"))
            .for_each(|(_, value)| apply(value)),
        Value::Array(items) => items.iter_mut().for_each(apply),
        _ => {}
    }
}
