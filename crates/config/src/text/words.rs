//! Names, fingerprints, and other small texts.

use std::{path::PathBuf, sync::Arc};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::HeaderName;

use super::{HeaderText, Text, Unit, Wrong, host_name, split_port, wrong};
use crate::model::{HashKey, HostRewrite, LimitKey, Name};

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

/// A secret that others are derived from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SecretText(pub(crate) Name);

impl SecretText {
    /// 16 bytes in hex, 24 in base64: fewer characters can be guessed.
    const SHORTEST: usize = 32;
}

impl Text for SecretText {
    const FORMAT: &'static str = "attache-secret";
    const WHAT: &'static str = "a secret of 32 characters or more";
    const EXAMPLES: &'static [&'static str] = &[];

    fn parse(text: &str) -> Result<Self, Wrong> {
        // The text itself is in no message.
        if text.len() < Self::SHORTEST {
            return wrong(
                "this secret is shorter than 32 characters",
                "`openssl rand -base64 32 > FILE` makes one, and `!file FILE` reads it",
            );
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
    const WHAT: &'static str = "`preserve`, `upstream` or a host";
    const EXAMPLES: &'static [&'static str] = &["preserve", "upstream", "orders.internal"];

    fn parse(text: &str) -> Result<Self, Wrong> {
        Ok(Self(match text {
            "upstream" => HostRewrite::Upstream,
            "preserve" | "keep" => HostRewrite::Preserve,
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

/// Bytes to send or to expect: plain text, or `hex:` and digits.
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

pub(super) fn header(name: &str) -> Result<HeaderName, Wrong> {
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

impl Unit for Hash {
    type Value = HashKey;

    fn value(self) -> HashKey {
        self.0
    }

    fn show(value: &HashKey) -> String {
        match value {
            HashKey::Header(name) => format!("header:{name}"),
            HashKey::Cookie(name) => format!("cookie:{name}"),
            HashKey::Source => "source".to_owned(),
            HashKey::Path => "path".to_owned(),
        }
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

/// With padding or without. Some programs leave bits of the last letter set that belong to no byte.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

impl Text for Pin {
    const FORMAT: &'static str = "attache-spki-pin";
    const WHAT: &'static str = "the SHA-256 of a public key";
    const EXAMPLES: &'static [&'static str] = &["sha256/r/mIkG3eEpVdm+u/ko/cwxzOMo1bk4TyHIlByibiA5E="];

    fn parse(text: &str) -> Result<Self, Wrong> {
        let bytes = match text.strip_prefix("sha256/") {
            // curl writes two slashes; one may also be the first of the 43 letters.
            Some(base64) => [Some(base64), base64.strip_prefix('/')]
                .into_iter()
                .flatten()
                .find_map(|text| BASE64.decode(text).ok().filter(|bytes| bytes.len() == 32)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_may_begin_with_the_letter_that_separates() {
        let pin = Pin::parse("sha256//mIkG3eEpVdm+u/ko/cwxzOMo1bk4TyHIlByibiA5Ea=").unwrap();
        assert_eq!(pin.0[0], 0xfe);
        // As curl writes it.
        let [one, two] = ["sha256/", "sha256//"].map(|begin| {
            Pin::parse(&format!("{begin}r/mIkG3eEpVdm+u/ko/cwxzOMo1bk4TyHIlByibiA5E=")).unwrap()
        });
        assert_eq!(one, two);
    }

    #[test]
    fn a_pin_reads_the_same_in_hex_and_base64() {
        let hex = "affcc8906dde12955d9bebbf928fdcc31ccce328d5b9384f21c8941ca6e20391";
        let hex = Pin::parse(hex).unwrap().0;
        let base64 = Pin::parse("sha256/r/zIkG3eEpVdm+u/ko/cwxzM4yjVuThPIciUHKbiA5E=").unwrap().0;
        assert_eq!(hex, base64);
        assert!(Pin::parse("abc").is_err());
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
