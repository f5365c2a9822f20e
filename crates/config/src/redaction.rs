//! How the effective config shows a value, and what it hides.

use serde_json::{Map, Value};

/// What is shown in place of a secret.
pub(crate) const HIDDEN: &str = "(hidden)";

/// A header whose name contains one of these words holds a credential.
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

/// True if a header with this name usually holds a credential: nothing may show its value.
pub fn names_a_credential(name: &str) -> bool {
    // `:authority` names the destination of a request, and no credential.
    !name.contains("authority") && CREDENTIALS.iter().any(|word| name.contains(word))
}

/// Another part of the config, which is shown by its name.
pub(crate) enum ConfigReference {
    Upstream(usize),
    Issuer(usize),
    Authorizer(usize),
}

impl ConfigReference {
    /// No text of a config begins with this character.
    const MARK: char = '\0';

    /// The placeholder for it until the whole config is known.
    pub(crate) fn show(&self) -> Value {
        let (kind, index) = match self {
            Self::Upstream(index) => ('u', index),
            Self::Issuer(index) => ('j', index),
            Self::Authorizer(index) => ('a', index),
        };
        format!("{}{kind}{index}", Self::MARK).into()
    }

    /// The reference that a text stands for, if any.
    pub(crate) fn of(text: &str) -> Option<Self> {
        let text = text.strip_prefix(Self::MARK)?;
        let index = text.get(1..)?.parse().ok()?;
        match text.as_bytes().first()? {
            b'u' => Some(Self::Upstream(index)),
            b'j' => Some(Self::Issuer(index)),
            b'a' => Some(Self::Authorizer(index)),
            _ => None,
        }
    }
}

/// Removes keys without a value; for `shows` of a section.
pub(crate) fn only_given<S>(_: &S, shown: &mut Map<String, Value>) {
    shown.retain(|_, value| match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
        _ => true,
    });
}

/// A query may carry a key.
pub(crate) fn without_query(path: &str) -> String {
    path.split_once('?').map_or_else(|| path.to_owned(), |(path, _)| format!("{path}?{HIDDEN}"))
}
