//! Other spellings of hosts, headers, parameters and protocols: no import accepts a request that the original refused.

#![allow(clippy::unwrap_used, missing_docs)]

use attache_import::{File, Grade, Imported, ProxyKind};

fn import(kind: ProxyKind, text: &str) -> Imported {
    let file = File { path: "original".into(), text: text.to_owned() };
    attache_import::import(kind, &[file]).unwrap()
}

/// A connection manager of Envoy with these keys, virtual hosts and filters.
fn envoy(keys: &str, hosts: &str, filters: &str) -> Imported {
    import(
        ProxyKind::Envoy,
        &format!(
            "static_resources: {{listeners: [{{name: in, address: {{socket_address: {{address: 127.0.0.1, port_value: 10000}}}}, filter_chains: [{{filters: [\
             {{name: envoy.filters.network.http_connection_manager, typed_config: {{stat_prefix: in, {keys} route_config: {{virtual_hosts: [{hosts}]}}, \
             http_filters: [{filters} {{name: envoy.filters.http.router}}]}}}}]}}]}}], clusters: [{{name: a, type: STRICT_DNS, load_assignment: {{endpoints: \
             [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: a.internal, port_value: 80}}}}}}}}]}}]}}}}]}}"
        ),
    )
}

const EVERYTHING: &str = "{name: all, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: a}}]}";

fn frontend(lines: &str) -> Imported {
    import(
        ProxyKind::Haproxy,
        &format!(
            "defaults\n mode http\nfrontend in\n bind :8080\n {}\n default_backend app\nbackend app\n server a app.internal:80\n",
            lines.replace(';', "\n ")
        ),
    )
}

fn server(http: &str, inner: &str) -> Imported {
    import(ProxyKind::Nginx, &format!("events {{}}\nhttp {{ {http} server {{ listen 8080; {inner} }} }}"))
}

const PASS: &str = "proxy_pass http://app.internal:80;";

/// The config contains this text, with any line breaks.
fn assert_says(imported: &Imported, said: &str) {
    let flat: String = imported.text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains(said), "{said}:\n{}", imported.text);
}

fn rbac(permission: &str) -> String {
    format!(
        "{{name: envoy.filters.http.rbac, typed_config: {{rules: {{action: ALLOW, policies: {{p: {{permissions: [{permission}], principals: [{{any: true}}]}}}}}}}}}},"
    )
}

#[test]
fn a_rule_about_a_host_is_about_its_text() {
    for (matcher, host) in [
        ("exact: example.com", r"~example\.com"),
        ("exact: EXAMPLE.com", r"~EXAMPLE\.com"),
        ("exact: 'example.com:8080'", r"~example\.com:8080"),
        ("exact: example.com, ignore_case: true", r"~(?i:example\.com)"),
        ("prefix: example.", r"~example\..*"),
        ("suffix: .example.com", r"~.*\.example\.com"),
        ("contains: example", r"~.*example.*"),
        ("safe_regex: {regex: 'a|b'}", "~a|b"),
    ] {
        for name in [":authority", "host", "Host"] {
            let rule = rbac(&format!("{{header: {{name: '{name}', string_match: {{{matcher}}}}}}}"));
            let imported = envoy("", EVERYTHING, &rule);
            let text = imported.text.replace("\\\\", "\\");
            assert!(text.contains(host), "{matcher}:\n{}", imported.text);
            assert_eq!(imported.grade, Grade::Nothing, "{matcher}:\n{}", imported.text);
        }
    }
    let policy = |host: &str| {
        import(
            ProxyKind::Istio,
            &format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: web, namespace: shop}}\n---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                 metadata: {{name: p, namespace: shop}}\nspec: {{rules: [{{to: [{{operation: {{hosts: ['{host}']}}}}]}}]}}\n"
            ),
        )
    };
    for (host, said) in [
        ("example.com", r"~(?i:example\.com)"),
        ("Example.com:8080", r"~(?i:Example\.com:8080)"),
        ("*.example.com", r"~(?i:.*\.example\.com)"),
        ("example.com:*", r"~(?i:example\.com:.*)"),
        ("example.*", r"~(?i:example\..*)"),
    ] {
        let imported = policy(host);
        assert!(imported.text.replace("\\\\", "\\").contains(said), "{host}:\n{}", imported.text);
    }
}

#[test]
fn hosts_that_the_original_compares_as_texts_have_one_spelling() {
    let host = |domains: &str| {
        format!(
            "{{name: h, domains: [{domains}], routes: [{{match: {{prefix: /}}, route: {{cluster: a}}}}]}}"
        )
    };
    assert_says(&envoy("", &host("www.test"), ""), "host: { trailing: reject, default_port: reject }");
    assert_says(&envoy("", &host("'www.test:*'"), ""), "host: { trailing: reject }");
    assert_says(&envoy("strip_any_host_port: true,", &host("www.test"), ""), "host: { trailing: reject }");
    assert!(!envoy("", EVERYTHING, "").text.contains("trailing"));
    // If Envoy removes the port from `Host` first, a domain with that port matches no request.
    for off in ["strip_any_host_port: true,", "strip_matching_host_port: true,"] {
        let two = envoy(off, &host("'www.test:10000', other.test"), "");
        assert_says(&two, "`www.test:10000` is left out");
        assert!(!two.text.contains("host: www.test"), "{}", two.text);
    }
    // If only the listener's own port is removed, another port is another host.
    let own = envoy("strip_matching_host_port: true,", &host("'a.test:8443', b.test"), "");
    assert_says(&own, "[a.test:8443, b.test:80, b.test:10000]");
    let small = "host: { capitals: reject, trailing: reject, default_port: reject }";
    assert_says(&frontend("http-request deny unless { hdr(host) www.test }"), small);
    assert_says(
        &frontend("http-request deny unless { hdr(host) -i www.test }"),
        "host: { trailing: reject, default_port: reject }",
    );
    assert_says(
        &frontend("http-request deny unless { hdr(host),field(1,:) -i www.test }"),
        "host: { trailing: reject }",
    );
    assert!(!frontend("http-request deny if { path /a }").text.contains("trailing"));
}

#[test]
fn upgrades_are_allowed_as_in_the_original() {
    let upgrades = |configs: &str| envoy(&format!("upgrade_configs: [{configs}],"), EVERYTHING, "");
    assert_says(&envoy("", EVERYTHING, ""), "upgrades: off");
    assert_says(&upgrades("{upgrade_type: websocket}"), "upgrades: websocket");
    assert_says(&upgrades("{upgrade_type: WebSocket}, {upgrade_type: Foo}"), "upgrades: [websocket, foo]");
    assert_says(&upgrades("{upgrade_type: websocket, enabled: false}"), "upgrades: off");
    assert_says(&upgrades("{upgrade_type: CONNECT}"), "upgrades: off");
    let route = |configs: &str| {
        format!(
            "{{name: h, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: a, upgrade_configs: [{configs}]}}}}]}}"
        )
    };
    let on = envoy("", &route("{upgrade_type: websocket}"), "");
    assert_says(&on, "upgrades: off");
    assert_says(&on, "upgrades: websocket");
    let off = envoy(
        "upgrade_configs: [{upgrade_type: websocket}],",
        &route("{upgrade_type: websocket, enabled: false}"),
        "",
    );
    assert_says(&off, "upgrades: websocket");
    assert_says(&off, "upgrades: off");

    let removed = "{name: h, domains: ['*'], request_headers_to_remove: [upgrade], routes: [{match: {prefix: /}, route: {cluster: a}}]}";
    assert_says(&envoy("upgrade_configs: [{upgrade_type: websocket}],", removed, ""), "upgrades: ignore");

    assert_says(&server("", &format!("location / {{ {PASS} }}")), "upgrades: ignore");
    let passed =
        "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection";
    assert_says(&server("", &format!("location / {{ {PASS} {passed} upgrade; }}")), "upgrades: any");
    for inner in [
        format!("location / {{ {PASS} {passed} ''; }}"),
        format!("location / {{ {PASS} {passed} close; }}"),
        format!(
            "location / {{ {PASS} proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }}"
        ),
        format!("location / {{ {PASS} proxy_http_version 1.1; proxy_set_header Connection upgrade; }}"),
    ] {
        assert!(!server("", &inner).text.contains("upgrades: any"), "{inner}");
    }
    assert_says(&frontend("http-request del-header Upgrade"), "upgrades: ignore");
    assert!(!frontend("http-request set-header Upgrade websocket").text.contains("to: app"));
}

#[test]
fn header_names_are_dropped_or_refused_as_in_the_original() {
    let action = |action: &str| {
        envoy(
            &format!("common_http_protocol_options: {{headers_with_underscores_action: {action}}},"),
            EVERYTHING,
            "",
        )
    };
    assert_says(&action("DROP_HEADER"), "header_names: { underscores: drop }");
    assert_says(&action("REJECT_REQUEST"), "header_names: { underscores: reject }");
    assert!(!action("ALLOW").text.contains("header_names"));
    let location = format!("location / {{ {PASS} }}");
    assert_says(&server("", &location), "header_names: { underscores: drop, others: drop }");
    assert_says(&server("underscores_in_headers on;", &location), "header_names: { others: drop }");
    assert!(!server("ignore_invalid_headers off;", &location).text.contains("header_names"));
    let option = |word: &str| frontend(&format!("option http-restrict-req-hdr-names {word}"));
    assert_says(&option("delete"), "header_names: { underscores: drop, others: drop }");
    assert_says(&option("reject"), "header_names: { underscores: reject, others: reject }");
    assert!(!option("preserve").text.contains("header_names"));
}

#[test]
fn a_header_that_is_given_twice_opens_no_route() {
    let route = |condition: &str| {
        envoy(
            "",
            &format!(
                "{{name: h, domains: ['*'], routes: [{{match: {{prefix: /, headers: [{condition}]}}, route: {{cluster: a}}}}]}}"
            ),
            "",
        )
    };
    for condition in [
        "{name: x-h, string_match: {exact: good}, invert_match: true}",
        "{name: x-h, string_match: {prefix: good}, invert_match: true}",
    ] {
        assert_says(&route(condition), "deny: [{ name: several-x-h, headers: { x-h: good");
    }
    assert_says(
        &route("{name: user-agent, string_match: {exact: app}}"),
        "deny: [{ name: several-user-agent, not: { headers: { user-agent: app",
    );
    assert!(!route("{name: x-h, string_match: {exact: good}}").text.contains("authorization"));
    assert_says(
        &route("{name: x-forwarded-proto, string_match: {exact: https}}"),
        "deny: [{ name: several-x-forwarded-proto, not: { headers: { x-forwarded-proto: https",
    );
    let grpc = "{name: h, domains: ['*'], routes: [{match: {prefix: /, grpc: {}}, route: {cluster: a}}]}";
    assert_says(&envoy("", grpc, ""), "deny: [{ name: several-content-type");
    let secure =
        "{name: h, domains: ['*'], require_tls: ALL, routes: [{match: {prefix: /}, route: {cluster: a}}]}";
    // The redirect needs a field with another value, or no field.
    assert_says(&envoy("", secure, ""), "x-forwarded-proto: \"~(?:[^h].*)?|h");
    assert_says(&envoy("", secure, ""), "x-forwarded-proto: \"!*\"");
    let guarded = server("", &format!("location / {{ if ($http_x_key != \"k\") {{ return 403; }} {PASS} }}"));
    assert_says(&guarded, "headers: { x-key: \"*\" }, not: { headers: { x-key: k } }");
    let other = server(
        "",
        &format!(
            "location /a {{ if ($http_x_key != \"k\") {{ return 403; }} {PASS} }} location /b {{ {PASS} }}"
        ),
    );
    assert_eq!(other.text.matches("several-values").count(), 1, "{}", other.text);
}

#[test]
fn methods_that_the_original_does_not_know_are_refused() {
    assert_says(&envoy("", EVERYTHING, ""), "methods: known extended_connect: false");
    let custom =
        "http_protocol_options: {allow_custom_methods: true}, http2_protocol_options: {allow_connect: true},";
    for absent in ["methods", "extended_connect"] {
        assert!(!envoy(custom, EVERYTHING, "").text.contains(absent), "{absent}");
        assert!(!frontend("").text.contains(absent), "{absent}");
    }
    let nginx = server("", &format!("location / {{ {PASS} }}"));
    assert_says(&nginx, "extended_connect: false methods: capitals");
}

#[test]
fn parameters_are_read_as_in_the_original() {
    assert_says(
        &frontend("http-request deny if { url_param(debug) 1 }"),
        "query: { semicolons: separate, decode: false }",
    );
    assert_says(
        &server("", &format!("location / {{ if ($arg_debug = \"1\") {{ return 403; }} {PASS} }}")),
        "query: { decode: false, ignore_case: true, repeated: first }",
    );
    let route = "{name: h, domains: ['*'], routes: [{match: {prefix: /, query_parameters: [{name: k, string_match: {exact: v}}]}, route: {cluster: a}}]}";
    assert_says(&envoy("", route, ""), "query: { decode: false, repeated: first }");
}

#[test]
fn no_import_asks_for_tunnels() {
    for lines in ["use_backend app if { method CONNECT }", "use_backend app if { method GET CONNECT }"] {
        let text = frontend(lines).text;
        let routes =
            text.lines().filter(|line| !line.trim_start().starts_with('#') && line.contains("CONNECT"));
        let open: Vec<&str> = routes.filter(|line| line.contains("to: app")).collect();
        assert!(open.is_empty(), "{text}");
    }
}

#[test]
fn a_part_of_a_header_is_not_the_whole_of_it() {
    let imported = frontend("http-request deny if { hdr(x-pair),field(1,:) -m str a }");
    assert_eq!(imported.grade, Grade::Point, "{}", imported.text);
    assert!(!imported.text.contains("to: app"), "{}", imported.text);
}

#[test]
fn a_claim_that_is_a_text_is_no_list_and_a_list_is_no_text() {
    let tokens = "{name: envoy.filters.http.jwt_authn, typed_config: {providers: {p: {issuer: i, payload_in_metadata: jwt, local_jwks: {inline_string: '{\"keys\":[]}'}}}, \
                  rules: [{match: {prefix: /}, requires: {provider_name: p}}]}},";
    let claim = |value: &str| {
        let metadata = format!(
            "{{metadata: {{filter: envoy.filters.http.jwt_authn, path: [{{key: jwt}}, {{key: scope}}], value: {{{value}}}}}}}"
        );
        let rules = format!(
            "{tokens} {{name: envoy.filters.http.rbac, typed_config: {{rules: {{action: ALLOW, policies: {{p: {{permissions: [{{any: true}}], principals: [{metadata}]}}}}}}}}}},"
        );
        envoy("", EVERYTHING, &rules)
    };
    assert_says(&claim("string_match: {exact: read}"), "claim_texts: { scope: read }");
    assert_says(
        &claim("list_match: {one_of: {string_match: {exact: read}}}"),
        "claim_items: { scope: read }",
    );
}

#[test]
fn a_connection_that_was_closed_without_an_answer_is_noted() {
    for action in ["silent-drop", "reject", "tarpit"] {
        let imported = frontend(&format!("http-request {action} if {{ path /hidden }}"));
        assert_says(&imported, &format!("`{action}`"));
    }
}

#[test]
fn a_trace_is_refused_as_by_nginx() {
    assert_says(
        &server("", &format!("location / {{ {PASS} }}")),
        "deny: [{ name: no-trace, methods: TRACE }]",
    );
}
