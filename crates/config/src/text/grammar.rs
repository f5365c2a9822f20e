//! The parts of which the patterns of [`notations`](super::notations) are made, each under a name in braces.
//!
//! They use only what every engine of regular expressions has: an editor's is JavaScript's, other validators have RE2.

use super::{header, retry};
use crate::model::{LogField, RetryOn};

/// Each with the parts that it is made of behind it.
const PARTS: &[(&str, &str)] = &[
    // One of the numbers has a digit above zero.
    ("POSITIVE", "({DURATION})?({ABOVE_0})({DURATION})?"),
    (
        "ABOVE_0",
        r"0*[1-9]([0-9]{0,13}{FRACTION}us|[0-9]{0,10}{FRACTION}ms|[0-9]{0,7}{FRACTION}s|[0-9]{0,5}{FRACTION}m|[0-9]{0,3}{FRACTION}h)|0*([1-9][0-9]?|[12][0-9]{2}|3[0-5][0-9]|36[0-6]){FRACTION}d|0*\.[0-9]*[1-9][0-9]*(us|ms|s|m|h|d)",
    ),
    // No more digits than 366 days have.
    ("DURATION", "({US}|{MS}|{S}|{M}|{H}|{D})+"),
    ("US", r"({DIGITS}{1,14}{FRACTION}|\.[0-9]+)us"),
    ("MS", r"({DIGITS}{1,11}{FRACTION}|\.[0-9]+)ms"),
    ("S", r"({DIGITS}{1,8}{FRACTION}|\.[0-9]+)s"),
    ("M", r"({DIGITS}{1,6}{FRACTION}|\.[0-9]+)m"),
    ("H", r"({DIGITS}{1,4}{FRACTION}|\.[0-9]+)h"),
    ("D", r"(0*([0-2]?[0-9]{1,2}|3[0-5][0-9]|36[0-6]){FRACTION}|\.[0-9]+)d"),
    (
        "SIZE",
        r"{DIGITS}{1,10}(\.0*)?\s*B?|{DIGITS}{0,7}{FRACTION}\s*{KILO}|{DIGITS}{0,4}{FRACTION}\s*{MEGA}|{DIGITS}?{FRACTION}\s*{GIGA}",
    ),
    (
        "HEAD_SIZE",
        r"{DIGITS}{4,8}(\.0*)?\s*B?|0*([89]|[1-9][0-9]{1,4}){FRACTION}\s*{KILO}|0*(1[0-6]|[0-9])?{FRACTION}\s*{MEGA}|0*{FRACTION}\s*{GIGA}",
    ),
    (
        "WINDOW_SIZE",
        r"{DIGITS}{5,10}(\.0*)?\s*B?|0*(6[3-9]|[7-9][0-9]|[1-9][0-9]{2,6}){FRACTION}\s*{KILO}|{DIGITS}{0,4}{FRACTION}\s*{MEGA}|0*[0-2]?{FRACTION}\s*{GIGA}",
    ),
    ("KILO", "(kB|KB|KiB)"),
    ("MEGA", "(MB|MiB)"),
    ("GIGA", "(GB|GiB)"),
    ("PERCENT", r"0*(100(\.0*)?|[0-9]{1,2}(\.[0-9]*)?|\.[0-9]+)%"),
    ("FRACTION", r"(\.[0-9]*)?"),
    ("DIGITS", "0*[0-9]"),
    (
        "IDENTITY",
        r"(subject:\s*[0-9A-Za-z.]+\s*={ANY}|[0-9A-Za-z+.-]+://[^/*]+(/([^*/]*|\*))*(/\*\*)?|(dns:)?(\*\.)?({NAME}|{IPV4}|{IPV6}))",
    ),
    ("SOCKET", r"(\*|localhost|{IPV4}|\[{IPV6}\])?:{PORT}"),
    // A path in a socket's address has at most 103 bytes; `//` stands only before an absolute path.
    ("UNIX_PATH", r"(///[^\x00]{0,102}|/([^/\x00][^\x00]{0,101})?|[^/\x00][^\x00]{0,102})"),
    ("NETWORK", r"({NETWORK_V4}|{IPV6}(/{PREFIX})?|\[({IPV4}|{IPV6})(/{PREFIX})?\](/{PREFIX})?)"),
    ("NETWORK_V4", r"{IPV4}(/\+?0*(3[0-2]|[12]?[0-9]))?"),
    ("PREFIX", r"\+?0*(12[0-8]|1[01][0-9]|[1-9]?[0-9])"),
    ("HOST", r"({NAME}|{IPV4}|\[{IPV6}\])"),
    // One of the labels is more than digits: what looks like an IPv4 address has to be one.
    ("NAME", r"({LABEL}\.)*[0-9]{0,62}[A-Za-z_-][0-9A-Za-z_-]{0,62}(\.{LABEL})*\.?"),
    ("LABEL", "[0-9A-Za-z_-]{1,63}"),
    ("DNS_LABEL", "[0-9a-z]([0-9a-z-]{0,61}[0-9a-z])?"),
    ("SPOKEN", r"(\+(https?|h2c|tcp|tls))?"),
    ("IPV6", r"([0-9A-Fa-f]{0,4}:){2,8}([0-9A-Fa-f]{1,4}|{IPV4})?"),
    ("IPV4", r"{OCTET}(\.{OCTET}){3}"),
    ("OCTET", "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"),
    ("PORT", "0*([0-9]{1,4}|{PORT_OF_5})"),
    ("PORT_ABOVE_0", "0*([1-9][0-9]{0,3}|{PORT_OF_5})"),
    ("PORT_OF_5", "[1-5][0-9]{4}|6([0-4][0-9]{3}|5([0-4][0-9]{2}|5([0-2][0-9]|3[0-5])))"),
    // RFC 9110 section 5.6.2.
    ("TOKEN", r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"),
    ("METHOD", r"[!#$%&'*+.^_`|~0-9A-Z-]+"),
    ("MEDIA", "[!#$&^_.+0-9A-Za-z-]"),
    // Without `/`, `*` and braces.
    ("PATH_CHARACTER", r"[!$-)+-.0-;=@-\[\]_a-z~]"),
    // All control characters but the tab, which may stand in a field's value.
    ("CONTROL", r"\x00-\x08\x0a-\x1f\x7f"),
    ("ANY", "{ANY_CHARACTER}*"),
    ("ANY_CHARACTER", r"[\s\S]"),
];

/// A pattern of [`notations`](super::notations) with its parts filled in, without anchors.
pub(crate) fn expand(pattern: &str) -> String {
    let words = |words: &mut dyn Iterator<Item = &str>| {
        words.map(|word| word.replace('.', r"\.")).collect::<Vec<_>>().join("|")
    };
    let mut all = pattern
        .replace("{VARIABLE}", r"({VARIABLE_WORD}|request\.header\.{TOKEN}|capture\.[^}]+)")
        .replace("{VARIABLE_WORD}", &words(&mut header::variable_words()))
        .replace("{LOG_FIELD}", r"({LOG_WORD}|(request|response)\.header\.{TOKEN})")
        .replace("{LOG_WORD}", &words(&mut LogField::WORDS.iter().map(|(word, _)| *word)))
        .replace("{RETRY_WORD}", &words(&mut RetryOn::WORDS.iter().map(|(word, _)| *word)))
        .replace("{GRPC_STATUS}", &words(&mut retry::GRPC.into_iter().skip(1)));
    for (name, part) in PARTS {
        all = all.replace(&format!("{{{name}}}"), part);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::all;

    #[test]
    fn every_part_is_filled_in() {
        let name = regex::Regex::new(r"\{[A-Z]").unwrap();
        for syntax in all() {
            let pattern = expand(syntax.pattern);
            assert!(!pattern.is_empty() && !name.is_match(&pattern), "{}: {pattern}", syntax.format);
        }
    }
}
