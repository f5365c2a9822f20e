//! A session's cookie is accepted only exactly as attache has written it, with its own name and its own keys.

use std::cell::OnceCell;

use attache_config::model::SessionCookie;
use attache_upstream::{SessionSeal, cookie, session_of};
use attache_wire::Fields;
use http::{HeaderValue, header::COOKIE};

const ENDPOINT: &str = "10.0.0.7:8080";

/// Written once with this key, since `seal` uses another nonce each time.
const GOOD: &str = include_str!("good.cookie");

thread_local! {
    static SEAL: OnceCell<SessionSeal> = const { OnceCell::new() };
}

fn seal() -> SessionSeal {
    let key = vec!["a key that nobody else has, and long".into()];
    SessionSeal::new(&SessionCookie { name: "sid".into(), key, ..SessionCookie::default() })
}

/// Panics if the rule of this module does not hold.
pub fn check(data: &[u8]) {
    let Ok(line) = HeaderValue::from_bytes(data) else { return };
    let mut headers = Fields::new();
    headers.insert(COOKIE, &line);
    let Some(value) = cookie(&headers, "sid") else { return };
    let opened = SEAL.with(|sealed| sealed.get_or_init(seal).open(value));
    assert_eq!(opened, (value == GOOD.as_bytes()).then(|| session_of(ENDPOINT)), "{}", data.escape_ascii());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_valid_cookie_is_accepted() {
        assert_eq!(seal().open(GOOD.as_bytes()), Some(session_of(ENDPOINT)));
        check(format!("a=b; sid={GOOD}; c=d").as_bytes());
    }

    /// `cargo test -p attache-fuzz-checks write -- --ignored` writes a new one.
    #[test]
    #[ignore = "writes a file"]
    fn write() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/good.cookie");
        std::fs::write(file, seal().seal(ENDPOINT).unwrap()).unwrap();
    }
}
