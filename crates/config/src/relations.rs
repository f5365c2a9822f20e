//! What the schema tells an editor of keys that belong together: one of several, not both, one that needs another.
//!
//! Rule: only what [`parse`](crate::parse) always refuses, so an editor marks nothing that is right. The code in `build` decides, and
//! says it better; a test holds each rule to it.

use serde_json::{Map, Value, json};

/// Keys of a section of which there is exactly one.
const EXACTLY_ONE: &[(&str, &[&str])] = &[
    ("Route", &["to", "redirect", "respond"]),
    ("KeySource", &["inline", "file", "upstream"]),
    ("LogOutput", &["file", "syslog"]),
    ("OwnFormat", &["template", "json"]),
];

/// Keys of a section that exclude each other.
const NOT_BOTH: &[(&str, [&str; 2])] = &[
    ("Match", ["method", "methods"]),
    ("Rewrite", ["path", "prefix"]),
    ("TlsClient", ["ca", "ca_pem"]),
    ("TlsServer", ["client_ca", "client_ca_pem"]),
    ("Tracing", ["zipkin", "otlp"]),
    ("Tracing", ["zipkin", "protocol"]),
];

/// A key of a section, and those of which it needs one.
const NEEDS: &[(&str, &str, &[&str])] = &[
    ("TlsClient", "certificate", &["key"]),
    ("TlsClient", "key", &["certificate"]),
    ("TlsServer", "certificate", &["key"]),
    ("TlsServer", "key", &["certificate"]),
    ("TlsServer", "ocsp", &["certificate"]),
    ("TlsServer", "allow", &["client_ca", "client_ca_pem"]),
    ("TlsServer", "deny", &["client_ca", "client_ca_pem"]),
    ("KeySource", "path", &["upstream"]),
    ("KeySource", "upstream", &["path"]),
];

/// Adds the rules to the sections of a schema.
pub(crate) fn for_editors(schema: &mut Value) {
    let Some(sections) = schema.get_mut("$defs").and_then(Value::as_object_mut) else { return };
    let required = |key: &&str| json!({ "required": [key] });
    for (section, keys) in EXACTLY_ONE {
        add(sections, section, json!({ "oneOf": keys.iter().map(required).collect::<Vec<_>>() }));
    }
    for (section, keys) in NOT_BOTH {
        add(sections, section, json!({ "not": { "required": keys } }));
    }
    for (section, key, needed) in NEEDS {
        let needed: Vec<_> = needed.iter().map(required).collect();
        add(sections, section, json!({ "if": required(key), "then": { "anyOf": needed } }));
    }
}

fn add(sections: &mut Map<String, Value>, section: &str, rule: Value) {
    // With `mode: off` its other keys are ignored.
    let rule = if section == "TlsServer" {
        let off = json!({ "required": ["mode"], "properties": { "mode": { "pattern": r"^off$|\$\{" } } });
        json!({ "anyOf": [off, rule] })
    } else {
        rule
    };
    let Some(section) = sections.get_mut(section).and_then(Value::as_object_mut) else { return };
    if let Some(all) = section.entry("allOf").or_insert_with(|| json!([])).as_array_mut() {
        all.push(rule);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_about_keys_that_exist() {
        let schema = crate::described();
        let has = |section: &str, key: &str| {
            let key = schema["$defs"][section]["properties"].get(key);
            assert!(key.is_some(), "{section} has no such key");
        };
        for (section, keys) in EXACTLY_ONE {
            for key in *keys {
                has(section, key);
            }
        }
        for (section, keys) in NOT_BOTH {
            for key in keys {
                has(section, key);
            }
        }
        for (section, key, needed) in NEEDS {
            has(section, key);
            for key in *needed {
                has(section, key);
            }
        }
    }
}
