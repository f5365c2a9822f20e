//! Names, fingerprints, and other small texts.

use std::{path::PathBuf, sync::Arc};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::{
    NotationError,
    address::{host_name, split_port},
    header, wrong,
};
use crate::model::{HashKey, HostRewrite, LimitKey, Name};

pub(super) fn label(text: &str) -> Result<Name, NotationError> {
    let right = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.len() <= 100
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
    if right {
        Ok(text.into())
    } else if text.contains("://") {
        wrong(
            "{} isn't a name",
            format!("give the address a name in `upstreams`: `NAME: {text}`, and write the name here"),
        )
    } else {
        wrong("{} isn't a name", "letters, digits, `-`, `_`, `.` and `/`, the first a letter or digit")
    }
}

pub(super) fn word(text: &str) -> Result<Name, NotationError> {
    if text.is_empty() {
        wrong("this text is empty", "write at least one character")
    } else {
        Ok(text.into())
    }
}

/// A protocol of `Upgrade` (RFC 9110 section 7.8), in lower case.
pub(super) fn upgrade(text: &str) -> Result<Name, NotationError> {
    const SIGNS: &[u8] = b"!#$%&'*+-.^_`|~";
    let token = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || SIGNS.contains(&b))
    };
    let (name, version) = text.split_once('/').map_or((text, None), |(name, version)| (name, Some(version)));
    if !token(name) || version.is_some_and(|version| !token(version)) {
        return wrong(
            "{} isn't a protocol of `Upgrade`",
            "a name, such as `websocket`, or a name and a version: `foo/2`",
        );
    }
    if ["any", "off", "ignore"].contains(&text) {
        return wrong(
            "{} is not a protocol, and must be the only word",
            format!("`upgrades: {text}`, without a list"),
        );
    }
    if has_requests(name) {
        return wrong(
            "{} is never allowed: routes and rules could not see the requests inside of it",
            "remove it; HTTP/2 needs no upgrade",
        );
    }
    if name.eq_ignore_ascii_case("connect") {
        return wrong(
            "{} is a method, and no protocol of `Upgrade`",
            "a route with `match: { methods: CONNECT }` takes tunnels",
        );
    }
    Ok(text.to_ascii_lowercase().into())
}

/// A protocol of `Upgrade` that carries requests which routes and rules can't see.
pub fn has_requests(name: &str) -> bool {
    ["h2c", "h2", "http", "https", "tls"].iter().any(|other| name.eq_ignore_ascii_case(other))
}

pub(super) fn user(text: &str) -> Result<Name, NotationError> {
    // RFC 7617 section 2.
    if text.is_empty() || text.contains(|c: char| c == ':' || c.is_control()) {
        return wrong("{} isn't a user", "a name without a colon");
    }
    Ok(text.into())
}

pub(super) fn secret(text: &str) -> Result<Name, NotationError> {
    // 16 bytes in hex, 24 in base64: fewer characters can be guessed.
    const MIN_BYTES: usize = 32;
    // No message shows the text itself.
    if text.len() < MIN_BYTES {
        return wrong(
            "this secret is shorter than 32 characters",
            "`openssl rand -base64 32 > FILE` makes one, and `!file FILE` reads it",
        );
    }
    Ok(text.into())
}

pub(super) fn file(text: &str) -> Result<PathBuf, NotationError> {
    if text.contains("-----BEGIN") {
        return wrong("this is the text of a certificate or key", "the path of the file that holds it");
    }
    if text.is_empty() || text.contains('\0') {
        return wrong("{} isn't a path", "such as `/certs/tls.crt`");
    }
    Ok(text.into())
}

pub(super) fn pem(text: &str) -> Result<Name, NotationError> {
    if text.contains("-----BEGIN CERTIFICATE-----") {
        Ok(text.into())
    } else {
        wrong(
            "there is no certificate in this text",
            "PEM text, which begins with `-----BEGIN CERTIFICATE-----`; a file is named by `ca`",
        )
    }
}

pub(super) fn socket_mode(text: &str) -> Result<u32, NotationError> {
    match u32::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => wrong("{} isn't a file mode", "octal, such as `0660`"),
    }
}

/// A host name or IP address.
pub(super) fn host(text: &str) -> Result<Name, NotationError> {
    if text.contains(':') && text.parse::<std::net::IpAddr>().is_err() {
        return wrong("{} isn't a host name", "the name alone, without scheme and port");
    }
    host_name(text)
}

pub(super) fn host_and_port(text: &str) -> Result<Name, NotationError> {
    let (host, port) = split_port(text)?;
    let name = host_name(host)?;
    let name = if name.contains(':') { format!("[{name}]") } else { name.to_string() };
    Ok(port.map_or_else(|| name.clone(), |port| format!("{name}:{port}")).into())
}

pub(super) fn host_rewrite(text: &str) -> Result<HostRewrite, NotationError> {
    Ok(match text {
        "upstream" => HostRewrite::Upstream,
        "preserve" | "keep" => HostRewrite::Preserve,
        host => HostRewrite::To(host_and_port(host)?),
    })
}

pub(super) fn redirect_scheme(text: &str) -> Result<Name, NotationError> {
    match text {
        "http" | "https" => Ok(text.into()),
        _ => wrong("{} isn't a scheme of a redirect", "`http` or `https`"),
    }
}

pub(super) fn path(text: &str) -> Result<Name, NotationError> {
    if !text.starts_with(['/', '{']) {
        return wrong("{} isn't a path", format!("a path begins with `/`: `/{text}`?"));
    }
    if text.contains('?') {
        return wrong("{} has a query", "the request's own query is kept");
    }
    if let Some(c) = text
        .chars()
        .find(|c| !c.is_ascii_graphic() || matches!(c, '#' | '"' | '<' | '>' | '\\' | '^' | '`' | '|'))
    {
        return wrong(
            format!("{{}} has a `{c}`, which a path can't have"),
            "percent-encode it, such as `%20` for a space",
        );
    }
    if named_captures(text).is_none() {
        return wrong("{} has braces that don't pair", "`{name}` inserts a capture");
    }
    Ok(text.into())
}

/// The names in the braces of a path; `None` if they don't pair.
pub(crate) fn named_captures(text: &str) -> Option<Vec<&str>> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}')?;
        if before.contains('}') || name.contains('{') || name.is_empty() {
            return None;
        }
        names.push(name);
        rest = after;
    }
    if rest.contains('}') { None } else { Some(names) }
}

pub(super) fn octets(text: &str) -> Result<Arc<[u8]>, NotationError> {
    // A health check sends and expects only short messages.
    const BYTE_LIMIT: usize = 4096;
    let bytes = match text.strip_prefix("hex:") {
        None => text.as_bytes().to_vec(),
        Some(digits) => match decode_hex(digits) {
            Some(bytes) => bytes,
            None => {
                return wrong("{} isn't hexadecimal", "two digits for each byte, such as `hex:0d0a`");
            }
        },
    };
    match bytes.len() {
        0 => wrong("there are no bytes here", "text, or `hex:` and hexadecimal digits"),
        BYTE_LIMIT.. => {
            wrong("these are more than 4095 bytes", "a health check sends and expects short messages")
        }
        _ => Ok(bytes.into()),
    }
}

pub(super) fn hash_key(text: &str) -> Result<HashKey, NotationError> {
    Ok(match text {
        "source" => HashKey::Source,
        "path" => HashKey::Path,
        _ => match text.split_once(':') {
            Some(("header", name)) => HashKey::Header(header::name_in(name)?),
            Some(("cookie", name))
                if !name.is_empty()
                    && name.bytes().all(|b| b.is_ascii_graphic() && !b"=;,\"".contains(&b)) =>
            {
                HashKey::Cookie(name.into())
            }
            _ => return wrong("{} can't be hashed", "`header:NAME`, `cookie:NAME`, `source` or `path`"),
        },
    })
}

pub(super) fn limit_key(text: &str) -> Result<LimitKey, NotationError> {
    Ok(match text {
        "route" => LimitKey::Route,
        "client" => LimitKey::Client,
        "identity" => LimitKey::Identity,
        _ => match text.strip_prefix("header:") {
            Some(name) => LimitKey::Header(header::name_in(name)?),
            None => {
                return wrong("{} can't be counted by", "`route`, `client`, `identity` or `header:NAME`");
            }
        },
    })
}

/// Trusted authorities: a file, or one of two words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Authority {
    System,
    Spiffe,
    File(PathBuf),
}

pub(super) fn authority(text: &str) -> Result<Authority, NotationError> {
    match text {
        "system" => Ok(Authority::System),
        "spiffe" => Ok(Authority::Spiffe),
        _ => file(text).map(Authority::File),
    }
}

/// With padding or without. Some programs leave bits of the last letter set that belong to no byte.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

pub(super) fn pin(text: &str) -> Result<[u8; 32], NotationError> {
    let bytes = match text.strip_prefix("sha256/") {
        // curl writes two slashes; one may also be the first of the 43 letters.
        Some(base64) => [Some(base64), base64.strip_prefix('/')]
            .into_iter()
            .flatten()
            .find_map(|text| BASE64.decode(text).ok().filter(|bytes| bytes.len() == 32)),
        None => decode_hex(text),
    };
    match bytes.and_then(|bytes| bytes.try_into().ok()) {
        Some(pin) => Ok(pin),
        None => {
            wrong("{} isn't a SHA-256", "64 hexadecimal digits, or `sha256/` and 44 characters of base64")
        }
    }
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| *c != ':')
        .map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_may_begin_with_the_letter_that_separates() {
        let other = pin("sha256//mIkG3eEpVdm+u/ko/cwxzOMo1bk4TyHIlByibiA5Ea=").unwrap();
        assert_eq!(other[0], 0xfe);
        // As curl writes it.
        let [one, two] = ["sha256/", "sha256//"]
            .map(|begin| pin(&format!("{begin}r/mIkG3eEpVdm+u/ko/cwxzOMo1bk4TyHIlByibiA5E=")).unwrap());
        assert_eq!(one, two);
    }

    #[test]
    fn a_pin_reads_the_same_in_hex_and_base64() {
        let hex = "affcc8906dde12955d9bebbf928fdcc31ccce328d5b9384f21c8941ca6e20391";
        let hex = pin(hex).unwrap();
        let base64 = pin("sha256/r/zIkG3eEpVdm+u/ko/cwxzM4yjVuThPIciUHKbiA5E=").unwrap();
        assert_eq!(hex, base64);
        assert!(pin("abc").is_err());
    }

    #[test]
    fn bytes_are_text_or_hex() {
        assert_eq!(&*octets("PING\r\n").unwrap(), b"PING\r\n");
        assert_eq!(&*octets("hex:00ff").unwrap(), [0, 255]);
        for text in ["", "hex:", "hex:0", "hex:xx", &"x".repeat(4096)] {
            assert!(octets(text).is_err(), "{text}");
        }
    }

    #[test]
    fn braces_pair() {
        assert_eq!(named_captures("/a/{b}/{c}"), Some(vec!["b", "c"]));
        for text in ["{", "}", "{a", "{a}}", "{{a}", "{}"] {
            assert_eq!(named_captures(text), None, "{text}");
        }
    }
}
