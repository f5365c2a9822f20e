//! What the schema tells an editor about texts with their own syntax: a pattern, and bounds if they may be numbers.
//!
//! Rule: a pattern never refuses what the parser of the format takes, so an editor marks nothing that is right. It may let pass what only
//! the parser can tell (an IPv4 address with a part above 255); [`parse`](crate::parse) and `attache check` have the last word.
//!
//! A value may also be `${VAR}`, which is filled in before anything is read, or `!file PATH`, of which an editor sees the path. So
//! `${` anywhere, and a text that begins like a path, pass every pattern.

use serde_json::{Value, json};

const NUMBER: &str = r"([0-9]+\.?[0-9]*|\.[0-9]+)";
const PERCENT: &str = r"0*(100(\.0*)?|[0-9]{1,2}(\.[0-9]*)?|\.[0-9]+)%";
const IPV4: &str = r"[0-9]{1,3}(\.[0-9]{1,3}){3}";
const IPV6: &str = r"\[[0-9A-Fa-f:.]+\]";
/// Without brackets: at least two colons tell it from an address with a port.
const PLAIN_IPV6: &str = r"[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*";
/// 0 to 65535.
const PORT: &str = r"0*([0-9]{1,4}|[1-5][0-9]{4}|6([0-4][0-9]{3}|5([0-4][0-9]{2}|5([0-2][0-9]|3[0-5]))))";
const NAME: &str = "[0-9A-Za-z_.-]+";
const TOKEN: &str = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+";

/// What is filled in before a value is read.
const SUBSTITUTED: &str = r"\$\{|^\.{0,2}/";

/// The pattern of what the parser takes, without its anchors; `None` where there is none that helps.
fn syntax(format: &str) -> Option<String> {
    let duration = || format!("({NUMBER}(us|ms|s|m|h|d))+");
    // One of the numbers has a digit above zero.
    let positive = || {
        let above = r"([0-9]*[1-9][0-9]*\.?[0-9]*|[0-9]*\.[0-9]*[1-9][0-9]*)";
        format!("({NUMBER}(us|ms|s|m|h|d))*{above}(us|ms|s|m|h|d)({NUMBER}(us|ms|s|m|h|d))*")
    };
    let host_port = || format!("({NAME}|{IPV6})(:{PORT})?");
    let size = || format!(r"{NUMBER}\s*(B|kB|KB|MB|GB|KiB|MiB|GiB)?");
    let socket = || format!(r"(\*|localhost|{IPV4}|{IPV6})?:{PORT}");
    let network = || r"[0-9A-Fa-f:.*/+\[\]]+".to_owned();
    Some(match format.strip_prefix("attache-")? {
        "duration" => format!("0|{}", duration()),
        "positive-duration" => positive(),
        "window" => duration(),
        "duration-or-off" => format!("0|off|{}", duration()),
        "size" | "head-size" | "window-size" => size(),
        "ratio" => format!(r"{PERCENT}|0*(1(\.0*)?|0(\.[0-9]*)?|\.[0-9]+)"),
        "weight" => format!(r"{PERCENT}|\+?[0-9]+"),
        "rate" => r"\+?[0-9]+/[smh]".to_owned(),
        "hedge" => format!("off|p{NUMBER}|0|{}", duration()),
        "bind" => format!("unix:.+|{}", socket()),
        "address-or-off" => format!("off|{}", socket()),
        "loopback-address-or-off" => format!(r"off|unix:.+|(localhost|127\.[0-9.]+|{IPV6})?:{PORT}"),
        "dns-server" => format!("{IPV4}(:{PORT})?|{PLAIN_IPV6}|{IPV6}(:{PORT})?"),
        "ip" => format!("{IPV4}|{PLAIN_IPV6}"),
        "network" | "address-range" => network(),
        "upstream-address" => format!(
            r"authority|original-destination|(https?|h2c|tcp|tls)://{}/?|(unix|srv|kubernetes)(\+[a-z0-9]+)?:.+",
            host_port()
        ),
        "host" => format!("{NAME}|{PLAIN_IPV6}"),
        "host-port" => host_port(),
        "host-rewrite" => format!("preserve|keep|upstream|{}", host_port()),
        "host-pattern" => format!(r"(\*|(\*\.)?{NAME}|{NAME}\.\*|{IPV6})(:{PORT})?"),
        "path-pattern" => r"\*|/[^?#]*|~.*".to_owned(),
        "name" => "[0-9A-Za-z][0-9A-Za-z_./-]*".to_owned(),
        "origin" => r"\*|null|~.*|[a-z][a-z0-9+.-]*://[^/\s]+".to_owned(),
        "log-target" => "off|stdout|syslog|[^:]*/.*|[^/]*:/?([^/].*)?".to_owned(),
        "header-name" | "header-names" | "method-or-all" => TOKEN.to_owned(),
        "method" => TOKEN.replace("A-Za-z", "A-Z"),
        "content-type" => ".*/.*".to_owned(),
        "statuses" => r"\+?0*[1-5](xx|[0-9]{2}(-\+?0*[1-5][0-9]{2})?)".to_owned(),
        "retry-on" => {
            let words = "connect-failure|refused-stream|reset-before-headers|reset|5xx|gateway-error";
            format!(r"{words}|\+?0*[45][0-9]{{2}}|header:.+|grpc:.+")
        }
        "hash-key" => "source|path|header:.+|cookie:.+".to_owned(),
        "limit-key" => "route|client|identity|header:.+".to_owned(),
        "redirect-scheme" => "https?".to_owned(),
        "path" => r"[/{][^?#]*".to_owned(),
        "metrics-path" => "/[^?#]+".to_owned(),
        "json-pointer" => "(/.*)?".to_owned(),
        "metric-name" => "[A-Za-z_][A-Za-z0-9_]*".to_owned(),
        "otlp" => "off|https?://.+".to_owned(),
        "app-url" => "http://.+".to_owned(),
        "spki-pin" => "sha256/+[0-9A-Za-z+/]{42,44}=*|(:*[0-9A-Fa-f]){64}:*".to_owned(),
        "file-mode" => r"(0o)?\+?[0-7]+".to_owned(),
        "star" => r"\*".to_owned(),
        _ => return None,
    })
}

/// Keywords for a text of this format; `numbers`: a YAML number is allowed, too.
fn keywords(format: &str, numbers: bool) -> Vec<(&'static str, Value)> {
    let mut keywords = Vec::new();
    if let Some(syntax) = syntax(format) {
        keywords.push(("pattern", json!(format!("^({syntax})$|{SUBSTITUTED}"))));
    }
    let bounds = match format {
        // A duration without a unit is zero, or a mistake.
        "attache-duration" | "attache-duration-or-off" => Some((0_u64, 0_u64)),
        "attache-size" => Some((0, 1 << 30)),
        "attache-head-size" => Some((8 << 10, 16 << 20)),
        "attache-window-size" => Some((65_535, (1 << 31) - 1)),
        "attache-ratio" => Some((0, 1)),
        "attache-weight" => Some((0, 1_000_000)),
        "attache-statuses" => Some((100, 599)),
        "attache-retry-on" => Some((400, 599)),
        _ => None,
    };
    if let Some((low, high)) = bounds.filter(|_| numbers) {
        keywords.extend([("minimum", json!(low)), ("maximum", json!(high))]);
    }
    keywords
}

/// Adds what an editor can check to a schema, and lets `${VAR}` stand for a number, a word or a truth value.
pub(crate) fn for_editors(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(for_editors),
        Value::Object(object) => {
            if let Some(format) = object.get("format").and_then(Value::as_str).map(str::to_owned) {
                let numbers = object.get("type").and_then(Value::as_array).is_some_and(|all| all.len() > 1);
                // What has only a format is a schema of names (`propertyNames`), which are read as they stand.
                let names = !object.contains_key("type");
                if let Some(syntax) = syntax(&format).filter(|_| names) {
                    object.insert("pattern".to_owned(), json!(format!("^({syntax})$")));
                } else if !names {
                    let found = keywords(&format, numbers);
                    object.extend(found.into_iter().map(|(key, value)| (key.to_owned(), value)));
                }
            }
            let all_words = |of: &Value| {
                let words = |one: &Value| one.get("const").is_some() || one.get("enum").is_some();
                of.as_array().is_some_and(|all| all.iter().all(words))
            };
            let word = object.contains_key("enum") || object.get("oneOf").is_some_and(all_words);
            for (key, value) in object.iter_mut() {
                let data =
                    matches!(key.as_str(), "default" | "examples" | "enum" | "const" | "required" | "type");
                if !(data || word && key == "oneOf") {
                    for_editors(value);
                }
            }
            let number =
                matches!(object.get("type").and_then(Value::as_str), Some("integer" | "number" | "boolean"));
            if number || word || object.contains_key("const") {
                substitutable(object);
            }
        }
        _ => {}
    }
}

/// `{ "const": "off" }` becomes an alternative of that and `${VAR}`. What describes the key stays outside.
fn substitutable(object: &mut serde_json::Map<String, Value>) {
    let mut inner = serde_json::Map::new();
    for key in
        ["type", "const", "enum", "oneOf", "minimum", "maximum", "exclusiveMinimum", "multipleOf", "format"]
    {
        if let Some(value) = object.remove(key) {
            inner.insert(key.to_owned(), value);
        }
    }
    let text = json!({ "type": "string", "pattern": r"\$\{" });
    object.insert("anyOf".to_owned(), json!([inner, text]));
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;
    use crate::text::{all_texts, parser_of};

    fn pattern(format: &str) -> Option<Regex> {
        let pattern = keywords(format, false).into_iter().find(|(key, _)| *key == "pattern")?.1;
        Some(Regex::new(pattern.as_str().unwrap()).unwrap())
    }

    #[test]
    fn wrong_texts_are_refused_as_the_parser_refuses_them() {
        for (format, wrong) in [
            ("attache-positive-duration", &["fast", "5", "5x", "-5s", "5 s", "", "s", "0s", "0.0ms"][..]),
            ("attache-duration", &["5", "1e9s", "off"]),
            ("attache-duration-or-off", &["never", "5"]),
            ("attache-size", &["64Ki", "big", "1 GiBs", "-1"]),
            ("attache-ratio", &["120%", "1.5", "half", "-1%", "20 %"]),
            ("attache-weight", &["120%", "half", "-1"]),
            ("attache-rate", &["100", "100/d", "100 per second"]),
            ("attache-hedge", &["p", "fast", "95%"]),
            (
                "attache-bind",
                &["15001", "example.com:1", "http://x:1", "127.0.0.1", ":65536", "127.0.0.1:70000"],
            ),
            ("attache-address-or-off", &["15090", "none", "on"]),
            ("attache-loopback-address-or-off", &["0.0.0.0:15000", "10.0.0.1:1", "15000"]),
            ("attache-dns-server", &["dns.test", "10.0.0"]),
            ("attache-ip", &["host", "10.0.0.1:80"]),
            ("attache-network", &["everywhere", "10.0.0.0/x"]),
            (
                "attache-upstream-address",
                &[
                    "orders:80",
                    "ftp://a",
                    "localhost",
                    "http://a/v1",
                    "http://a?b",
                    "http://u@a",
                    "http://a b",
                    "http://a:99999",
                ],
            ),
            ("attache-host", &["a b", "http://a", "a/b", ""]),
            ("attache-host-port", &["a/b", "a:b", "a:65536"]),
            ("attache-host-rewrite", &["http://a", "a/b"]),
            ("attache-host-pattern", &["http://a", "*.*.test", "a*b", "a/b"]),
            ("attache-path-pattern", &["v1", "a/b", "v1?x"]),
            ("attache-name", &["", "a b", "-a", "ä"]),
            ("attache-origin", &["shop.test", "https://a/b", "HTTP://a"]),
            ("attache-log-target", &["access.log", "kafka://x", "warnings"]),
            ("attache-spki-pin", &["abc", "sha256/abc"]),
            ("attache-header-name", &["x tenant", "x:y", ""]),
            ("attache-method", &["get", "GET POST"]),
            ("attache-statuses", &["6xx", "99", "5x", "ok"]),
            ("attache-retry-on", &["500s", "timeout", "200"]),
            ("attache-hash-key", &["ip", "header"]),
            ("attache-path", &["v2", "a?b"]),
            ("attache-otlp", &["collector:4317", "grpc://x"]),
            ("attache-file-mode", &["0999", "rw"]),
        ] {
            let (pattern, parse) = (pattern(format).unwrap(), parser_of(format).unwrap());
            for text in wrong {
                assert!(parse(text).is_err(), "{format}: {text}");
                assert!(!pattern.is_match(text), "{format}: {text}");
            }
        }
    }

    #[test]
    fn what_is_filled_in_passes() {
        for (format, _) in all_texts() {
            if let Some(pattern) = pattern(format) {
                for text in ["${TIMEOUT}", "a${B}c", "${A:-5s}", "/run/secret", "./value", "../value"] {
                    assert!(pattern.is_match(text), "{format}: {text}");
                }
            }
        }
    }

    proptest::proptest! {
        /// Examples with a character put in, taken out or changed are right often enough to mean something.
        #[test]
        fn no_text_that_is_right_is_refused(
            index in 0usize..64, example in 0usize..8, at in 0usize..24, how in 0u8..3, c in "[-+.:/0-9a-zA-Z%*_\\[\\] ]",
            random in "[-+.:/0-9a-fsmhdKMGiBp%\\[\\]]{0,12}",
        ) {
            let formats = all_texts();
            let (format, examples) = formats[index % formats.len()];
            let mut text: Vec<char> = examples.get(example % examples.len().max(1)).unwrap_or(&"").chars().collect();
            let at = at.min(text.len());
            match how {
                0 => text.insert(at, c.chars().next().unwrap()),
                1 if at < text.len() => { text.remove(at); }
                _ if at < text.len() => text[at] = c.chars().next().unwrap(),
                _ => {}
            }
            if let Some(pattern) = pattern(format) {
                for text in [text.into_iter().collect::<String>(), random] {
                    let right = parser_of(format).unwrap()(&text).is_ok();
                    proptest::prop_assert!(!right || pattern.is_match(&text), "{}: {:?}", format, text);
                }
            }
        }
    }
}
