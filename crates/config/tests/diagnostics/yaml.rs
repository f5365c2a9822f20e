//! Texts that aren't YAML, configs of other programs, missing files; and how a line is shown.

use super::found;

#[test]
fn a_text_that_is_not_yaml_is_reported() {
    let text = r#"upstreams:
  orders: https://orders.internal
	database: tcp://db:5432
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml:3:1: error: not valid YAML: while scanning a plain scalar, found a tab
  3 |  database: tcp://db:5432
    | ^ here is a tab: YAML is indented with spaces
"#);
}

#[test]
fn another_language_is_no_config() {
    let text = r#"<?xml version="1.0"?>
<config><listen port="80"/></config>
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml: error: this is XML or HTML, not a config of attache
  `attache schema` describes a config of attache; the smallest is `upstreams: { orders: https://orders.internal:8443 }`
"#);
}

#[test]
fn slips_of_indentation_spaces_and_quotes_are_named() {
    const DEEPER: &str = "lines that belong to a key are indented deeper than the key";
    for (text, help) in [
        ("listeners:\n  o:\n  bind: :1\n  to: a\nupstreams:\n  a: http://b\n", DEEPER),
        ("listeners:\no:\n  bind: :1\nupstreams:\n  a: http://b\n", DEEPER),
        ("upstreams:\n  a:\n  address: http://b\n", DEEPER),
        (
            "listeners:\n  o:\n    bind: :1\n    routes:\n      - match:\n        path: /x\n        to: a\nupstreams:\n  a: http://b\n",
            DEEPER,
        ),
        ("upstreams:\n  a:http://b\n", "write a space behind the colon: `a: http://b`"),
        ("upstreams:\n  a: { address:http://b }\n", "write a space behind the colon: `address: http://b`"),
        (
            "listeners:\n  o:\n    bind: :1\n    routes:\n      -to: a\nupstreams:\n  a: http://b\n",
            "write a space behind the dash: `- to`",
        ),
        ("upstreams\n  a: http://b\n", "is a colon missing at the end of this line?"),
        ("upstreams:\n  a: \"http://b\n", "a quote is opened here and not closed"),
        ("upstreams: { a: 'http://b }\n", "a quote is opened here and not closed"),
        (
            "upstreams: { a: { address: 'https://b', tls: { ca: \"C:\\certs\\ca.crt\" } } }\n",
            r#"in `"…"` a `\` begins an escape: write the value in `'…'`"#,
        ),
        // The key above has no value, and could have this one.
        ("upstreams:\norders: http://b\n", "if it belongs to `upstreams:` above, indent it deeper"),
        (
            "listeners:\n  o:\n    bind: :1\n    tls:\n    certificate: c\n    key: k\n    to: a\nupstreams: { a: 'http://b' }\n",
            "^^^ if it belongs to `tls:` above, indent it deeper",
        ),
        // A key of a section where a name stands.
        (
            "listeners:\n  o:\n    bind: :1\n  routes:\n    - to: a\nupstreams: { a: 'http://b' }\n",
            "`routes` is a key of a listener: indent it deeper than the name",
        ),
        (
            "upstreams:\n  a: http://b\n  timeout: 5s\n",
            "`timeout` is a key of an upstream: indent it deeper than the name",
        ),
        (
            "listeners:\n  o:\n    bind: :1\n    routes:\n      - match: { path: /x }\n      to: a\nupstreams: { a: 'http://b' }\n",
            "indent this line like the item's first key, behind the dash",
        ),
        ("listeners:\n  - name: o\n    bind: :1\nupstreams: { a: 'http://b' }\n", "without a dash: `o: …`"),
        // Characters that only look right.
        ("upstreams:\n\u{a0}\u{a0}a: http://b\n", "only looks like a space stands here (U+00A0)"),
        ("upstreams:\n  a: “http://b”\n", "`“` (U+201C) is not a quote of YAML"),
        ("upstreams:\n  a\u{200b}: http://b\n", "an invisible character stands here (U+200B)"),
        ("upstreams:\n  a: 'http://{{ .Values.host }}'\n", "this is a template"),
        ("upstreams:\n  a: 'http://$HOST'\n", "`${HOST}`, in braces"),
        ("// a comment\nupstreams: { a: 'http://b' }\n", "a comment begins with `#`"),
        ("upstreams: { a: http://b#c }\n", "a comment begins with a space and `#`"),
        (&format!("a: {}", "[".repeat(200)), "a config never has this many levels"),
        ("upstreams: { a: 'https:/b' }\n", "^ `https://b`?"),
        ("upstreams: { a: 'postgres://b:5432' }\n", "`postgres` is written `tcp`"),
        (
            "listeners: { o: { bind: 70000, to: a } }\nupstreams: { a: 'http://b' }\n",
            "a port is a number from 0 to 65535",
        ),
        ("upstreams: { a: http://b\n", "what is opened here is not closed"),
    ] {
        let said = found(text);
        assert!(said.contains(help), "{text}\n{said}");
    }
}

#[test]
fn an_empty_file_shows_the_smallest_config() {
    for text in ["", "# nothing yet\n", "---\n", "null\n"] {
        insta::allow_duplicates!(insta::assert_snapshot!(found(text), @r#"
attache.yaml: error: the file is empty
  the smallest config is
    upstreams:
      orders: https://orders.internal:8443
"#));
    }
}

#[test]
fn a_list_where_a_mapping_is_wanted() {
    let text = r#"upstreams:
  - orders: https://orders.internal
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml:2:3: error: a list doesn't fit here
  2 |   - orders: https://orders.internal
    |   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ a name is a key here, without a dash: `orders: …`
"#);
}

#[test]
fn a_key_that_stands_twice() {
    let text = r#"upstreams:
  orders: https://orders.internal
  orders: https://orders-next.internal
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml:3:3: error: the key `orders` is given twice
  3 |   orders: https://orders-next.internal
    |   ^^^^^^ it is first given in line 2: remove one
"#);
}

#[test]
fn a_variable_that_is_not_set() {
    let text = r#"workers: ${WORKERS}
upstreams:
  orders: https://${HOST}:8443
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml:1:10: error: the environment variable `WORKERS` isn't set
  1 | workers: ${WORKERS}
    |          ^^^^^^^^^^ set it, or give a default: `${WORKERS:-…}`
attache.yaml:3:11: error: the environment variable `HOST` isn't set
  3 |   orders: https://${HOST}:8443
    |           ^^^^^^^^^^^^^^^^^^^^ set it, or give a default: `${HOST:-…}`
"#);
}

#[test]
fn a_wide_line_is_cut_around_the_mistake() {
    let text = r#"upstreams: { a: https://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.internal, b: https://bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb.internal, c: htp://c.internal, d: https://ddddddddddddddddddddddddddddddd.internal }
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml:1:145: error: the scheme `htp` isn't known
  1 | …bbbbbbbbbbbbbbbbbbbbbbbbb.internal, c: htp://c.internal, d: https://ddddddddddddddddddddddddddddddd.internal }
    |                                         ^^^^^^^^^^^^^^^^ did you mean `http`?
"#);
}

#[test]
fn flow_values_need_quotes() {
    let text = r#"listeners:
  outbound:
    bind: 127.0.0.1:15001
    routes:
      - match: { path: /users/{id} }
        to: orders
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml:5:31: error: not valid YAML: while parsing a flow mapping, did not find expected ',' or '}'
  5 |       - match: { path: /users/{id} }
    |                               ^ within `{ … }` and `[ … ]` a value with `,`, `{`, `}`, `[` or `]` needs quotes: `path: "/users/{id}"`
"#);
}

#[test]
fn aliases_and_tags_have_their_limits() {
    let text = r#"x-base: &base { connect_timeout: 1 }
upstreams:
  a:
    <<: *base
    address: !secret x
  b: { <<: [1], address: http://b.internal }
  c: *c
"#;
    insta::assert_snapshot!(found(text), @r#"
attache.yaml:5:22: error: the tag `!secret` isn't known here
  5 |     address: !secret x
    |                      ^ `!file PATH` reads a file; a value that begins with `!` needs quotes
attache.yaml:6:8: error: `<<` merges mappings, and this is not a mapping
  6 |   b: { <<: [1], address: http://b.internal }
    |        ^^ write `<<: *anchor` or `<<: [*one, *two]`
attache.yaml:7:6: error: not valid YAML: while parsing node, found unknown anchor
  7 |   c: *c
    |      ^ `*name` stands for what `&name` above it marks; a value that begins with `*` needs quotes
"#);
}

#[test]
fn colours_change_nothing_but_colours() {
    let text = "upstream: {}";
    let Err(found) = attache_config::parse(text, None, &|_| None) else { panic!("this is wrong") };
    let coloured = found.display(true).to_string();
    assert!(coloured.contains("\u{1b}[31m"));
    let mut plain = coloured;
    for code in ["\u{1b}[0m", "\u{1b}[1m", "\u{1b}[31m", "\u{1b}[33m", "\u{1b}[34m"] {
        plain = plain.replace(code, "");
    }
    assert_eq!(plain, found.to_string());
}

#[test]
fn a_control_character_never_reaches_the_terminal() {
    let shown = found("upstreams: { a: \"x\u{202e}\" } # \u{9b}31m\n");
    assert!(!shown.contains(['\u{202e}', '\u{9b}']), "{shown:?}");
}

#[test]
fn machines_read_places() {
    let Err(found) = attache_config::parse("workers: 0\nupstreams: { a: http://a }\n", None, &|_| None)
    else {
        panic!("this is wrong")
    };
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json[0]["line"], 1);
    assert_eq!(json[0]["column"], 10);
    assert_eq!(json[0]["severity"], "error");
    assert_eq!(json[0]["message"], "0 is too small");
}

#[test]
fn a_missing_file_and_a_file_that_is_not_text_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("attache.yaml");
    let Err(found) = attache_config::load(&path, &|_| None) else { panic!("there is no file") };
    assert!(found.to_string().contains("can't be read"), "{found}");
    std::fs::write(&path, b"a: b\n\xff\xfe").unwrap();
    let Err(found) = attache_config::load(&path, &|_| None) else { panic!("this is no text") };
    assert!(found.to_string().contains("not UTF-8 text: line 2"), "{found}");
}

#[test]
fn words_of_other_programs_get_a_suggestion() {
    const A: &str = "upstreams: { a: 'http://a.test' }\n";
    let listener = |keys: &str| format!("listeners: {{ l: {{ bind: ':1', {keys} }} }}\n{A}");
    let upstream = |keys: &str| format!("upstreams: {{ a: {{ address: 'http://a.test', {keys} }} }}\n");
    for (text, says) in [
        // `off` for what YAML 1.1 and others call no, `{}` for yes.
        (format!("admin: no\n{A}"), "write `off`"),
        (format!("metrics: false\n{A}"), "write `off`"),
        (format!("access_log: none\n{A}"), "write `off`"),
        (upstream("circuit_breaker: disabled"), "write `off`"),
        (upstream("outlier_ejection: true"), "`{}` leaves each at its default"),
        (upstream("circuit_breaker: 5"), "expected `off`, or a mapping"),
        // Several values in one text.
        (
            listener("routes: [{ match: { methods: 'GET, POST' }, to: a }]"),
            "several are a list: `[GET, POST]`",
        ),
        (listener("routes: [{ to: a, retry: { on: '5xx,reset' } }]"), "several are a list: `[5xx, reset]`"),
        (
            "upstreams: { a: { address: 'http://a.test, http://b.test' } }\n".to_owned(),
            "`[http://a.test, http://b.test]`",
        ),
        // Keys and words of others.
        (upstream("lb_policy: ROUND_ROBIN"), "did you mean `balance`?"),
        (upstream("balance: leastconn"), "did you mean `least-request`?"),
        (upstream("port: 80"), "the port is a part of the address"),
        (format!("log_level: debug\n{A}"), "`--log LEVEL`"),
        ("listeners: { l: { address: ':1', to: a } }\n".to_owned() + A, "did you mean `bind`?"),
        (
            "listeners: { l: { bind: ':1', to: 'http://b.test' } }\n".to_owned() + A,
            "in `upstreams`: `NAME: http://b.test`",
        ),
        ("{ // mine\n upstreams: { a: 'http://a.test' } }\n".to_owned(), "a comment begins with `#`"),
        ("upstreams: { a: {{ env.URL }} }\n".to_owned(), "has to be filled in first"),
        ("<<<<<<< HEAD\nupstreams: {}\n=======\n>>>>>>> other\n".to_owned(), "marks of an unfinished merge"),
    ] {
        let found = found(&text);
        assert!(found.contains(says) && found.contains("attache.yaml:"), "{text}{found}");
    }
    // Nothing but the list itself is wrong.
    let found = found(&listener("routes: [{ to: [{ upstream: a, weight: 5 }] }]"));
    assert_eq!(found.matches("error:").count(), 1, "{found}");
}
