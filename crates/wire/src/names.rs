//! The names that most messages are made of, found by their length and without an allocation.
//!
//! `HeaderName::from_bytes` brings a name into lower case and compares it with all that it knows; for one that it doesn't know, such as
//! `traceparent`, it allocates. Here a name of the usual ones is one comparison or two.

use http::{HeaderName, header};

use crate::chars::is_name;

macro_rules! custom {
    ($($constant:ident = $name:literal;)*) => {
        $(const $constant: HeaderName = HeaderName::from_static($name);)*
    };
}

custom! {
    B3 = "b3";
    BAGGAGE = "baggage";
    KEEP_ALIVE = "keep-alive";
    PRIORITY = "priority";
    SEC_FETCH_DEST = "sec-fetch-dest";
    SEC_FETCH_MODE = "sec-fetch-mode";
    SEC_FETCH_SITE = "sec-fetch-site";
    TRACEPARENT = "traceparent";
    TRACESTATE = "tracestate";
    X_FORWARDED_FOR = "x-forwarded-for";
    X_FORWARDED_HOST = "x-forwarded-host";
    X_FORWARDED_PROTO = "x-forwarded-proto";
    X_POWERED_BY = "x-powered-by";
    X_REAL_IP = "x-real-ip";
    X_REQUEST_ID = "x-request-id";
}

/// The names of one length.
macro_rules! names {
    ($($name:expr),*) => {{
        const COUNT: usize = [$(stringify!($name)),*].len();
        static NAMES: [HeaderName; COUNT] = [$($name),*];
        &NAMES
    }};
}

/// The name, if it is one of the usual ones.
#[inline]
pub(crate) fn usual(name: &[u8]) -> Option<HeaderName> {
    let candidates: &'static [HeaderName] = match name.len() {
        2 => names![header::TE, B3],
        3 => names![header::VIA, header::AGE],
        4 => names![header::HOST, header::DATE, header::ETAG, header::VARY],
        5 => names![header::ALLOW, header::RANGE],
        6 => names![header::ACCEPT, header::COOKIE, header::SERVER, header::ORIGIN, header::EXPECT],
        7 => names![header::REFERER, header::UPGRADE, BAGGAGE, header::EXPIRES],
        8 => names![header::LOCATION, PRIORITY],
        9 => names![X_REAL_IP, header::FORWARDED],
        10 => names![header::CONNECTION, header::USER_AGENT, header::SET_COOKIE, TRACESTATE, KEEP_ALIVE],
        11 => names![TRACEPARENT, header::RETRY_AFTER],
        12 => names![header::CONTENT_TYPE, X_REQUEST_ID, X_POWERED_BY],
        13 => names![
            header::AUTHORIZATION,
            header::CACHE_CONTROL,
            header::LAST_MODIFIED,
            header::ACCEPT_RANGES,
            header::IF_NONE_MATCH
        ],
        14 => names![header::CONTENT_LENGTH, SEC_FETCH_DEST, SEC_FETCH_MODE, SEC_FETCH_SITE],
        15 => names![header::ACCEPT_ENCODING, header::ACCEPT_LANGUAGE, X_FORWARDED_FOR],
        16 => names![header::CONTENT_ENCODING, X_FORWARDED_HOST],
        17 => names![header::TRANSFER_ENCODING, X_FORWARDED_PROTO, header::IF_MODIFIED_SINCE],
        _ => &[],
    };
    candidates.iter().find(|usual| is_name(name, usual.as_str().as_bytes())).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usual_name_is_the_crate_s_own_in_any_case() {
        for name in [
            "Host",
            "TE",
            "b3",
            "DATE",
            "user-Agent",
            "X-Request-Id",
            "traceparent",
            "Content-Length",
            "x-forwarded-PROTO",
            "ETag",
            "Transfer-Encoding",
            "Sec-Fetch-Mode",
            "If-None-Match",
        ] {
            let found = usual(name.as_bytes()).unwrap();
            assert_eq!(found, HeaderName::from_bytes(name.as_bytes()).unwrap());
        }
        for name in ["", "x", "hosts", "x-request-ie", "content-lengtH1"] {
            assert_eq!(usual(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn every_usual_name_stands_under_its_length() {
        for name in [
            "sec-fetch-dest",
            "x-forwarded-for",
            "accept-language",
            "if-modified-since",
            "x-powered-by",
            "retry-after",
        ] {
            assert!(usual(name.as_bytes()).is_some(), "{name}");
        }
    }
}
