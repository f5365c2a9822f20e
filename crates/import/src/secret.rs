//! A random secret, for a key that attache needs and the original does not have.

use std::{fmt::Write as _, fs::File, io::Read, sync::OnceLock};

use crate::value::YamlMap;

/// 32 bytes from the system's random generator in hexadecimal digits, the same for the whole process. `None` if the
/// system provides none.
fn drawn() -> Option<&'static str> {
    static DRAWN: OnceLock<Option<String>> = OnceLock::new();
    let draw = || {
        let mut bytes = [0_u8; 32];
        File::open("/dev/urandom").ok()?.read_exact(&mut bytes).ok()?;
        let mut out = String::with_capacity(64);
        for byte in bytes {
            // Writing to a String never fails.
            let _ = write!(out, "{byte:02x}");
        }
        Some(out)
    };
    DRAWN.get_or_init(draw).as_deref()
}

/// The remark about the secret of a session's cookie.
pub(crate) const KEY_REMARK: &str = "the import chose a random `key` for the session's cookie: keep this file secret, or write `${SESSION_KEY}`.";

/// A session's cookie of this name. `None` without a secret to encrypt it with.
pub(crate) fn session(name: &str) -> Option<YamlMap> {
    let mut map = YamlMap::default();
    map.set("name", name);
    map.set("key", drawn()?);
    Some(map)
}
