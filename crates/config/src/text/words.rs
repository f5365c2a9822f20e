//! Names, conditions, fingerprints, and other small texts.

use std::{fmt, path::PathBuf, sync::Arc};

use http::{HeaderName, StatusCode};

use super::{HeaderText, Positive, Text, Wrong, host_name, show_duration, split_port, wrong};
use crate::{
    model::{HashKey, HedgeAfter, HostRewrite, LimitKey, Name, RetryOn},
    suggest,
};

/// The name of a listener, route or upstream; it becomes a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label(pub(crate) Name);

impl Text for Label {
    const FORMAT: &'static str = "attache-name";
    const WHAT: &'static str = "a name";
    const EXAMPLES: &'static [&'static str] = &["orders"];
    const NUMBERS: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        let right = text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.len() <= 100
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
        if right {
            Ok(Self(text.into()))
        } else {
            wrong("{} isn't a name", "letters, digits, `-`, `_`, `.` and `/`, the first a letter or digit")
        }
    }
}

/// Any text that isn't empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word(pub(crate) Name);

impl Text for Word {
    const FORMAT: &'static str = "attache-text";
    const WHAT: &'static str = "a text";
    const EXAMPLES: &'static [&'static str] = &[];
    const NUMBERS: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.is_empty() {
            wrong("an empty text", "a text that isn't empty")
        } else {
            Ok(Self(text.into()))
        }
    }
}

/// A user of HTTP's Basic scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UserName(pub(crate) Name);

impl Text for UserName {
    const FORMAT: &'static str = "attache-user";
    const WHAT: &'static str = "a user";
    const EXAMPLES: &'static [&'static str] = &["shop"];
    const NUMBERS: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        // RFC 7617 section 2.
        if text.is_empty() || text.contains(|c: char| c == ':' || c.is_control()) {
            return wrong("{} isn't a user", "a name without a colon");
        }
        Ok(Self(text.into()))
    }
}

/// A path of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File(pub(crate) PathBuf);

impl Text for File {
    const FORMAT: &'static str = "attache-file";
    const WHAT: &'static str = "a file";
    const EXAMPLES: &'static [&'static str] = &["/certs/tls.crt"];

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.contains("-----BEGIN") {
            return wrong("this is the text of a certificate or key", "the path of the file that holds it");
        }
        if text.is_empty() || text.contains('\0') {
            return wrong("{} isn't a path", "such as `/certs/tls.crt`");
        }
        Ok(Self(text.into()))
    }
}

/// PEM text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pem(pub(crate) Name);

impl Text for Pem {
    const FORMAT: &'static str = "attache-pem";
    const WHAT: &'static str = "PEM text";
    const EXAMPLES: &'static [&'static str] = &["-----BEGIN CERTIFICATE-----"];

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.contains("-----BEGIN CERTIFICATE-----") {
            Ok(Self(text.into()))
        } else {
            wrong(
                "there is no certificate in this text",
                "PEM text, which begins with `-----BEGIN CERTIFICATE-----`; a file is named by `ca`",
            )
        }
    }
}

/// Mode of a Unix socket, octal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SocketMode(pub(crate) u32);

impl Text for SocketMode {
    const FORMAT: &'static str = "attache-file-mode";
    const WHAT: &'static str = "an octal file mode";
    const EXAMPLES: &'static [&'static str] = &["0660"];
    const NUMBERS: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        match u32::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8) {
            Ok(mode) if mode <= 0o777 => Ok(Self(mode)),
            _ => wrong("{} isn't a file mode", "octal, such as `0660`"),
        }
    }
}

/// A host name or IP address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host(pub(crate) Name);

impl Text for Host {
    const FORMAT: &'static str = "attache-host";
    const WHAT: &'static str = "a host name";
    const EXAMPLES: &'static [&'static str] = &["orders.internal"];

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.contains(':') && text.parse::<std::net::IpAddr>().is_err() {
            return wrong("{} isn't a host name", "the name alone, without scheme and port");
        }
        host_name(text).map(Self)
    }
}

/// A host with or without a port, as in a Host header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostAndPort(pub(crate) Name);

impl Text for HostAndPort {
    const FORMAT: &'static str = "attache-host-port";
    const WHAT: &'static str = "a host, with or without a port";
    const EXAMPLES: &'static [&'static str] = &["orders.internal", "orders.internal:8443"];

    fn parse(text: &str) -> Result<Self, Wrong> {
        let (host, port) = split_port(text)?;
        let name = host_name(host)?;
        let name = if name.contains(':') { format!("[{name}]") } else { name.to_string() };
        Ok(Self(port.map_or_else(|| name.clone(), |port| format!("{name}:{port}")).into()))
    }
}

/// What becomes of the Host header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RewriteHost(pub(crate) HostRewrite);

impl Text for RewriteHost {
    const FORMAT: &'static str = "attache-host-rewrite";
    const WHAT: &'static str = "`upstream`, `keep` or a host";
    const EXAMPLES: &'static [&'static str] = &["upstream", "orders.internal"];

    fn parse(text: &str) -> Result<Self, Wrong> {
        Ok(Self(match text {
            "upstream" => HostRewrite::Upstream,
            "keep" => HostRewrite::Keep,
            host => HostRewrite::To(HostAndPort::parse(host)?.0),
        }))
    }
}

/// The scheme of a redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RedirectScheme(pub(crate) Name);

impl Text for RedirectScheme {
    const FORMAT: &'static str = "attache-redirect-scheme";
    const WHAT: &'static str = "`http` or `https`";
    const EXAMPLES: &'static [&'static str] = &["https"];

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text {
            "http" | "https" => Ok(Self(text.into())),
            _ => wrong("{} isn't a scheme of a redirect", "`http` or `https`"),
        }
    }
}

/// A path that is written into a request, with `{capture}` parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathValue(pub(crate) Name);

impl Text for PathValue {
    const FORMAT: &'static str = "attache-path";
    const WHAT: &'static str = "a path";
    const EXAMPLES: &'static [&'static str] = &["/v2", "/customers/{id}"];

    fn parse(text: &str) -> Result<Self, Wrong> {
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
                format!("{{}} has a `{c}`, which can't stand in a path"),
                "percent-encode it, such as `%20` for a space",
            );
        }
        if named_captures(text).is_none() {
            return wrong("{} has braces that don't pair", "`{name}` inserts a capture");
        }
        Ok(Self(text.into()))
    }
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

/// A condition for another try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition(pub(crate) RetryOn);

/// Codes of gRPC by their number (grpc/doc/statuscodes.md).
const GRPC: [&str; 17] = [
    "ok",
    "cancelled",
    "unknown",
    "invalid-argument",
    "deadline-exceeded",
    "not-found",
    "already-exists",
    "permission-denied",
    "resource-exhausted",
    "failed-precondition",
    "aborted",
    "out-of-range",
    "unimplemented",
    "internal",
    "unavailable",
    "data-loss",
    "unauthenticated",
];

const CONDITIONS: [&str; 6] =
    ["connect-failure", "refused-stream", "reset-before-headers", "reset", "5xx", "gateway-error"];

impl Text for Condition {
    const FORMAT: &'static str = "attache-retry-on";
    const WHAT: &'static str = "a condition";
    const EXAMPLES: &'static [&'static str] =
        &["connect-failure", "503", "header:x-retry", "grpc:unavailable"];
    const NUMBERS: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        Ok(Self(match text {
            "connect-failure" => RetryOn::ConnectFailure,
            "refused-stream" => RetryOn::RefusedStream,
            "reset-before-headers" => RetryOn::ResetBeforeHeaders,
            "reset" => RetryOn::Reset,
            "5xx" => RetryOn::ServerError,
            "gateway-error" => RetryOn::GatewayError,
            _ => {
                if let Some(name) = text.strip_prefix("header:") {
                    return header(name).map(|name| Self(RetryOn::Header(name)));
                }
                if let Some(code) = text.strip_prefix("grpc:") {
                    let number = GRPC
                        .iter()
                        .position(|name| *name == code)
                        .or_else(|| code.parse::<usize>().ok())
                        .filter(|number| (1..GRPC.len()).contains(number));
                    let Some(number) = number else {
                        let help = match suggest::nearest(code, GRPC) {
                            Some(near) => format!("did you mean `grpc:{near}`?"),
                            None => "a number from 1 to 16, or a name such as `grpc:unavailable`".into(),
                        };
                        return wrong(format!("`{code}` isn't a gRPC status that can be retried"), help);
                    };
                    return Ok(Self(RetryOn::GrpcStatus(number as u16)));
                }
                let code = text.parse::<u16>().ok().filter(|code| (400..600).contains(code));
                let Some(status) = code.and_then(|code| StatusCode::from_u16(code).ok()) else {
                    let help = match suggest::nearest(text, CONDITIONS) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!(
                            "{}, a status from 400 to 599, `header:NAME` or `grpc:STATUS`",
                            CONDITIONS.map(|word| format!("`{word}`")).join(", ")
                        ),
                    };
                    return wrong("{} isn't a condition for a retry", help);
                };
                RetryOn::Status(status)
            }
        }))
    }
}

/// A condition as it is written.
impl fmt::Display for RetryOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectFailure => f.write_str("connect-failure"),
            Self::RefusedStream => f.write_str("refused-stream"),
            Self::ResetBeforeHeaders => f.write_str("reset-before-headers"),
            Self::Reset => f.write_str("reset"),
            Self::ServerError => f.write_str("5xx"),
            Self::GatewayError => f.write_str("gateway-error"),
            Self::Status(status) => f.write_str(status.as_str()),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::GrpcStatus(code) => match GRPC.get(usize::from(*code)) {
                Some(name) => write!(f, "grpc:{name}"),
                None => write!(f, "grpc:{code}"),
            },
        }
    }
}

/// When another try is sent beside a slow one; `None` is never.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct HedgeWhen(pub(crate) Option<HedgeAfter>);

impl Text for HedgeWhen {
    const FORMAT: &'static str = "attache-hedge";
    const WHAT: &'static str = "a percentile, a duration, or `off`";
    const EXAMPLES: &'static [&'static str] = &["p95", "50ms", "off"];

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text == "off" {
            return Ok(Self(None));
        }
        let Some(percent) = text.strip_prefix('p') else {
            return Positive::parse(text).map(|time| Self(Some(HedgeAfter::Time(time.0)))).map_err(|wrong| {
                Wrong { help: "a percentile such as `p95`, or a duration such as `50ms`".into(), ..wrong }
            });
        };
        let digits = percent.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        match percent.parse::<f64>() {
            Ok(percent) if digits && (50.0..100.0).contains(&percent) => {
                // Thousandths of a percent, so that p99.9 is 0.999.
                Ok(Self(Some(HedgeAfter::Percentile((percent * 1e3).round() / 1e5))))
            }
            _ => wrong("{} isn't a percentile to hedge after", "from `p50` to `p99.9`"),
        }
    }
}

impl fmt::Display for HedgeAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Thousandths of a percent are what can be told of a share in binary.
            Self::Percentile(share) => write!(f, "p{}", (share * 1e5).round() / 1e3),
            Self::Time(time) => f.write_str(&show_duration(*time)),
        }
    }
}

/// Bytes that are sent, or looked for: text as it is, or `hex:` and digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Octets(pub(crate) Arc<[u8]>);

impl Octets {
    /// Bytes of one; a health check is no transfer.
    const MOST: usize = 4096;
}

impl Text for Octets {
    const FORMAT: &'static str = "attache-bytes";
    const WHAT: &'static str = "text, or bytes as `hex:` and hexadecimal digits";
    const EXAMPLES: &'static [&'static str] = &["\"PING\\r\\n\"", "hex:50494e470d0a"];
    const NUMBERS: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
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
            0 => wrong("these are no bytes", "text, or `hex:` and hexadecimal digits"),
            Self::MOST.. => wrong("these are too many bytes", "fewer than 4096"),
            _ => Ok(Self(bytes.into())),
        }
    }
}

fn header(name: &str) -> Result<HeaderName, Wrong> {
    HeaderText::parse(name)
        .map(|name| name.0)
        .map_err(|wrong| Wrong { what: wrong.what.replace("{}", &format!("`{name}`")), help: wrong.help })
}

/// What a consistent hash is taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hash(pub(crate) HashKey);

impl Text for Hash {
    const FORMAT: &'static str = "attache-hash-key";
    const WHAT: &'static str = "what is hashed";
    const EXAMPLES: &'static [&'static str] = &["header:x-user", "cookie:session", "source", "path"];

    fn parse(text: &str) -> Result<Self, Wrong> {
        Ok(Self(match text {
            "source" => HashKey::Source,
            "path" => HashKey::Path,
            _ => match text.split_once(':') {
                Some(("header", name)) => HashKey::Header(header(name)?),
                Some(("cookie", name))
                    if !name.is_empty()
                        && name.bytes().all(|b| b.is_ascii_graphic() && !b"=;,\"".contains(&b)) =>
                {
                    HashKey::Cookie(name.into())
                }
                _ => return wrong("{} can't be hashed", "`header:NAME`, `cookie:NAME`, `source` or `path`"),
            },
        }))
    }
}

/// What a rate limit counts by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LimitBy(pub(crate) LimitKey);

impl Text for LimitBy {
    const FORMAT: &'static str = "attache-limit-key";
    const WHAT: &'static str = "what is counted by";
    const EXAMPLES: &'static [&'static str] = &["route", "client", "identity", "header:x-tenant"];

    fn parse(text: &str) -> Result<Self, Wrong> {
        Ok(Self(match text {
            "route" => LimitKey::Route,
            "client" => LimitKey::Client,
            "identity" => LimitKey::Identity,
            _ => match text.strip_prefix("header:") {
                Some(name) => LimitKey::Header(header(name)?),
                None => {
                    return wrong("{} can't be counted by", "`route`, `client`, `identity` or `header:NAME`");
                }
            },
        }))
    }
}

/// Who is believed: a file, or one of two words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Authority {
    System,
    Spiffe,
    File(PathBuf),
}

impl Text for Authority {
    const FORMAT: &'static str = "attache-ca";
    const WHAT: &'static str = "a file, `system` or `spiffe`";
    const EXAMPLES: &'static [&'static str] = &["/certs/ca.crt", "system", "spiffe"];

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text {
            "system" => Ok(Self::System),
            "spiffe" => Ok(Self::Spiffe),
            _ => File::parse(text).map(|file| Self::File(file.0)),
        }
    }
}

/// SHA-256 of a SubjectPublicKeyInfo: 64 hexadecimal digits, or `sha256/` and base64 as curl and HPKP write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pin(pub(crate) [u8; 32]);

impl Text for Pin {
    const FORMAT: &'static str = "attache-spki-pin";
    const WHAT: &'static str = "the SHA-256 of a public key";
    const EXAMPLES: &'static [&'static str] = &["sha256/r/mIkG3eEpVdm+u/ko/cwxzOMo1bk4TyHIlByibiA5E="];

    fn parse(text: &str) -> Result<Self, Wrong> {
        let bytes = match text.strip_prefix("sha256/") {
            Some(base64) => decode_base64(base64.trim_start_matches('/').trim_end_matches('=')),
            None => decode_hex(text),
        };
        match bytes.and_then(|bytes| bytes.try_into().ok()) {
            Some(pin) => Ok(Self(pin)),
            None => {
                wrong("{} isn't a SHA-256", "64 hexadecimal digits, or `sha256/` and 44 characters of base64")
            }
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

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::new();
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.bytes() {
        let value = ALPHABET.iter().position(|letter| *letter == byte)? as u32;
        bits = bits << 6 | value;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_reads_the_same_in_hex_and_base64() {
        let hex = "affcc8906dde12955d9bebbf928fdcc31ccce328d5b9384f21c8941ca6e20391";
        let hex = Pin::parse(hex).unwrap().0;
        let base64 = Pin::parse("sha256/r/zIkG3eEpVdm+u/ko/cwxzM4yjVuThPIciUHKbiA5E=").unwrap().0;
        assert_eq!(hex, base64);
        assert!(Pin::parse("abc").is_err());
    }

    #[test]
    fn conditions_are_words_statuses_headers_and_grpc_codes() {
        let condition = |text: &str| Condition::parse(text).unwrap().0;
        assert_eq!(condition("503"), RetryOn::Status(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(condition("grpc:unavailable"), RetryOn::GrpcStatus(14));
        assert_eq!(condition("grpc:14"), RetryOn::GrpcStatus(14));
        assert!(Condition::parse("conect-failure").unwrap_err().help.contains("connect-failure"));
        for text in ["200", "grpc:0", "grpc:99", "header:", "", "5x"] {
            assert!(Condition::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_condition_reads_back_as_it_is_shown() {
        for text in CONDITIONS.into_iter().chain(["503", "header:x-a", "grpc:internal"]) {
            assert_eq!(Condition::parse(text).unwrap().0.to_string(), text);
        }
    }

    #[test]
    fn a_hedge_comes_after_a_percentile_or_a_time() {
        let after = |text: &str| HedgeWhen::parse(text).unwrap().0;
        assert_eq!(after("p99.9").unwrap().to_string(), "p99.9");
        assert_eq!(after("p95"), Some(HedgeAfter::Percentile(0.95)));
        assert_eq!(after("50ms").unwrap().to_string(), "50ms");
        assert_eq!(after("off"), None);
        for text in ["p100", "p49", "p", "p-95", "p1e1", "95", "0s", ""] {
            assert!(HedgeWhen::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_are_text_or_hex() {
        assert_eq!(&*Octets::parse("PING\r\n").unwrap().0, b"PING\r\n");
        assert_eq!(&*Octets::parse("hex:00ff").unwrap().0, [0, 255]);
        for text in ["", "hex:", "hex:0", "hex:xx", &"x".repeat(4096)] {
            assert!(Octets::parse(text).is_err(), "{text}");
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
