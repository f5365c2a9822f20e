//! The access log in other programs: a file that is rotated, syslog, and lines in a configured form.

use std::{fs, net::UdpSocket, time::Duration};

use attache_tests::{Attache, TestProcess, curl, eventually, free_port, local, nginx, text};

fn upstream() -> (TestProcess, String) {
    let server = local(free_port());
    let upstream = nginx(
        &format!(
            "server {{ listen {server}; location / {{ add_header x-version 7; return 200 ok; }} location /bad {{ return 500 no; }} }}"
        ),
        server,
    );
    (
        upstream,
        format!(
            "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT', routes: [{{ name: all, to: orders }}] }} }}\nupstreams: {{ orders: 'http://{server}' }}\n"
        ),
    )
}

#[test]
fn a_line_has_the_fields_of_its_template_and_only_filtered_lines_are_written() {
    let (_upstream, config) = upstream();
    let attache = Attache::start(&format!(
        "{config}access_log:\n  to: stdout\n  filter: [{{ errors: true }}, {{ status: 4xx }}]\n  format: {{ json: {{ code: '%{{status}}', agent: '%{{request.header.user-agent}}', version: '%{{response.header.x-version}}', what: '%{{method}} %{{path}}', route: '%{{route}}' }} }}"
    ));
    for path in ["/good", "/bad"] {
        let _ = text(&curl(["-A", "me \"too\"", &attache.url(path)]));
    }
    eventually("the error is logged", || attache.process.output().contains("/bad"));
    let output = attache.process.output();
    assert!(!output.contains("/good"), "{output}");
    let line = output.lines().find(|line| line.contains("/bad")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(
        line,
        serde_json::json!({ "code": 500, "agent": "me \"too\"", "version": null, "what": "GET /bad", "route": "all" })
    );
}

#[test]
fn a_file_is_rotated_when_it_is_full() {
    let (_upstream, config) = upstream();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("access.log");
    let attache = Attache::start(&format!(
        "{config}access_log: {{ to: {{ file: '{}', max_size: 400B, keep: 2 }} }}",
        file.display()
    ));
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap_or_default();
    // Lines that arrive together are written together, so the number of lines per file depends on the timing.
    let mut sent = 0;
    eventually("the third file is begun", || {
        let _ = text(&curl([&attache.url(&format!("/{sent}"))]));
        sent += 1;
        !read("access.log.2").is_empty()
    });
    let last = format!(" /{} ", sent - 1);
    eventually("the last line is written", || {
        ["access.log", "access.log.1"].iter().any(|name| read(name).contains(&last))
    });
    for name in ["access.log", "access.log.1", "access.log.2"] {
        assert!(read(name).lines().all(|line| line.contains(" 200 ")), "whole lines: {}", read(name));
    }
    assert!(!dir.path().join("access.log.3").exists());
}

#[test]
fn syslog_gets_a_message_for_each_line() {
    let (_upstream, config) = upstream();
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let attache = Attache::start(&format!(
        "{config}access_log: {{ to: {{ syslog: 'udp://{}', facility: local3, app: shop }}, format: {{ template: '%{{method}} %{{path}} %{{status}}' }} }}",
        server.local_addr().unwrap()
    ));
    let _ = text(&curl([&attache.url("/a")]));
    let mut message = [0; 2048];
    let length = server.recv(&mut message).unwrap();
    let message = std::str::from_utf8(&message[..length]).unwrap();
    // local3 is 19, and informational 6: 19 * 8 + 6.
    assert!(message.starts_with("<158>1 "), "{message}");
    assert!(message.ends_with(" access - GET /a 200") && message.contains(" shop "), "{message}");
}
