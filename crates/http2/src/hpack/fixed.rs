//! The static table (RFC 7541 Appendix A).

use attache_wire::header;

use super::{Field, Pseudo, Tag};

/// How many entries the static table has.
pub(super) const COUNT: usize = 61;

/// An entry: the tag of its name, the name, the value.
type StaticEntry = (Tag, &'static str, &'static str);

static ENTRIES: [StaticEntry; COUNT] = [
    (Tag::Pseudo(Pseudo::Authority), ":authority", ""),
    (Tag::Pseudo(Pseudo::Method), ":method", "GET"),
    (Tag::Pseudo(Pseudo::Method), ":method", "POST"),
    (Tag::Pseudo(Pseudo::Path), ":path", "/"),
    (Tag::Pseudo(Pseudo::Path), ":path", "/index.html"),
    (Tag::Pseudo(Pseudo::Scheme), ":scheme", "http"),
    (Tag::Pseudo(Pseudo::Scheme), ":scheme", "https"),
    (Tag::Pseudo(Pseudo::Status), ":status", "200"),
    (Tag::Pseudo(Pseudo::Status), ":status", "204"),
    (Tag::Pseudo(Pseudo::Status), ":status", "206"),
    (Tag::Pseudo(Pseudo::Status), ":status", "304"),
    (Tag::Pseudo(Pseudo::Status), ":status", "400"),
    (Tag::Pseudo(Pseudo::Status), ":status", "404"),
    (Tag::Pseudo(Pseudo::Status), ":status", "500"),
    (Tag::Other, "accept-charset", ""),
    (Tag::Known(header::ACCEPT_ENCODING), "accept-encoding", "gzip, deflate"),
    (Tag::Known(header::ACCEPT_LANGUAGE), "accept-language", ""),
    (Tag::Known(header::ACCEPT_RANGES), "accept-ranges", ""),
    (Tag::Known(header::ACCEPT), "accept", ""),
    (Tag::Other, "access-control-allow-origin", ""),
    (Tag::Known(header::AGE), "age", ""),
    (Tag::Known(header::ALLOW), "allow", ""),
    (Tag::Known(header::AUTHORIZATION), "authorization", ""),
    (Tag::Known(header::CACHE_CONTROL), "cache-control", ""),
    (Tag::Other, "content-disposition", ""),
    (Tag::Known(header::CONTENT_ENCODING), "content-encoding", ""),
    (Tag::Other, "content-language", ""),
    (Tag::Known(header::CONTENT_LENGTH), "content-length", ""),
    (Tag::Other, "content-location", ""),
    (Tag::Known(header::CONTENT_RANGE), "content-range", ""),
    (Tag::Known(header::CONTENT_TYPE), "content-type", ""),
    (Tag::Known(header::COOKIE), "cookie", ""),
    (Tag::Known(header::DATE), "date", ""),
    (Tag::Known(header::ETAG), "etag", ""),
    (Tag::Known(header::EXPECT), "expect", ""),
    (Tag::Known(header::EXPIRES), "expires", ""),
    (Tag::Other, "from", ""),
    (Tag::Known(header::HOST), "host", ""),
    (Tag::Other, "if-match", ""),
    (Tag::Known(header::IF_MODIFIED_SINCE), "if-modified-since", ""),
    (Tag::Known(header::IF_NONE_MATCH), "if-none-match", ""),
    (Tag::Other, "if-range", ""),
    (Tag::Other, "if-unmodified-since", ""),
    (Tag::Known(header::LAST_MODIFIED), "last-modified", ""),
    (Tag::Other, "link", ""),
    (Tag::Known(header::LOCATION), "location", ""),
    (Tag::Known(header::MAX_FORWARDS), "max-forwards", ""),
    (Tag::Known(header::PROXY_AUTHENTICATE), "proxy-authenticate", ""),
    (Tag::Known(header::PROXY_AUTHORIZATION), "proxy-authorization", ""),
    (Tag::Known(header::RANGE), "range", ""),
    (Tag::Known(header::REFERER), "referer", ""),
    (Tag::Other, "refresh", ""),
    (Tag::Known(header::RETRY_AFTER), "retry-after", ""),
    (Tag::Known(header::SERVER), "server", ""),
    (Tag::Known(header::SET_COOKIE), "set-cookie", ""),
    (Tag::Known(header::STRICT_TRANSPORT_SECURITY), "strict-transport-security", ""),
    (Tag::Known(header::TRANSFER_ENCODING), "transfer-encoding", ""),
    (Tag::Known(header::USER_AGENT), "user-agent", ""),
    (Tag::Known(header::VARY), "vary", ""),
    (Tag::Known(header::VIA), "via", ""),
    (Tag::Known(header::WWW_AUTHENTICATE), "www-authenticate", ""),
];

/// The entry with this index, counted from 1.
#[inline]
pub(super) fn entry(index: usize) -> Option<Field<'static>> {
    let (tag, name, value) = ENTRIES.get(index.checked_sub(1)?)?;
    Some(Field { tag: *tag, name: name.as_bytes(), value: value.as_bytes(), sensitive: false })
}

/// The index of each known name, or 0 for a name without an entry.
static OF_KNOWN: [u8; 128] = {
    let mut indices = [0; 128];
    let mut at = 0;
    while at < COUNT {
        if let Tag::Known(known) = ENTRIES[at].0 {
            indices[known.number() as usize] = at as u8 + 1;
        }
        at += 1;
    }
    indices
};

/// The index of a name, or 0.
pub(super) fn index_of(tag: Tag, name: &[u8]) -> usize {
    match tag {
        Tag::Known(known) => OF_KNOWN.get(usize::from(known.number())).copied().unwrap_or(0).into(),
        Tag::Pseudo(Pseudo::Authority) => 1,
        Tag::Pseudo(Pseudo::Method) => 2,
        Tag::Pseudo(Pseudo::Path) => 4,
        Tag::Pseudo(Pseudo::Scheme) => 6,
        Tag::Pseudo(Pseudo::Status) => 8,
        Tag::Pseudo(Pseudo::Protocol | Pseudo::Unknown) => 0,
        // Few names of the table are not in our list, and few messages have them.
        Tag::Other => match name {
            b"access-control-allow-origin" => 20,
            b"content-disposition" => 25,
            b"content-language" => 27,
            b"link" => 45,
            _ => 0,
        },
    }
}
