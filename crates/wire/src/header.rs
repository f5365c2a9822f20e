//! The names of fields that attache uses itself or that most messages contain. Each has a small number.
//!
//! The reader looks a name up once, by its length and a few comparisons of eight bytes. From then on it is compared by its number
//! ([`KnownName`]). A name that isn't in the list is compared by its bytes, without case. Nothing is hashed.

use http::HeaderName;

/// A field name of the list below.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KnownName(u8);

/// The number of a name that is not in the list.
pub(crate) const UNKNOWN: u8 = u8::MAX;

macro_rules! known {
    ($($constant:ident = $name:literal;)*) => {
        #[allow(clippy::upper_case_acronyms, non_camel_case_types, reason = "only counts the list")]
        #[repr(u8)]
        enum Number { $($constant),* }

        $(
            #[doc = concat!("`", $name, "`")]
            pub const $constant: KnownName = KnownName(Number::$constant as u8);
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
    X_HTTP_METHOD = "x-http-method";
    X_HTTP_METHOD_OVERRIDE = "x-http-method-override";
    X_METHOD_OVERRIDE = "x-method-override";
    X_ORIGINAL_URL = "x-original-url";
    X_POWERED_BY = "x-powered-by";
    X_REAL_IP = "x-real-ip";
    X_REQUEST_ID = "x-request-id";
    X_REWRITE_URL = "x-rewrite-url";
}

const COUNT: usize = TEXTS.len();

// A set of names is stored as the bits of one `u128`.
const _: () = assert!(COUNT <= 128);

impl KnownName {
    /// The name in lower case.
    pub const fn as_str(self) -> &'static str {
        TEXTS[self.0 as usize]
    }

    /// The name as the `http` crate's type.
    pub fn to_header_name(self) -> HeaderName {
        NAMES.get(usize::from(self.0)).cloned().unwrap_or(http::header::HOST)
    }

    /// Its place in the list.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Its bit in a set.
    pub(crate) const fn bit(self) -> u128 {
        1 << self.0
    }

    pub(crate) const fn of_number(number: u8) -> Option<Self> {
        if (number as usize) < COUNT { Some(Self(number)) } else { None }
    }

    /// Finds a name in the list, in any case of letters. A name that is found contains only bytes that names may contain.
    #[inline]
    pub fn of(name: &[u8]) -> Option<Self> {
        let (first, last) = words(name)?;
        let number = *PLACES.get(place(first, last))?;
        let key = KEYS.get(usize::from(number))?;
        let differs = ((first ^ key.first) & mask(key.first)) | ((last ^ key.last) & mask(key.last));
        if differs != 0 || key.len != name.len() {
            return None;
        }
        let known = Self(number);
        // The two words cover the first and the last eight bytes; a longer name is compared as a whole.
        (key.len <= 16 || is_name(name, known.as_str().as_bytes())).then_some(known)
    }
}

/// The first and the last eight bytes of a name, the first byte lowest. For a name of eight bytes or fewer, the rest is 0 and the second
/// word equals the first.
#[inline]
fn words(name: &[u8]) -> Option<(u64, u64)> {
    if let (Some(first), Some(last)) = (name.first_chunk(), name.last_chunk()) {
        return Some((u64::from_le_bytes(*first), u64::from_le_bytes(*last)));
    }
    // A name of four to seven bytes is read as two halves that overlap; a shorter one byte by byte.
    let short = if let (Some(first), Some(last)) = (name.first_chunk(), name.last_chunk()) {
        let last = u64::from(u32::from_le_bytes(*last));
        u64::from(u32::from_le_bytes(*first)) | last << (8 * (name.len() - 4))
    } else {
        name.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
    };
    (short != 0).then_some((short, short))
}

/// A name of the list.
struct NameKey {
    first: u64,
    last: u64,
    len: usize,
}

/// The bits of a word that must be equal: all except the bit for the case of each letter.
#[inline]
const fn mask(word: u64) -> u64 {
    !((word & 0x4040_4040_4040_4040) >> 1)
}

static KEYS: [NameKey; COUNT] = {
    let mut keys = [const { NameKey { first: 0, last: 0, len: 0 } }; COUNT];
    let mut number = 0;
    while number < COUNT {
        let text = TEXTS[number].as_bytes();
        let (mut first, mut last) = (0, 0);
        let mut i = 0;
        while i < 8 && i < text.len() {
            first |= (text[i] as u64) << (8 * i);
            if text.len() >= 8 {
                last |= (text[text.len() - 8 + i] as u64) << (8 * i);
            }
            i += 1;
        }
        keys[number] = NameKey { first, last: if text.len() >= 8 { last } else { first }, len: text.len() };
        number += 1;
    }
    keys
};

/// The size of the hash table of names, as a power of two. With so many places the search for the factor below ends soon.
const BITS: u32 = 9;

/// The place in the table for a name of the list, in any case of letters.
#[inline]
const fn place(first: u64, last: u64) -> usize {
    place_by(first, last, FACTOR)
}

#[inline]
const fn place_by(first: u64, last: u64, factor: u64) -> usize {
    // The bit for the case. It is set in lower-case letters, and also in digits and hyphens, which have no case.
    const CASE: u64 = 0x2020_2020_2020_2020;
    let mixed = (first | CASE) ^ (last | CASE).rotate_left(29);
    (mixed.wrapping_mul(factor) >> (64 - BITS)) as usize
}

/// A factor that gives each name a place of its own. The compiler searches for it.
const FACTOR: u64 = {
    // 2^64 over the golden ratio (Knuth, TAOCP 6.4), then any odd numbers.
    let mut factor: u64 = 0x9e37_79b9_7f4a_7c15;
    while !is_perfect(factor) {
        factor = factor.wrapping_mul(0x5851_f42d_4c95_7f2d) | 1;
    }
    factor
};

const fn is_perfect(factor: u64) -> bool {
    let mut taken = [false; 1 << BITS];
    let mut number = 0;
    while number < COUNT {
        let at = place_by(KEYS[number].first, KEYS[number].last, factor);
        if taken[at] {
            return false;
        }
        taken[at] = true;
        number += 1;
    }
    true
}

/// For each place, the number of the name that may be there.
static PLACES: [u8; 1 << BITS] = {
    let mut places = [UNKNOWN; 1 << BITS];
    let mut number = 0;
    while number < COUNT {
        places[place(KEYS[number].first, KEYS[number].last)] = number as u8;
        number += 1;
    }
    places
};

/// A set of names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownSet(u128);

impl KnownSet {
    /// The set of these names.
    pub const fn of(names: &[KnownName]) -> Self {
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

impl From<KnownName> for HeaderName {
    fn from(known: KnownName) -> Self {
        known.to_header_name()
    }
}

impl std::fmt::Debug for KnownName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::fmt::Display for KnownName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether `name` is `known`, in any case of letters. `known` contains only lower-case letters, digits and `-`; `name` may be any bytes.
/// Eight bytes are compared at once. They may differ only in the bit for the case, and only where `known` has a letter.
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
            let known = KnownName::of(text.as_bytes()).unwrap();
            assert_eq!(usize::from(known.0), number);
            assert_eq!(known.to_header_name().as_str(), *text);
            assert_eq!(KnownName::of(text.to_ascii_uppercase().as_bytes()), Some(known));
            for at in 0..text.len() {
                let mut other = text.as_bytes().to_vec();
                other[at] ^= 1;
                assert_ne!(KnownName::of(&other), Some(known), "byte {at} of {text}");
            }
        }
        for name in ["", "x", "hosts", "x-request-ie", "content-lengtH1", "host\r", "x\rrequest-id"] {
            assert_eq!(KnownName::of(name.as_bytes()), None, "{name}");
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
