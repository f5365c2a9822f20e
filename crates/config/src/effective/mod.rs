//! The config as it is served: every default filled in, in the file's own keys and units, and no secret in it.
//!
//! Rule: what is shown is listed here key by key, so that a new field of the model shows nothing before somebody has decided
//! how. Values that are secret by their place (inline PEM, headers that carry credentials) are replaced here; whatever
//! else came by `!file` is looked for in the finished text and replaced at the end.

mod observe;

use serde_json::{Map, Value, json};

use crate::{
    model::{Admin, Config},
    shown::{HIDDEN, Reference},
    text::show_duration,
};

/// A secret shorter than this is replaced only where it is the whole value: as a part it would be found everywhere.
const SHORTEST_PART: usize = 4;

impl Config {
    /// The config as it is served, with every default, for people. No secret is in it.
    pub fn effective(&self) -> Value {
        let mut value = json!({
            "file": self.file.as_ref().map(|file| file.display().to_string()),
            "workers": self.workers,
            "metrics": self.metrics.map_or("off".to_owned(), |at| at.to_string()),
            "admin": admin(&self.admin),
            "access_log": self.access_log,
            "tracing": self.tracing.as_ref().map(observe::tracing),
            "app": self.app,
            "otlp": observe::otlp(&self.otlp),
            "shutdown": self.shutdown,
            "reload": self.reload,
            "watch_interval": show_duration(self.watch_interval),
            "overload": self.overload.as_ref().map_or("off".into(), |overload| json!(overload)),
            "dns": self.dns,
        });
        if let Some(object) = value.as_object_mut() {
            let listeners = self.listeners.iter().map(|l| (l.name.to_string(), json!(l)));
            object.insert("listeners".into(), Value::Object(listeners.collect::<Map<_, _>>()));
            let upstreams = self.upstreams.iter().map(|u| (u.name.to_string(), json!(u)));
            let jwt = self.jwt.iter().map(|p| (p.name.to_string(), json!(p)));
            let authorizers = self.authorizers.iter();
            let authorizers = authorizers.map(|a| (a.name.to_string(), json!(a)));
            object.insert("authorizers".into(), Value::Object(authorizers.collect::<Map<_, _>>()));
            object.insert("jwt".into(), Value::Object(jwt.collect::<Map<_, _>>()));
            object.insert("upstreams".into(), Value::Object(upstreams.collect::<Map<_, _>>()));
        }
        self.finish(&mut value);
        value
    }

    /// Names what is referred to, and replaces whatever came by `!file`.
    fn finish(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Some(reference) = Reference::of(text) {
                    *value = name(&reference, self).into();
                    return;
                }
                for secret in &self.secrets.0 {
                    if **secret == **text {
                        HIDDEN.clone_into(text);
                    } else if secret.len() >= SHORTEST_PART && text.contains(&**secret) {
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
fn name<'a>(reference: &Reference, config: &'a Config) -> Option<&'a str> {
    Some(match reference {
        Reference::Upstream(index) => &config.upstreams.get(*index)?.name,
        Reference::Issuer(index) => &config.jwt.get(*index)?.name,
        Reference::Authorizer(index) => &config.authorizers.get(*index)?.name,
    })
}

fn admin(admin: &Admin) -> String {
    admin.bind.as_ref().map_or("off".to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests;
