//! Field names that the proxy itself cares about, or that most messages have: each is a small number.
//!
//! The reader looks a name up once, by its length and a few comparisons of eight bytes; from then on it is compared by its number
//! ([`Known`]). A name that isn't in the list is compared by its bytes without case. Nothing is hashed.

use http::HeaderName;

/// A field name of the list below.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Known(u8);

/// What stands in the place of a number where the name is none of the list.
pub(crate) const UNKNOWN: u8 = u8::MAX;

macro_rules! known {
    ($($constant:ident = $name:literal;)*) => {
        #[allow(clippy::upper_case_acronyms, non_camel_case_types, reason = "only counts the list")]
        #[repr(u8)]
        enum Number { $($constant),* }

        $(
            #[doc = concat!("`", $name, "`")]
            pub const $constant: Known = Known(Number::$constant as u8);
        )*

        const TEXTS: &[&str] = &[$($name),*];

        static NAMES: [HeaderName; COUNT] = [$(HeaderName::from_static($name)),*];
    };
}

known! {
    ACCEPT = "accept";
    ACCEPT_ENCODING = "accept-encoding";
    ACCEPT_LANGUAGE = "accept-language";
    ACCEPT_RANGES = "accept-ranges";
    AGE = "age";
    ALLOW = "allow";
    AUTHORIZATION = "authorization";
    B3 = "b3";
    BAGGAGE = "baggage";
    CACHE_CONTROL = "cache-control";
    CONNECTION = "connection";
    CONTENT_ENCODING = "content-encoding";
    CONTENT_LENGTH = "content-length";
    CONTENT_RANGE = "content-range";
    CONTENT_TYPE = "content-type";
    COOKIE = "cookie";
    DATE = "date";
    ETAG = "etag";
    EXPECT = "expect";
    EXPIRES = "expires";
    FORWARDED = "forwarded";
    GRPC_MESSAGE = "grpc-message";
    GRPC_STATUS = "grpc-status";
    GRPC_TIMEOUT = "grpc-timeout";
    HOST = "host";
    HTTP2_SETTINGS = "http2-settings";
    IF_MODIFIED_SINCE = "if-modified-since";
    IF_NONE_MATCH = "if-none-match";
    KEEP_ALIVE = "keep-alive";
    LAST_MODIFIED = "last-modified";
    LOCATION = "location";
    MAX_FORWARDS = "max-forwards";
    ORIGIN = "origin";
    PRIORITY = "priority";
    PROXY_AUTHENTICATE = "proxy-authenticate";
    PROXY_AUTHORIZATION = "proxy-authorization";
    PROXY_CONNECTION = "proxy-connection";
    RANGE = "range";
    REFERER = "referer";
    RETRY_AFTER = "retry-after";
    SEC_FETCH_DEST = "sec-fetch-dest";
    SEC_FETCH_MODE = "sec-fetch-mode";
    SEC_FETCH_SITE = "sec-fetch-site";
    SEC_WEBSOCKET_ACCEPT = "sec-websocket-accept";
    SEC_WEBSOCKET_KEY = "sec-websocket-key";
    SERVER = "server";
    SET_COOKIE = "set-cookie";
    STRICT_TRANSPORT_SECURITY = "strict-transport-security";
    TE = "te";
    TRACEPARENT = "traceparent";
    TRACESTATE = "tracestate";
    TRAILER = "trailer";
    TRANSFER_ENCODING = "transfer-encoding";
    UPGRADE = "upgrade";
    USER_AGENT = "user-agent";
    VARY = "vary";
    VIA = "via";
    WWW_AUTHENTICATE = "www-authenticate";
    X_ATTACHE_REASON = "x-attache-reason";
    X_ATTACHE_UPSTREAM_REASON = "x-attache-upstream-reason";
    X_B3_FLAGS = "x-b3-flags";
    X_B3_PARENTSPANID = "x-b3-parentspanid";
    X_B3_SAMPLED = "x-b3-sampled";
    X_B3_SPANID = "x-b3-spanid";
    X_B3_TRACEID = "x-b3-traceid";
    X_FORWARDED_CLIENT_CERT = "x-forwarded-client-cert";
    X_FORWARDED_FOR = "x-forwarded-for";
    X_FORWARDED_HOST = "x-forwarded-host";
    X_FORWARDED_PROTO = "x-forwarded-proto";
    X_POWERED_BY = "x-powered-by";
    X_REAL_IP = "x-real-ip";
    X_REQUEST_ID = "x-request-id";
}

const COUNT: usize = TEXTS.len();
const LONGEST: usize = 32;

// A set of them is the bits of one `u128`.
const _: () = assert!(COUNT <= 128);

/// The numbers in the order of their names' lengths, and where each length begins.
const BY_LENGTH: ([u8; COUNT], [u8; LONGEST + 2]) = {
    let (mut order, mut begin) = ([0; COUNT], [0; LONGEST + 2]);
    let (mut len, mut at) = (0, 0);
    while len <= LONGEST {
        begin[len] = at as u8;
        let mut i = 0;
        while i < COUNT {
            if TEXTS[i].len() == len {
                order[at] = i as u8;
                at += 1;
            }
            i += 1;
        }
        len += 1;
    }
    begin[LONGEST + 1] = at as u8;
    assert!(at == COUNT, "a name is longer than LONGEST");
    (order, begin)
};

impl Known {
    /// The name in lower case.
    pub const fn as_str(self) -> &'static str {
        TEXTS[self.0 as usize]
    }

    /// The `http` crate's name.
    pub fn to_header_name(self) -> HeaderName {
        NAMES.get(usize::from(self.0)).cloned().unwrap_or(http::header::HOST)
    }

    pub(crate) const fn number(self) -> u8 {
        self.0
    }

    /// Its bit in a set.
    pub(crate) const fn bit(self) -> u128 {
        1 << self.0
    }

    pub(crate) const fn of_number(number: u8) -> Option<Self> {
        if (number as usize) < COUNT { Some(Self(number)) } else { None }
    }

    /// The name among the list, whatever its case. What is found has only bytes that a name may have.
    pub fn of(name: &[u8]) -> Option<Self> {
        let mut first = [0; 8];
        let begin = name.get(..name.len().min(8)).unwrap_or_default();
        first.get_mut(..begin.len())?.copy_from_slice(begin);
        Self::of_words(name, u64::from_le_bytes(first), last_word(name))
    }

    /// The same for a name whose first eight bytes were read already, the first one lowest. Of a shorter one the rest is 0.
    #[inline]
    pub(crate) fn of_words(name: &[u8], first: u64, last: u64) -> Option<Self> {
        let len = name.len();
        let (begin, end) = (*BY_LENGTH.1.get(len)?, *BY_LENGTH.1.get(len + 1)?);
        let (begin, end) = (usize::from(begin), usize::from(end));
        let found = KEYS.get(begin..end)?.iter().position(|key| {
            ((first ^ key.first) & key.first_mask) | ((last ^ key.last) & key.last_mask) == 0
        })?;
        let known = Self(*BY_LENGTH.0.get(begin + found)?);
        // Of a long one, what stands between these words.
        (len <= 16 || is_name(name, known.as_str().as_bytes())).then_some(known)
    }
}

/// The last eight bytes of a name that has as many.
#[inline]
pub(crate) fn last_word(name: &[u8]) -> u64 {
    name.last_chunk().map_or(0, |eight| u64::from_le_bytes(*eight))
}

/// The first and the last eight bytes of a name, and the bits that must be the same: all but that of the case where a letter stands.
struct Key {
    first: u64,
    first_mask: u64,
    last: u64,
    last_mask: u64,
}

const fn mask(word: u64) -> u64 {
    !((word & 0x4040_4040_4040_4040) >> 1)
}

/// In the order of [`BY_LENGTH`].
static KEYS: [Key; COUNT] = {
    let mut keys = [const { Key { first: 0, first_mask: 0, last: 0, last_mask: 0 } }; COUNT];
    let mut at = 0;
    while at < COUNT {
        let text = TEXTS[BY_LENGTH.0[at] as usize].as_bytes();
        let (mut first, mut last) = (0, 0);
        let mut i = 0;
        while i < 8 && i < text.len() {
            first |= (text[i] as u64) << (8 * i);
            if text.len() >= 8 {
                last |= (text[text.len() - 8 + i] as u64) << (8 * i);
            }
            i += 1;
        }
        keys[at] = Key { first, first_mask: mask(first), last, last_mask: mask(last) };
        at += 1;
    }
    keys
};

/// Several names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownSet(u128);

impl KnownSet {
    /// These names.
    pub const fn of(names: &[Known]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < names.len() {
            bits |= names[at].bit();
            at += 1;
        }
        Self(bits)
    }

    pub(crate) const fn bits(self) -> u128 {
        self.0
    }
}

impl From<Known> for HeaderName {
    fn from(known: Known) -> Self {
        known.to_header_name()
    }
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::fmt::Display for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether `name` is `known`, whatever its case. `known` has letters in lower case, digits and `-` alone; `name` may be any bytes. Eight
/// bytes are compared at once: they may differ in the bit of the case where `known` has a letter, and nowhere else.
#[inline]
fn is_name(name: &[u8], known: &[u8]) -> bool {
    let word = |bytes: &[u8], at: usize| {
        bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |eight| u64::from_ne_bytes(*eight))
    };
    let same = |at: usize| {
        let known = word(known, at);
        let case = (known & 0x4040_4040_4040_4040) >> 1;
        (word(name, at) ^ known) & !case == 0
    };
    if name.len() != known.len() {
        return false;
    }
    let Some(last) = name.len().checked_sub(8) else { return name.eq_ignore_ascii_case(known) };
    let mut at = 0;
    while at < last {
        if !same(at) {
            return false;
        }
        at += 8;
    }
    same(last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_known_name_is_found_in_any_case_and_is_the_crate_s_own() {
        for (number, text) in TEXTS.iter().enumerate() {
            let known = Known::of(text.as_bytes()).unwrap();
            assert_eq!(usize::from(known.0), number);
            assert_eq!(known.to_header_name().as_str(), *text);
            assert_eq!(Known::of(text.to_ascii_uppercase().as_bytes()), Some(known));
        }
        for name in ["", "x", "hosts", "x-request-ie", "content-lengtH1", "host\r", "x\rrequest-id"] {
            assert_eq!(Known::of(name.as_bytes()), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn names_are_the_same_in_any_case(name in proptest::collection::vec(any::<u8>(), 0..30), known in "[a-z0-9-]{0,30}", flips in any::<u32>()) {
            prop_assert_eq!(is_name(&name, known.as_bytes()), name.eq_ignore_ascii_case(known.as_bytes()));
            let mut spelt = known.clone().into_bytes();
            for (_, byte) in spelt.iter_mut().enumerate().filter(|(at, _)| flips >> at & 1 == 1) {
                byte.make_ascii_uppercase();
            }
            prop_assert!(is_name(&spelt, known.as_bytes()));
        }

        #[test]
        fn one_other_byte_is_another_name(at in 0_usize..30, byte in any::<u8>(), known in "[a-z0-9-]{1,30}") {
            let mut name = known.clone().into_bytes();
            let at = at % name.len();
            name[at] = byte;
            prop_assert_eq!(is_name(&name, known.as_bytes()), name.eq_ignore_ascii_case(known.as_bytes()));
        }
    }
}
