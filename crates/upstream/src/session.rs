//! The value of a session's cookie: the endpoint of the session, encrypted.
//!
//! **Rule.** The value is AES-256-GCM (RFC 5116) over the hash of the endpoint's address, with a random nonce in front
//! and the cookie's name as associated data, in base64url. So a client learns no address from it, not even by trying
//! all addresses; it can't make a value for an endpoint that it did not get; and two clients can't see that they are at
//! the same endpoint. Any other value counts as no cookie. A client can still give its own cookie to another client: a
//! session doesn't authenticate the client.
//!
//! Each key of the config is a text of 32 characters or more, and its SHA-256 is the cipher's key. Nobody can guess
//! such a text, so a slow key derivation isn't needed.

use std::{fmt, sync::LazyLock};

use attache_config::model::{Name, SessionCookie};
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest::{SHA256, digest},
    rand,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::session_of;

/// Bytes of the hash of an address.
const HASH: usize = 8;
/// Bytes of the authentication tag.
const TAG: usize = 16;
/// Bytes of a value before base64url; `TEXT` is its characters.
const SEALED: usize = NONCE_LEN + HASH + TAG;
const TEXT: usize = SEALED.div_ceil(3) * 4;

/// Makes and reads the values of one cookie.
pub struct SessionSeal {
    name: Name,
    keys: Vec<LessSafeKey>,
}

/// The key of this process, for cookies without a key in the config. If the system gives no random bytes, there is no
/// such key, and so no cookie.
static OWN: LazyLock<Option<[u8; 32]>> = LazyLock::new(|| {
    let mut key = [0; 32];
    rand::fill(&mut key).ok().map(|()| key)
});

impl SessionSeal {
    /// For the cookie's name and keys; without keys in the config, with the key of this process.
    pub fn new(cookie: &SessionCookie) -> Self {
        // 32 bytes are a key of AES-256 in any case.
        let key = |bytes: &[u8]| UnboundKey::new(&AES_256_GCM, bytes).ok().map(LessSafeKey::new);
        let given = cookie.key.iter().filter_map(|text| key(digest(&SHA256, text.as_bytes()).as_ref()));
        let own = OWN.filter(|_| cookie.key.is_empty()).and_then(|own| key(&own));
        Self { name: cookie.name.clone(), keys: given.chain(own).collect() }
    }

    /// The value for an endpoint, by its label. `None` without a key or random bytes: then there is no cookie.
    pub fn seal(&self, endpoint: &str) -> Option<String> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut sealed = Vec::with_capacity(SEALED);
        sealed.extend_from_slice(&nonce);
        let mut hash = session_of(endpoint).to_be_bytes();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.keys.first()?.seal_in_place_separate_tag(nonce, Aad::from(&*self.name), &mut hash);
        sealed.extend_from_slice(&hash);
        sealed.extend_from_slice(tag.ok()?.as_ref());
        Some(BASE64_URL_SAFE_NO_PAD.encode(sealed))
    }

    /// The hash of the endpoint that a value was made for; `None` if none of the keys made it.
    pub fn open(&self, value: &[u8]) -> Option<u64> {
        if value.len() != TEXT {
            return None;
        }
        // The decoder needs room for a whole last group of three bytes.
        let mut sealed = [0; TEXT];
        let len = BASE64_URL_SAFE_NO_PAD.decode_slice(value, &mut sealed).ok()?;
        let (nonce, rest) = sealed.get(..len)?.split_at_checked(NONCE_LEN)?;
        let nonce: [u8; NONCE_LEN] = nonce.try_into().ok()?;
        self.keys.iter().find_map(|key| {
            let mut rest: [u8; HASH + TAG] = rest.try_into().ok()?;
            let nonce = Nonce::assume_unique_for_key(nonce);
            let opened = key.open_in_place(nonce, Aad::from(&*self.name), &mut rest).ok()?;
            Some(u64::from_be_bytes((*opened).try_into().ok()?))
        })
    }
}

/// The keys are never shown.
impl fmt::Debug for SessionSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionSeal({}, {} keys)", self.name, self.keys.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ENDPOINT: &str = "10.0.0.7:8080";

    fn seal(name: &str, keys: &[&str]) -> SessionSeal {
        let key = keys.iter().map(|key| format!("{key:-<32}").into()).collect();
        SessionSeal::new(&SessionCookie { name: name.into(), key, ..SessionCookie::default() })
    }

    #[test]
    fn a_value_is_read_by_its_own_name_and_by_each_key_that_is_still_there() {
        let value = seal("sid", &["one"]).seal(ENDPOINT).unwrap();
        assert_eq!(value.len(), TEXT);
        for (name, keys, read) in [
            ("sid", &["one"][..], true),
            ("sid", &["two", "one"], true),
            ("sid", &["two"], false),
            ("sid", &[], false),
            ("other", &["one"], false),
        ] {
            let found = seal(name, keys).open(value.as_bytes());
            assert_eq!(found, read.then(|| session_of(ENDPOINT)), "{name} {keys:?}");
        }
        let first = seal("sid", &["two", "one"]).seal(ENDPOINT).unwrap();
        assert_eq!(seal("sid", &["one"]).open(first.as_bytes()), None, "the first key encrypts");
    }

    #[test]
    fn without_a_key_in_the_config_only_this_process_can_read_a_session() {
        let value = seal("sid", &[]).seal(ENDPOINT).unwrap();
        assert_eq!(seal("sid", &[]).open(value.as_bytes()), Some(session_of(ENDPOINT)), "after a reload");
        assert_eq!(seal("sid", &["one"]).open(value.as_bytes()), None);
    }

    #[test]
    fn a_value_does_not_show_its_endpoint() {
        let seal = seal("sid", &["one"]);
        let (a, b) = (seal.seal(ENDPOINT).unwrap(), seal.seal(ENDPOINT).unwrap());
        assert_ne!(a, b, "the same endpoint, twice");
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&a).unwrap();
        let hash = session_of(ENDPOINT).to_be_bytes();
        assert!(!bytes.windows(HASH).any(|part| part == hash), "the hash of a guessed address is visible");
    }

    #[test]
    fn a_value_that_attache_has_not_written_is_no_session() {
        let seal = seal("sid", &["one"]);
        let value = seal.seal(ENDPOINT).unwrap();
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&value).unwrap();
        for bit in 0..SEALED * 8 {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(seal.open(BASE64_URL_SAFE_NO_PAD.encode(other).as_bytes()), None, "bit {bit}");
        }
        for other in [
            String::new(),
            format!("{:016x}", session_of(ENDPOINT)),
            ENDPOINT.to_owned(),
            format!("{value}="),
            format!("{value} "),
            format!("\"{value}\""),
            value[1..].to_owned(),
            value.replace(['-', '_'], "+") + "+",
        ] {
            assert_eq!(seal.open(other.as_bytes()), None, "{other}");
        }
        assert_eq!(seal.open(value.as_bytes()), Some(session_of(ENDPOINT)));
    }

    #[test]
    fn no_key_is_shown() {
        assert_eq!(format!("{:?}", seal("sid", &["hunter2"])), "SessionSeal(sid, 1 keys)");
    }

    proptest! {
        #[test]
        fn any_value_is_read_without_panic(value in prop::collection::vec(any::<u8>(), 0..60), text in "[A-Za-z0-9_-]{48}") {
            let seal = seal("sid", &["one"]);
            prop_assert_eq!(seal.open(&value), None);
            prop_assert_eq!(seal.open(text.as_bytes()), None);
        }
    }
}
