//! Settings that make attache stricter: what they refuse reaches no upstream, in every version of HTTP.

use attache_tests::{Attache, local};

use super::{LenientUpstream, frame, h2, say};

fn attache(port: u16, http: &str, routes: &str) -> Attache {
    Attache::start(&format!(
        "listeners:
  in: {{ bind: '127.0.0.1:$PORT', protocol: http, http: {{ {http} }}, routes: [{routes}], to: app }}
upstreams: {{ app: 'http://127.0.0.1:{port}' }}"
    ))
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[test]
fn a_spelling_of_a_host_that_is_rejected_reaches_no_upstream() {
    let app = LenientUpstream::start();
    let spellings = [
        ("capitals", &["App.test", "app.tesT:8080"][..]),
        ("trailing", &["app.test.", "app.test.:8080", "app.test:"]),
        ("default_port", &["app.test:80", "APP.test:80"]),
    ];
    for (setting, refused) in spellings {
        let attache = attache(app.port, &format!("host: {{ {setting}: reject }}"), "");
        for host in spellings.iter().flat_map(|(_, hosts)| *hosts).chain(&["app.test", "app.test:8080"]) {
            let is_refused = refused.contains(host)
                || setting == "default_port" && host.ends_with(":80")
                || setting == "capitals" && host.bytes().any(|byte| byte.is_ascii_uppercase());
            let one = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            // The target counts, whatever `Host` contains.
            let absolute =
                format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            let two =
                h2(&[(":method", "GET"), (":scheme", "http"), (":authority", host), (":path", "/")], true);
            for bytes in [one.as_bytes(), absolute.as_bytes(), &two] {
                app.forget();
                let answer = say(local(attache.port), &[(0, bytes)]);
                let what = format!("{setting} {host}: {answer}");
                assert_eq!(app.seen().is_empty(), is_refused, "{what}");
                if bytes.starts_with(b"GET") {
                    assert_eq!(status(&answer), if is_refused { "400" } else { "200" }, "{what}");
                }
            }
        }
    }
}

#[test]
fn a_query_is_read_as_the_listener_says() {
    let app = LenientUpstream::start();
    let queries = ["a=1", "A=1", "%61=1", "x;a=1", "a=2&a=1", "a=%31", "a=1&a=2", "b=1"];
    for (setting, found) in [
        ("", &["a=1", "%61=1", "a=2&a=1", "a=%31", "a=1&a=2"][..]),
        ("semicolons: separate", &["a=1", "%61=1", "x;a=1", "a=2&a=1", "a=%31", "a=1&a=2"]),
        ("decode: false", &["a=1", "a=2&a=1", "a=1&a=2"]),
        ("ignore_case: true", &["a=1", "A=1", "%61=1", "a=2&a=1", "a=%31", "a=1&a=2"]),
        ("repeated: first", &["a=1", "%61=1", "a=%31", "a=1&a=2"]),
    ] {
        let routes = "{ match: { query: { a: '1' } }, respond: 204 }";
        let attache = attache(app.port, &format!("query: {{ {setting} }}"), routes);
        for query in queries {
            app.forget();
            let head = format!("GET /?{query} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            let answer = say(local(attache.port), &[(0, head.as_bytes())]);
            let expected = if found.contains(&query) { "204" } else { "200" };
            assert_eq!(status(&answer), expected, "{setting} {query}: {answer}");
            // The upstream parses the query itself.
            let sent = format!("GET /?{query} HTTP/1.1");
            assert_eq!(app.seen().contains(&sent), expected == "200", "{setting} {query}: {}", app.seen());
        }
    }
}

#[test]
fn no_upstream_sees_the_end_of_a_body_above_its_limit() {
    let app = LenientUpstream::start();
    let routes = "{ match: { path: /more }, to: app, body_size: 9B }, { match: { path: /any }, to: app, body_size: 0B }";
    let attache = attache(app.port, "limits: { body_size: 4B }", routes);
    for (path, most) in [("/", 4), ("/more", 9), ("/any", 99)] {
        for length in [0, 3, 4, 5, 9, 10, 40] {
            let body = "x".repeat(length);
            let sized = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}");
            let mut chunks = format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
            for byte in body.chars() {
                chunks.push_str(&format!("1\r\n{byte}\r\n"));
            }
            chunks.push_str("0\r\n\r\n");
            let fields = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", path)];
            let mut two = h2(&fields, false);
            for byte in body.bytes() {
                frame(&mut two, 0, 0, &[byte]);
            }
            frame(&mut two, 0, 1, b"");
            for (form, bytes) in
                [("sized", sized.as_bytes()), ("chunked", chunks.as_bytes()), ("HTTP/2", &two)]
            {
                app.forget();
                let answer = say(local(attache.port), &[(0, bytes)]);
                let what = format!("{path} {form} {length}: {answer}");
                let seen = app.seen();
                let came = seen.matches('x').count();
                // `x` also occurs in the names of attache's own fields.
                let head = seen.split("\r\n\r\n").next().unwrap_or_default().matches('x').count();
                if length > most {
                    assert!(came - head <= most && !seen.ends_with("0\r\n\r\n"), "{what} {seen}");
                    if form == "sized" {
                        assert!(status(&answer) == "413" && seen.is_empty(), "{what} {seen}");
                    }
                } else {
                    assert_eq!(came - head, length, "{what} {seen}");
                    if form != "HTTP/2" {
                        assert_eq!(status(&answer), "200", "{what}");
                    }
                }
            }
        }
    }
}
