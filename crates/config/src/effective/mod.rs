//! The effective config: every default filled in, in the keys and units of the file, without secrets.
//!
//! Each section shows its own keys (`section!`). Values that are secrets by their key (inline PEM, headers that carry
//! credentials) are hidden there. Values that came by `!file` are searched in the finished text and hidden here.

use serde_json::Value;

use crate::{
    model::Config,
    redaction::{ConfigReference, HIDDEN},
    section::Section as _,
};

/// A secret shorter than this is replaced only where it is the whole value: many other texts contain such a short text
/// by chance.
const MIN_PART_BYTES: usize = 4;

impl Config {
    /// The running config with every default, for people. No secret is in it.
    pub fn effective(&self) -> Value {
        let mut value = Value::Object(self.show());
        self.finish(&mut value);
        value
    }

    /// Replaces references by names, and hides everything that came by `!file`.
    fn finish(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Some(reference) = ConfigReference::of(text) {
                    *value = name(&reference, self).into();
                    return;
                }
                for secret in &self.secrets.0 {
                    if **secret == **text {
                        HIDDEN.clone_into(text);
                    } else if secret.len() >= MIN_PART_BYTES && text.contains(&**secret) {
                        *text = text.replace(&**secret, HIDDEN);
                    } else if secret.contains('%') && plain(text).contains(&plain(secret)) {
                        HIDDEN.clone_into(text);
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.finish(item)),
            Value::Object(entries) => entries.values_mut().for_each(|entry| self.finish(entry)),
            // A number or a bool that came by `!file` says nothing by itself.
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// A template shows `%%` as one percent sign: the two are compared without any.
fn plain(text: &str) -> String {
    text.replace('%', "")
}

/// The name of what is referred to.
fn name<'a>(reference: &ConfigReference, config: &'a Config) -> Option<&'a str> {
    Some(match reference {
        ConfigReference::Upstream(index) => &config.upstreams.get(*index)?.name,
        ConfigReference::Issuer(index) => &config.jwt.get(*index)?.name,
        ConfigReference::Authorizer(index) => &config.authorizers.get(*index)?.name,
    })
}

#[cfg(test)]
mod tests;
