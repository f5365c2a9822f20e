//! The config as it is served: every default filled in, in the file's own keys and units, and no secret in it.
//!
//! Rule: what is shown is listed here key by key, so that a new field of the model shows nothing before somebody has decided
//! how. Values that are secret by their place (inline PEM, headers that carry credentials) are replaced here; whatever
//! else came by `!file` is looked for in the finished text and replaced at the end.

mod observe;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::{
    model::{Admin, Config, UpstreamId},
    text::show_duration,
};

/// What stands in place of a secret.
pub(crate) const HIDDEN: &str = "(hidden)";

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
            "access_log": observe::access_log(&self.access_log),
            "tracing": self.tracing.as_ref().map(observe::tracing),
            "app": observe::app(&self.app),
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
                    *value = reference.name(self).into();
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

/// Something else of the config, which is shown by its name.
pub(crate) enum Reference {
    Upstream(usize),
    Issuer(usize),
    Authorizer(usize),
}

impl Reference {
    /// No text of a config begins so.
    const MARK: char = '\0';

    /// What stands for it until the whole config is there.
    pub(crate) fn show(&self) -> Value {
        let (kind, index) = match self {
            Self::Upstream(index) => ('u', index),
            Self::Issuer(index) => ('j', index),
            Self::Authorizer(index) => ('a', index),
        };
        format!("{}{kind}{index}", Self::MARK).into()
    }

    fn of(text: &str) -> Option<Self> {
        let text = text.strip_prefix(Self::MARK)?;
        let index = text.get(1..)?.parse().ok()?;
        match text.as_bytes().first()? {
            b'u' => Some(Self::Upstream(index)),
            b'j' => Some(Self::Issuer(index)),
            b'a' => Some(Self::Authorizer(index)),
            _ => None,
        }
    }

    fn name<'a>(&self, config: &'a Config) -> Option<&'a str> {
        Some(match self {
            Self::Upstream(index) => &config.upstreams.get(*index)?.name,
            Self::Issuer(index) => &config.jwt.get(*index)?.name,
            Self::Authorizer(index) => &config.authorizers.get(*index)?.name,
        })
    }
}

impl Serialize for UpstreamId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Reference::Upstream(self.0).show().serialize(serializer)
    }
}

/// Leaves out what isn't there; for `shows` of a section.
pub(crate) fn only_given<S>(_: &S, shown: &mut Map<String, Value>) {
    shown.retain(|_, value| match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
        _ => true,
    });
}

fn admin(admin: &Admin) -> String {
    admin.bind.as_ref().map_or("off".to_owned(), ToString::to_string)
}

/// A query may carry a key.
pub(super) fn without_query(path: &str) -> String {
    path.split_once('?').map_or_else(|| path.to_owned(), |(path, _)| format!("{path}?{HIDDEN}"))
}

/// Words of which one in a header's name makes its value a credential.
const CREDENTIALS: &[&str] = &[
    "auth",
    "cookie",
    "token",
    "secret",
    "passw",
    "credential",
    "api-key",
    "apikey",
    "access-key",
    "session",
    "signature",
    "jwt",
    "csrf",
    "xsrf",
    "private",
    "otp",
    "assertion",
    "x-amz-security",
];

/// True if what stands under this header name is a credential by custom: nothing may show it.
pub fn names_a_credential(name: &str) -> bool {
    // `:authority` is where a request goes, not what it may.
    !name.contains("authority") && CREDENTIALS.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests;
