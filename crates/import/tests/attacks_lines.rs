//! Configs of HAProxy and nginx that refuse some requests, in forms that an importer easily misses: no import of them
//! is more open than the original.

#![allow(clippy::unwrap_used, missing_docs)]

use attache_import::{File, Grade, Imported, ProxyKind};

fn import(kind: ProxyKind, text: &str) -> Imported {
    let file = File { path: "original.conf".into(), text: text.to_owned() };
    attache_import::import(kind, &[file]).unwrap()
}

/// An HTTP frontend with these lines, and its backends.
fn frontend(lines: &str) -> Imported {
    import(
        ProxyKind::Haproxy,
        &format!(
            "defaults\n mode http\nfrontend in\n bind :8080\n {}\n default_backend app\nbackend app\n server a app.internal:80\nbackend other\n server o other.internal:80\n",
            lines.replace(';', "\n ")
        ),
    )
}

fn connections(lines: &str, backends: &str) -> Imported {
    import(
        ProxyKind::Haproxy,
        &format!(
            "defaults\n mode tcp\nfrontend in\n bind :8080\n {}\n default_backend app\nbackend app\n server a app.internal:80\n{backends}\n",
            lines.replace(';', "\n ")
        ),
    )
}

/// A server of nginx with these directives, and others before it in `http`.
fn server(http: &str, inner: &str) -> Imported {
    import(ProxyKind::Nginx, &format!("events {{}}\nhttp {{ {http} server {{ listen 8080; {inner} }} }}"))
}

const PASS: &str = "proxy_pass http://app.internal:80;";

/// Routes that go to an upstream.
fn opened(imported: &Imported) -> usize {
    let lines = imported.text.lines().map(|line| line.trim_start().trim_start_matches("- "));
    lines.filter(|line| line.starts_with("to:") || line.contains("{ to: ")).count()
}

fn assert_closed(what: &str, imported: &Imported) {
    assert_eq!(opened(imported), 0, "{what}:\n{}", imported.text);
    assert_eq!(imported.grade, Grade::Point, "{what}:\n{}", imported.text);
}

#[test]
fn connections_that_a_rule_takes_away_do_not_reach_the_default_backend() {
    for lines in [
        "use_backend nowhere if { src 10.0.0.0/8 }",
        "use_backend nowhere if { req_ssl_sni -i admin.example.com }",
        "use_backend nowhere if { req_ssl_sni -m beg admin }",
        "tcp-request connection reject if { src 10.0.0.0/8 }",
        "tcp-request content reject if !{ req_ssl_hello_type 1 }",
        "tcp-response content reject if { res.len gt 1 }",
    ] {
        assert_closed(lines, &connections(lines, "backend nowhere"));
    }
    let rules =
        "backend guarded\n tcp-request content reject if { src 10.0.0.0/8 }\n server g guarded.internal:80";
    assert_closed(
        "rules of a backend",
        &connections("use_backend guarded if { req_ssl_sni -i a.example.com }", rules),
    );
}

#[test]
fn one_value_of_a_list_is_a_value_of_a_header() {
    let imported = frontend("http-request deny if { hdr(x-role) guest }");
    let pattern =
        imported.text.split("x-role:").nth(1).unwrap_or_default().lines().next().unwrap_or_default();
    let regex = regex::Regex::new(&format!(
        "^(?:{})$",
        pattern
            .trim()
            .trim_matches(['"', '\'', ' ', '}'])
            .trim_start_matches('~')
            .replace("\\\\", "\\")
            .replace("\\\"", "\"")
    ))
    .unwrap();
    for value in ["guest", "a,guest", "a, guest ,b", "guest,b", "\"a,b\", guest"] {
        assert!(regex.is_match(value), "{value}: {}", imported.text);
    }
    for value in ["guests", "a guest", ""] {
        assert!(!regex.is_match(value), "{value}: {}", imported.text);
    }
    // `fhdr` compares the whole value.
    assert!(frontend("http-request deny if { req.fhdr(x-role) guest }").text.contains("x-role: guest"));
}

#[test]
fn what_is_read_in_haproxy_and_not_here_closes() {
    for lines in [
        "http-request deny if { url_sub select }",
        "http-request deny if { url_end .php }",
        "http-request deny if !{ src 10.0.0.0/8 }",
        "http-request deny if { dst_port 8080 }",
        "http-request deny if { path_beg \"$ADMIN\" }",
        "http-request deny if { path_beg \"/${ADMIN}\" }",
        "http-request deny if { path,map_beg(/etc/paths.map) -m found }",
        "http-request track-sc0 src;http-request deny if { sc_http_req_rate(0) gt 10 }",
        "http-request set-uri /b;http-request deny if { path /a }",
        "http-request normalize-uri percent-to-uppercase;http-request deny if { path /%2F }",
        "http-response deny if { res.hdr(x-secret) -m found }",
        "http-response return status 403 if { res.hdr(x-secret) -m found }",
        "http-response lua.check",
        "rspdeny secret",
        "guard-of-tomorrow on",
        "stick-table type ip size 1k store http_req_rate(1s);tcp-request connection track-sc0 src;tcp-request connection reject if { sc0_http_req_rate gt 1 }",
        "acl a path_beg /a;acl b src 10.0.0.0/8;http-request deny if a !b",
        "http-request deny if { path -f /etc/paths }",
        "http-request deny if { hdr(host) -m sub admin }",
    ] {
        assert_closed(lines, &frontend(lines));
    }
}

#[test]
fn acls_of_one_name_are_alternatives() {
    let imported = frontend("acl a path_beg /a;acl a path_beg /b;http-request deny if a");
    assert!(imported.text.contains("~/a.*") && imported.text.contains("~/b.*"), "{}", imported.text);
    let imported = frontend("acl a path_beg /a;acl m method POST;http-request deny if a m or { path /c }");
    assert!(imported.text.contains("/c") && imported.text.contains("POST"), "{}", imported.text);
}

#[test]
fn what_a_path_is_made_before_it_is_matched() {
    let imported = frontend(
        "http-request normalize-uri path-merge-slashes;http-request normalize-uri path-strip-dotdot;http-request deny if { path_beg /admin }",
    );
    assert!(imported.text.contains("merge_slashes: true") && opened(&imported) > 0, "{}", imported.text);
    // A pattern in capital letters never matches a path in lower case.
    let imported = frontend("http-request deny if { path,lower -m beg /ADMIN }");
    assert!(!imported.text.contains("ADMIN"), "{}", imported.text);
    assert!(frontend("http-request deny if { path,lower -m beg /admin }").text.contains("(?i:/admin.*)"));
}

#[test]
fn the_strictest_of_two_binds_is_that_of_the_listener() {
    let tls = |first: &str, second: &str| {
        frontend(&format!("bind :8443 ssl crt /c {first};bind :9443 ssl crt /c {second}"))
    };
    for (first, second) in [
        ("ca-file /ca verify optional", "ca-file /ca verify required"),
        ("ca-file /ca verify required", "ca-file /ca verify optional"),
        ("ca-file /ca verify required", ""),
        ("", "ca-file /ca verify required"),
    ] {
        let text = tls(first, second).text;
        assert!(
            text.contains("client_ca: /ca") && !text.contains("client_optional"),
            "{first}, {second}:\n{text}"
        );
    }
    // Two different lists of roots can't be merged.
    let text = tls("ca-file /ca verify required", "ca-file /other verify required").text;
    assert!(text.contains("closed:"), "{text}");
    let imported = import(
        ProxyKind::Haproxy,
        "defaults\n mode http\nfrontend in\n bind :8443 ssl crt /c verify required\n default_backend app\nbackend app\n server a app.internal:80\n",
    );
    assert_closed("without roots", &imported);
}

#[test]
fn a_frontend_that_is_off_is_not_served() {
    let imported = frontend("disabled");
    assert!(!imported.text.contains("8080"), "{}", imported.text);
    assert_eq!(opened(&frontend("disabled;enabled")), 1);
}

#[test]
fn defaults_have_defaults() {
    let imported = import(
        ProxyKind::Haproxy,
        "defaults base\n mode http\ndefaults web from base\n http-request deny if { path_beg /admin }\nfrontend in from web\n bind :8080\n default_backend app\nbackend app from base\n server a app.internal:80\n",
    );
    assert!(
        imported.text.contains("/admin") && imported.text.contains("protocol: http"),
        "{}",
        imported.text
    );
}

#[test]
fn who_may_come_is_said_at_any_level_of_nginx() {
    for (http, inner) in [
        ("deny all;", format!("location / {{ {PASS} }}")),
        ("", format!("deny all; location / {{ {PASS} }}")),
        ("", format!("location / {{ deny all; {PASS} }}")),
    ] {
        let imported = server(http, &inner);
        assert_eq!(opened(&imported), 0, "{http} {inner}:\n{}", imported.text);
    }
    for (http, inner) in [
        ("allow 10.0.0.0/8; deny all;", format!("location / {{ {PASS} }}")),
        ("deny 10.0.0.1;", format!("location / {{ {PASS} }}")),
    ] {
        let imported = server(http, &inner);
        assert!(
            opened(&imported) == 0 || imported.text.contains("authorization"),
            "{http} {inner}:\n{}",
            imported.text
        );
    }
    // Only the innermost level with a list is used.
    assert_eq!(opened(&server("deny all;", &format!("location / {{ allow all; {PASS} }}"))), 1);
    assert_eq!(
        opened(&server(
            "",
            &format!("auth_basic x; location / {{ {PASS} }} location /open/ {{ auth_basic off; {PASS} }}")
        )),
        1
    );
}

#[test]
fn what_is_not_known_to_the_import_closes_what_stands_below_it() {
    for (http, inner) in [
        ("waf_of_tomorrow on;", format!("location / {{ {PASS} }}")),
        ("", format!("waf_of_tomorrow on; location / {{ {PASS} }}")),
        ("", format!("location / {{ waf_of_tomorrow on; {PASS} }}")),
        ("", format!("location / {{ include guards.conf; {PASS} }}")),
        ("", format!("include guards.conf; location / {{ {PASS} }}")),
        ("", format!("location / {{ access_by_lua 'x'; {PASS} }}")),
        ("access_by_lua_block { x };", format!("location / {{ {PASS} }}")),
        ("", format!("location / {{ auth_request /auth; {PASS} }}")),
        ("", format!("satisfy any; allow 10.0.0.0/8; deny all; auth_basic x; location / {{ {PASS} }}")),
        (
            "geo $bad { default 0; 10.0.0.0/8 1; }",
            format!("if ($bad) {{ return 403; }} location / {{ {PASS} }}"),
        ),
        (
            "map $http_x $bad { default 0; a 1; }",
            format!("location / {{ if ($bad) {{ return 403; }} {PASS} }}"),
        ),
        (
            "",
            format!(
                "ssl_verify_client optional; if ($ssl_client_verify != SUCCESS) {{ return 403; }} location / {{ {PASS} }}"
            ),
        ),
        ("", format!("location / {{ limit_except GET {{ deny all; }} {PASS} }}")),
        (
            "",
            format!(
                "location / {{ valid_referers none a.example; if ($invalid_referer) {{ return 403; }} {PASS} }}"
            ),
        ),
        ("", format!("location / {{ proxy_method POST; {PASS} }}")),
        ("", format!("location / {{ proxy_pass_request_headers off; {PASS} }}")),
        ("", format!("location / {{ location /a {{ deny all; }} {PASS} }}")),
        ("", "location /i/ { alias /srv/; }".to_owned()),
        ("", format!("location / {{ rewrite ^/a /b last; {PASS} }} location /b {{ deny all; }}")),
        ("js_import x.js;", format!("location / {{ js_access x.check; {PASS} }}")),
    ] {
        assert_closed(&format!("{http} {inner}"), &server(http, &inner));
    }
}

#[test]
fn the_longest_prefix_is_found_before_the_expressions() {
    let imported = server("", &format!("location ^~ /a/ {{ {PASS} }} location /a/private/ {{ deny all; }}"));
    let (denied, open) = (imported.text.find("/a/private/"), imported.text.find("to: "));
    assert!(denied.is_some() && denied < open, "{}", imported.text);
    // The expressions come before the longer location, but not before the other one.
    let imported = server(
        "",
        &format!(
            "location ^~ /a/ {{ {PASS} }} location /a/private/ {{ {PASS} }} location ~ secret {{ deny all; }}"
        ),
    );
    let route = imported.text.find("/a/private/").unwrap();
    let said = &imported.text[..route];
    assert!(
        said.contains("secret")
            || imported.text[route..].lines().take(6).any(|line| line.contains("closed:")),
        "{}",
        imported.text
    );
}

#[test]
fn a_server_whose_name_is_an_expression_does_not_fall_to_another() {
    let imported = import(
        ProxyKind::Nginx,
        &format!(
            "server {{ listen 8080; location / {{ {PASS} }} }} server {{ listen 8080; server_name ~^admin-\\d+\\.example\\.com$; location / {{ deny all; }} }}"
        ),
    );
    assert!(
        imported.text.contains("*.example.com") && imported.text.contains("closed:"),
        "{}",
        imported.text
    );
    let imported = import(
        ProxyKind::Nginx,
        &format!(
            "server {{ listen 8080; location / {{ {PASS} }} }} server {{ listen 8080; server_name ~^admin; location / {{ deny all; }} }}"
        ),
    );
    assert_closed("~^admin", &imported);
}

#[test]
fn servers_of_one_address_ask_as_much_of_clients_as_the_strictest() {
    let both = |first: &str, second: &str| {
        let tls = "listen 8443 ssl; ssl_certificate /c; ssl_certificate_key /k; ssl_client_certificate /ca;";
        import(ProxyKind::Nginx, &format!("server {{ {tls} server_name a.example; {first} location / {{ {PASS} }} }} server {{ {tls} server_name b.example; {second} location / {{ {PASS} }} }}")).text
    };
    for (first, second) in
        [("on", "optional"), ("optional", "on"), ("on", "off"), ("off", "on"), ("on", "optional_no_ca")]
    {
        let text = both(&format!("ssl_verify_client {first};"), &format!("ssl_verify_client {second};"));
        assert!(
            text.contains("client_ca: /ca") && !text.contains("client_optional"),
            "{first}, {second}:\n{text}"
        );
    }
    let imported = import(
        ProxyKind::Nginx,
        &format!(
            "server {{ listen 8443 ssl; ssl_certificate /c; ssl_certificate_key /k; ssl_verify_client on; location / {{ {PASS} }} }}"
        ),
    );
    assert_closed("without roots", &imported);
}

#[test]
fn a_stream_has_what_stands_above_it() {
    let stream = |above: &str, inner: &str| {
        import(
            ProxyKind::Nginx,
            &format!(
                "stream {{ {above} server {{ listen 8443 ssl; ssl_certificate /c; ssl_certificate_key /k; {inner} proxy_pass app.internal:80; }} }}"
            ),
        )
    };
    for above in [
        "deny all;",
        "allow unix:; deny all;",
        "guard_of_tomorrow on;",
        "js_access x.check;",
        "ssl_verify_client on;",
    ] {
        assert_closed(above, &stream(above, ""));
        assert_closed(above, &stream("", above));
    }
    for above in ["deny 10.0.0.0/8;", "allow 10.0.0.1; deny all;"] {
        for imported in [stream(above, ""), stream("", above)] {
            assert!(
                imported.text.contains("authorization") && imported.text.contains("10.0.0."),
                "{above}:\n{}",
                imported.text
            );
        }
    }
    let roots = "ssl_verify_client on; ssl_client_certificate /ca;";
    for imported in [
        stream(roots, ""),
        stream("", roots),
        stream("ssl_verify_client on; ssl_trusted_certificate /ca;", ""),
    ] {
        assert!(imported.text.contains("client_ca: /ca") && opened(&imported) == 1, "{}", imported.text);
    }
}

#[test]
fn an_answer_that_is_replaced_is_a_loss_of_the_point() {
    for one in ["error_page 403 = @app;", "error_page 502 =200 /ok;"] {
        let imported = server(
            "",
            &format!("{one} location / {{ deny all; }} location /b/ {{ {PASS} }} location @app {{ {PASS} }}"),
        );
        assert_eq!(imported.grade, Grade::Point, "{one}:\n{}", imported.text);
    }
}

#[test]
fn slashes_are_kept_where_nginx_keeps_them() {
    let imported = server("", &format!("merge_slashes off; location / {{ {PASS} }}"));
    assert!(!imported.text.contains("merge_slashes: true"), "{}", imported.text);
}

#[test]
fn what_servers_were_told_and_are_not_is_said() {
    for line in ["http-send-name-header Host", "source 0.0.0.0 usesrc clientip"] {
        let imported = import(
            ProxyKind::Haproxy,
            &format!(
                "defaults\n mode http\nfrontend in\n bind :8080\n default_backend app\nbackend app\n {line}\n server a app.internal:80\n"
            ),
        );
        assert_eq!(imported.grade, Grade::Point, "{line}:\n{}", imported.text);
    }
    assert_eq!(server("", "return 444;").grade, Grade::Soft);
}

#[test]
fn headers_whose_names_match_a_pattern_are_not_let_through() {
    for how in ["beg", "reg", "end", "sub"] {
        assert_closed(how, &frontend(&format!("http-request del-header x-internal- -m {how}")));
        assert_closed(how, &frontend(&format!("http-response del-header x-internal- -m {how}")));
    }
    let imported = frontend("http-request del-header x-internal -m str");
    assert!(opened(&imported) == 1 && imported.text.contains("remove: x-internal"), "{}", imported.text);
}

#[test]
fn answers_of_a_rule_are_whole_or_said_to_be_less() {
    let imported = frontend(
        "http-request return status 403 hdr x-why \"no\" hdr X-From %[src] string \"stop\" if { path /a }",
    );
    assert!(
        imported.text.contains("x-why: \"no\"") && imported.text.contains("x-from: \"%{client.address}\""),
        "{}",
        imported.text
    );
    assert_eq!(imported.grade, Grade::Nothing, "{}", imported.text);
    for (rule, grade) in [
        (
            "http-request return status 200 content-type text/html file /etc/x.html if { path /a }",
            Grade::Soft,
        ),
        ("http-request return status 200 errorfile /etc/x.http if { path /a }", Grade::Point),
        ("http-request return status 200 lf-string \"you are %[src]\" if { path /a }", Grade::Point),
        ("http-request deny hdr x-why %[rand] if { path /a }", Grade::Point),
        ("monitor-uri /up;monitor fail if { nbsrv(app) lt 1 }", Grade::Point),
    ] {
        assert_eq!(frontend(rule).grade, grade, "{rule}");
    }
}

#[test]
fn nginx_chooses_locations_by_paths_that_are_decoded() {
    let pattern = |location: &str| {
        let text = server("", &format!("location {location} {{ deny all; }} location / {{ {PASS} }}")).text;
        assert!(text.contains("escaped_slashes: decode"), "{text}");
        let line = text
            .lines()
            .find(|line| line.contains("path: \"~") || line.contains("path: /"))
            .unwrap_or_default();
        line.split("path: ")
            .nth(1)
            .unwrap_or_default()
            .trim_end_matches([' ', '}'])
            .trim_matches('"')
            .replace("\\\\", "\\")
    };
    assert_eq!(pattern("= /admin"), "/admin");
    for (location, paths) in [
        ("/@admin", ["/@admin/x", "/%40admin/x"]),
        ("= /a+b", ["/a+b", "/a%2Bb"]),
        ("~ ^/v1:list$", ["/v1:list", "/v1%3alist"]),
    ] {
        let regex =
            regex::Regex::new(&format!("^(?:{})$", pattern(location).trim_start_matches('~'))).unwrap();
        assert!(paths.iter().all(|path| regex.is_match(path)), "{location}: {regex}");
    }
    // If one location gets every path, paths are forwarded as the client sent them.
    assert!(!server("", &format!("location / {{ {PASS} }}")).text.contains("escaped_slashes"));
}

#[test]
fn a_limit_that_was_written_is_a_loss_of_the_point() {
    assert_eq!(server("", &format!("limit_conn z 1; location / {{ {PASS} }}")).grade, Grade::Point);
    for (size, said) in [("2m", "body_size: 2097152"), ("10k", "body_size: 10240"), ("0", "body_size: 0")] {
        let imported = server("", &format!("client_max_body_size {size}; location / {{ {PASS} }}"));
        assert!(imported.text.contains(said), "{size}:\n{}", imported.text);
        assert_eq!(imported.grade, Grade::Nothing, "{size}");
    }
    assert!(server("", &format!("location / {{ {PASS} }}")).text.contains("body_size: 1MiB"));
}

#[test]
fn redirects_to_the_upstream_are_said_where_nginx_would_rewrite_them() {
    let text = |keys: &str| server("", &format!("location / {{ {keys} {PASS} }}")).text;
    for default in ["", "proxy_redirect default;"] {
        assert!(text(default).contains("a `Location` with the upstream's address"), "{}", text(default));
        // The service knows the client's `Host`, and redirects to it.
        let preserved = text(&format!("{default} proxy_set_header Host $http_host;"));
        assert!(!preserved.contains("Location"), "{preserved}");
    }
    assert!(!text("proxy_redirect off;").contains("Location"));
    let another = text("proxy_redirect http://a/ /;");
    assert!(another.contains("`proxy_redirect`: attache passes"), "{another}");
}
