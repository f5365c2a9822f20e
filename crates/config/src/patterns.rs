//! Schemas of texts with their own syntax, for editors: a pattern, and bounds if the texts may be numbers.
//!
//! Rule: a pattern never refuses what the parser of the format takes, so an editor marks nothing that is right.
//! [`parse`](crate::parse) and `attache check` have the last word.
//!
//! A value may also be `${VAR}`, which is filled in before anything is read, or `!file PATH`, of which an editor sees the
//! path. So `${` anywhere, and a text that begins like a path, pass every pattern.

use serde_json::{Map, Value, json};

use crate::text::{NumberTexts, Syntax, expand};

/// Keywords for a value with this syntax.
fn keywords(syntax: &Syntax) -> Vec<(&'static str, Value)> {
    // If the syntax itself has paths, a leading `/` doesn't show that the text is the path of a `!file`.
    let has_paths = syntax.examples.iter().any(|example| example.starts_with('/'));
    let path = if has_paths { r"\.{1,2}/" } else { r"\.{0,2}/" };
    let mut keywords = vec![("pattern", json!(format!(r"^({})$|\$\{{|^{path}", expand(syntax.pattern))))];
    if let NumberTexts::From(low, high) = syntax.numbers {
        keywords.extend([("minimum", json!(low)), ("maximum", json!(high))]);
    }
    keywords
}

/// Adds what an editor can check to a schema, and lets `${VAR}` stand for a number, a word or a truth value.
pub(crate) fn for_editors(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(for_editors),
        Value::Object(object) => {
            if let Some(syntax) = object.get("format").and_then(Value::as_str).and_then(Syntax::of) {
                // A schema with a format alone is one of names (`propertyNames`). Variables are not replaced in names.
                if object.contains_key("type") {
                    let found = keywords(syntax).into_iter();
                    object.extend(found.map(|(key, value)| (key.to_owned(), value)));
                } else {
                    object.insert("pattern".to_owned(), json!(format!("^({})$", expand(syntax.pattern))));
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
fn substitutable(object: &mut Map<String, Value>) {
    let mut inner = Map::new();
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
    use crate::text::all;

    fn pattern(syntax: &Syntax) -> Regex {
        let (_, pattern) = &keywords(syntax)[0];
        Regex::new(pattern.as_str().unwrap()).unwrap()
    }

    #[test]
    fn wrong_texts_are_refused_as_the_parser_refuses_them() {
        // The texts of a row are separated by ` | `.
        for (format, wrong) in [
            (
                "attache-positive-duration",
                "fast | 5 | 5x | -5s | 5 s |  | s | 0s | 0.0ms | 367d | 1e9s | off | 400d | 99999d",
            ),
            ("attache-duration", "5 | 1e9s | off"),
            ("attache-duration-or-off", "never | 5"),
            ("attache-size", "64Ki | big | 1 GiBs | -1 | 1.5B | 2000000000000 | 1 XiB | 5GiB5"),
            ("attache-ratio", "120% | 1.5 | half | -1% | 20 % | 101% | 1.1 | -1 | %"),
            ("attache-weight", "120% | half | -1 | 101% | 1000001"),
            ("attache-rate", "100 | 100/d | 100 per second | 0/s | 1/d | 1"),
            ("attache-hedge", "p | fast | 95% | p49 | p100 | 0"),
            (
                "attache-bind",
                "15001 | example.com:1 | http://x:1 | 127.0.0.1 | :65536 | 127.0.0.1:70000 | 1.2.3.4 | 1.2.3.400:1 | a:1 | unix: | unix://a",
            ),
            ("attache-address-or-off", "15090 | none | on"),
            (
                "attache-loopback-address-or-off",
                "0.0.0.0:15000 | 10.0.0.1:1 | 15000 | 0.0.0.0:1 | 1.2.3.4:1 | [::2]:1",
            ),
            ("attache-dns-server", "dns.test | 10.0.0 | a | 1.2.3 | 1.2.3.4:99999"),
            ("attache-ip", "host | 10.0.0.1:80"),
            (
                "attache-network",
                "everywhere | 10.0.0.0/x | 10.0.0.0/33 | fd00::/129 | 10.0.0.256 | 10.0.0.0/8:80 | x | 10.0.0.0/",
            ),
            (
                "attache-upstream-address",
                "orders:80 | ftp://a | localhost | http://a/v1 | http://a?b | http://u@a | http://a b | http://a:99999 | tcp://a | tls://a | tcp://a:0 | http://a:0 | http://a:65536 | http://1.2.3.256 | http://1.2.3 | http://a..b | kubernetes://a:b | srv://a.b.c | unix+x:/a | HTTP://a | http://a/b | unix: | http:// | http://a:",
            ),
            ("attache-host", "a b | http://a | a/b | "),
            ("attache-host-port", "a/b | a:b | a:65536"),
            ("attache-host-rewrite", "http://a | a/b"),
            ("attache-host-pattern", "http://a | *.*.test | a*b | a/b | *.* | a:0 | a:65536 |  | *."),
            ("attache-path-pattern", "v1 | a/b | v1?x | a | /a?b | /a* | /*/x | /a b | /{} | /x{a} | /a#"),
            ("attache-name", " | a b | -a"),
            (
                "attache-origin",
                "shop.test | https://a/b | HTTP://a | a | https://A | https://a:70000 | https://*",
            ),
            ("attache-log-target", "access.log | kafka://x | warnings"),
            ("attache-spki-pin", "abc | sha256/abc"),
            ("attache-header-name", "x tenant | x:y | "),
            ("attache-method", "get | GET POST | G T"),
            ("attache-statuses", "6xx | 99 | 5x | ok | 600 | 0xx"),
            (
                "attache-retry-on",
                "500s | timeout | 200 | grpc:ok | grpc:0 | grpc:17 | 399 | 600 | header:a b",
            ),
            ("attache-hash-key", "ip | header | cookie: | cookie:a;b | header:a b"),
            ("attache-path", "v2 | a?b | a | /a? | /{a | /a b | /}"),
            (
                "attache-otlp",
                "collector:4317 | grpc://x | c:1 | http://a@b | http://a?b | ftp://a | http://a:99999",
            ),
            ("attache-address-range", ":0 | :65536 | 10.0.0.0/33:80 | * |  | 10.0.0.0/8:0"),
            ("attache-head-size", "4KiB | 100 | 32MiB | 8"),
            ("attache-window-size", "10KiB | 3GiB | 100"),
            (
                "attache-san-pattern",
                "spiffe://*/a | spiffe://d/a* | spiffe://d/**/a | a b | subject: | subject:CN",
            ),
            ("attache-template", "%{x} | a\nb | %{request.header.a b} | %{route"),
            ("attache-log-template", "%{x} | a\nb | %{status"),
            ("attache-value-pattern", "a*b | *a* | !a*b"),
            ("attache-syslog", "udp:// | http://a | udp://a:99999"),
            ("attache-token-place", "x | cookie: | header: | cookie:a b"),
            ("attache-bytes", " | hex: | hex:0 | hex:xx"),
            ("attache-secret", "short"),
            ("attache-media-types", "a | * | a/ | text/*/x*"),
            ("attache-metric-name", "1a | a-b"),
            ("attache-app-url", "https://127.0.0.1 | http://app | http://127.0.0.1:99999"),
            ("attache-file-mode", "0999 | rw | 0888 | 01000"),
        ] {
            let syntax = Syntax::of(format).unwrap();
            let pattern = pattern(syntax);
            for text in wrong.split(" | ") {
                assert!((syntax.check)(text).is_err(), "{format}: {text}");
                assert!(!pattern.is_match(text), "{format}: {text}");
            }
        }
    }

    #[test]
    fn a_variable_and_the_path_of_a_file_pass_every_pattern() {
        for syntax in all() {
            let pattern = pattern(syntax);
            for text in ["${TIMEOUT}", "a${B}c", "${A:-5s}", "/run/secret", "./value", "../value"] {
                assert!(pattern.is_match(text), "{}: {text}", syntax.format);
            }
        }
    }

    proptest::proptest! {
        /// Examples with one character inserted, removed or changed are still valid often enough for a useful test.
        #[test]
        fn no_text_that_is_right_is_refused(
            index in 0usize..64, example in 0usize..12, at in 0usize..24, how in 0u8..3, c in "[-+.:/0-9a-zA-Z%*_\\[\\]{} ]",
            random in "[-+.:/0-9a-fsmhdKMGiBp%\\[\\]]{0,12}",
        ) {
            let syntax = all().nth(index % all().count()).unwrap();
            let examples = syntax.examples;
            let mut text: Vec<char> = examples.get(example % examples.len().max(1)).unwrap_or(&"").chars().collect();
            let at = at.min(text.len());
            match how {
                0 => text.insert(at, c.chars().next().unwrap()),
                1 if at < text.len() => { text.remove(at); }
                _ if at < text.len() => text[at] = c.chars().next().unwrap(),
                _ => {}
            }
            let pattern = pattern(syntax);
            for text in [text.into_iter().collect::<String>(), random] {
                let right = (syntax.check)(&text).is_ok();
                proptest::prop_assert!(!right || pattern.is_match(&text), "{}: {:?}", syntax.format, text);
            }
        }
    }
}
