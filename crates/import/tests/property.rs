//! Random configs of Envoy: the import always prints a config that `check` accepts.

#![allow(clippy::unwrap_used, missing_docs)]

use attache_import::{File, ProxyKind};
use proptest::prelude::*;

fn pick(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(words).prop_map(ToOwned::to_owned)
}

fn domains() -> impl Strategy<Value = String> {
    prop::collection::vec(
        pick(&[
            "'*'",
            "a.example",
            "'*.a.example'",
            "a.example:8080",
            "'b.*'",
            "'a.example:*'",
            "'[::1]:80'",
            "UPPER.example",
            "'*x'",
            "''",
        ]),
        1..4,
    )
    .prop_map(|all| format!("[{}]", all.join(", ")))
}

fn matches() -> impl Strategy<Value = String> {
    let path = pick(&[
        "prefix: /",
        "prefix: ''",
        "prefix: /a",
        "prefix: /a/",
        "path: /a/b",
        "path: '/a b{c}'",
        "path_separated_prefix: /a",
        "safe_regex: {regex: '/[a-z]+(/.*)?'}",
        "safe_regex: {regex: '(?=x)'}",
        "safe_regex: {regex: ''}",
        "prefix: /a, case_sensitive: false",
        "connect_matcher: {}",
        "path_match_policy: {typed_config: {path_template: '/a/{b}/**'}}",
        "prefix: /a, runtime_fraction: {default_value: {numerator: 5}}",
        "prefix: /, grpc: {}",
    ]);
    let more = pick(&[
        "",
        ", headers: [{name: x-a, string_match: {exact: b}}]",
        ", headers: [{name: x-a, string_match: {prefix: ''}}, {name: x-a, present_match: true}]",
        ", headers: [{name: x-a, string_match: {exact: 'a*'}, invert_match: true}]",
        ", headers: [{name: ':method', string_match: {exact: POST}}]",
        ", headers: [{name: ':method', string_match: {safe_regex: {regex: 'GET|PUT'}}}]",
        ", headers: [{name: ':path', string_match: {prefix: /x}}]",
        ", headers: [{name: ':authority', string_match: {exact: a}}]",
        ", headers: [{name: 'bad header', present_match: true}]",
        ", headers: [{name: host, present_match: true}, {name: content-length, present_match: true}]",
        ", headers: [{name: x-n, range_match: {start: 1, end: 5}}]",
        ", query_parameters: [{name: q, string_match: {exact: '1'}}]",
        ", query_parameters: [{name: 'q q', present_match: true}]",
    ]);
    (path, more).prop_map(|(path, more)| format!("{{{path}{more}}}"))
}

fn actions() -> impl Strategy<Value = String> {
    pick(&[
        "route: {cluster: a}",
        "route: {cluster: missing}",
        "route: {weighted_clusters: {clusters: [{name: a, weight: 1}, {name: b, weight: 0}]}}",
        "route: {weighted_clusters: {clusters: [{name: a, weight: 0}]}}",
        "route: {cluster: a, prefix_rewrite: /x, timeout: 0s, idle_timeout: 5s}",
        "route: {cluster: a, regex_rewrite: {pattern: {regex: '^/a/(.*)$'}, substitution: '/b/\\1'}}",
        "route: {cluster: a, regex_rewrite: {pattern: {regex: '^/(a|b)'}, substitution: '\\9'}}",
        "route: {cluster: a, host_rewrite_literal: 'b c'}",
        "route: {cluster: a, host_rewrite_literal: b.example, retry_policy: {retry_on: '5xx,reset', num_retries: 3, per_try_timeout: 1s}}",
        "route: {cluster: a, retry_policy: {retry_on: retriable-status-codes, retriable_status_codes: [503, 999]}}",
        "route: {cluster: a, retry_policy: {retry_on: '5xx', num_retries: 5000000}}",
        "route: {cluster: a, request_mirror_policies: [{cluster: b, runtime_fraction: {default_value: {numerator: 5}}}]}",
        "route: {cluster: a, hash_policy: [{header: {header_name: x-u}}]}",
        "route: {cluster_header: x-c}",
        "route: {cluster: t}",
        "redirect: {https_redirect: true}",
        "redirect: {host_redirect: 'a b', path_redirect: '/{x}?q=1'}",
        "redirect: {prefix_rewrite: /new, response_code: FOUND}",
        "direct_response: {status: 200, body: {inline_string: 'a $ %{b} text'}}",
        "direct_response: {status: 99}",
        "direct_response: {status: 204, body: {inline_string: x}}",
        "non_forwarding_action: {}",
        "filter_action: {}",
    ])
}

fn edits() -> impl Strategy<Value = String> {
    pick(&[
        "",
        ", request_headers_to_add: [{header: {key: x-a, value: '%DOWNSTREAM_REMOTE_ADDRESS%'}}]",
        ", request_headers_to_add: [{header: {key: x-a, value: '%UNKNOWN(x)%'}}], request_headers_to_remove: [x-b, x-b]",
        ", request_headers_to_add: [{header: {key: connection, value: close}}, {header: {key: ':path', value: /}}]",
        ", response_headers_to_add: [{header: {key: x-c, value: '100%'}, append_action: ADD_IF_ABSENT}]",
        ", response_headers_to_remove: [content-length, server]",
        ", typed_per_filter_config: {envoy.filters.http.ext_authz: {disabled: true}}",
        ", typed_per_filter_config: {envoy.filters.http.rbac: {}}",
        ", typed_per_filter_config: {envoy.filters.http.jwt_authn: {requirement_name: nothing}}",
        ", typed_per_filter_config: {envoy.filters.http.cors: {allow_origin_string_match: [{exact: '*'}], allow_credentials: true}}",
        ", typed_per_filter_config: {envoy.filters.http.cors: {allow_origin_string_match: [{exact: 'HTTPS://A'}, {safe_regex: {regex: '.*\\.x'}}], max_age: '-1', allow_methods: 'GET,b d'}}",
        ", typed_per_filter_config: {envoy.filters.http.compressor: {disabled: true}}",
    ])
}

fn filters() -> impl Strategy<Value = Vec<String>> {
    let one = pick(&[
        "{name: envoy.filters.http.cors}",
        "{name: envoy.filters.http.grpc_web}",
        "{name: envoy.filters.http.lua}",
        "{name: some.thing}",
        "{name: envoy.filters.http.ext_authz, typed_config: {http_service: {server_uri: {uri: 'http://b', cluster: b, timeout: 1s}, path_prefix: /p}}}",
        "{name: envoy.filters.http.ext_authz, typed_config: {grpc_service: {envoy_grpc: {cluster_name: b}}, failure_mode_allow: true, with_request_body: {max_request_bytes: 10}}}",
        "{name: envoy.filters.http.ext_authz, typed_config: {http_service: {server_uri: {cluster: t}, authorization_response: {allowed_upstream_headers: {patterns: [{exact: 'bad name'}, {exact: host}]}}}}}",
        "{name: envoy.filters.http.jwt_authn, typed_config: {providers: {p: {issuer: i, audiences: [x], remote_jwks: {http_uri: {uri: 'https://b/k?x=y', cluster: b}}, from_headers: [{name: 'x t'}], claim_to_headers: [{header_name: x-s, claim_name: sub}]}}, rules: [{match: {prefix: /a}, requires: {provider_name: p}}]}}",
        "{name: envoy.filters.http.jwt_authn, typed_config: {providers: {p: {issuer: i, local_jwks: {inline_string: 'no keys'}}}, rules: [{match: {prefix: /}, requires: {allow_missing: {}}}]}}",
        "{name: envoy.filters.http.jwt_authn, typed_config: {providers: {'p p': {issuer: '', local_jwks: {inline_string: '{\"keys\":[]}'}, forward: true}}, rules: [{match: {path: /}, requires: {provider_name: 'p p'}}]}}",
        "{name: envoy.filters.http.rbac, typed_config: {rules: {action: DENY, policies: {a: {permissions: [{any: true}], principals: [{any: true}]}}}}}",
        "{name: envoy.filters.http.rbac, typed_config: {rules: {policies: {'a b': {permissions: [{url_path: {path: {prefix: /a}}}], principals: [{direct_remote_ip: {address_prefix: 10.0.0.0, prefix_len: 8}}]}, 'a-b': {permissions: [{destination_port: 99999}], principals: [{authenticated: {}}]}}}}}",
        "{name: envoy.filters.http.rbac, typed_config: {rules: {action: DENY, policies: {a: {permissions: [{header: {name: 'x y', present_match: true}}, {not_rule: {header: {name: ':authority', string_match: {exact: 'A:1'}}}}], principals: [{not_id: {source_ip: {address_prefix: '::1', prefix_len: 64}}}]}}}}}",
        "{name: envoy.filters.http.rbac, typed_config: {rules: {policies: {}}}}",
        "{name: envoy.filters.http.compressor, typed_config: {compressor_library: {name: gzip}, response_direction_config: {common_config: {content_type: ['text/html', 'x', 'a/b c'], min_content_length: 5}}}}",
        "{name: envoy.filters.http.local_ratelimit, typed_config: {token_bucket: {max_tokens: 0, tokens_per_fill: 0, fill_interval: 0s}, filter_enabled: {default_value: {numerator: 100}}, filter_enforced: {default_value: {numerator: 100}}}}",
        "{name: envoy.filters.http.local_ratelimit, typed_config: {token_bucket: {max_tokens: 5, fill_interval: 1s}, filter_enabled: {default_value: {numerator: 100}}, filter_enforced: {default_value: {numerator: 100}}}}",
        "{name: envoy.filters.http.fault, typed_config: {abort: {http_status: 99999, percentage: {numerator: 500}}, delay: {fixed_delay: -1s}}}",
        "{name: envoy.filters.http.health_check, typed_config: {pass_through_mode: false, headers: [{name: ':path', string_match: {exact: /h}}]}}",
    ]);
    prop::collection::vec(one, 0..4)
}

fn clusters() -> impl Strategy<Value = String> {
    let tls = pick(&[
        "",
        ", transport_socket: {name: envoy.transport_sockets.tls, typed_config: {common_tls_context: {}}}",
        ", transport_socket: {name: envoy.transport_sockets.tls, typed_config: {sni: 'a b', common_tls_context: {validation_context: {trusted_ca: {filename: /ca}, match_typed_subject_alt_names: [{matcher: {exact: 'x'}}]}}}}",
    ]);
    let rest = pick(&[
        "",
        ", lb_policy: RING_HASH, circuit_breakers: {thresholds: [{max_connections: 0, max_requests: 5}]}",
        ", outlier_detection: {consecutive_5xx: 0, max_ejection_percent: 500, interval: 0s, base_ejection_time: 1h}",
        ", health_checks: [{timeout: 5s, interval: 1s, http_health_check: {path: /h}}], connect_timeout: 0s",
        ", http2_protocol_options: {max_concurrent_streams: 99999999}",
    ]);
    let address = pick(&["a.internal", "127.0.0.1", "'::1'", "'bad host'", "UPPER", "'a_b'", "''"]);
    let port = pick(&["80", "0", "70000", "x"]);
    (tls, rest, address, port).prop_map(|(tls, rest, address, port)| {
        format!("type: STRICT_DNS{tls}{rest}, load_assignment: {{endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {address}, port_value: {port}}}}}}}}}]}}]}}")
    })
}

fn config() -> impl Strategy<Value = String> {
    let route = (matches(), actions(), edits())
        .prop_map(|(when, action, edits)| format!("{{match: {when}, {action}{edits}}}"));
    let host =
        (domains(), prop::collection::vec(route, 0..4), edits()).prop_map(|(domains, routes, edits)| {
            format!("{{name: v, domains: {domains}, routes: [{}]{edits}}}", routes.join(", "))
        });
    let tls = pick(&[
        "",
        ", transport_socket: {name: envoy.transport_sockets.tls, typed_config: {common_tls_context: {tls_certificates: [{certificate_chain: {filename: /c}, private_key: {filename: /k}}]}}}",
    ]);
    let manager = pick(&[
        "",
        "use_remote_address: true, ",
        "strip_any_host_port: true, codec_type: HTTP2, ",
        "common_http_protocol_options: {idle_timeout: 0s, max_headers_count: 0}, max_request_headers_kb: 99999999, ",
    ]);
    (prop::collection::vec(host, 0..3), filters(), manager, tls, clusters(), clusters()).prop_map(|(hosts, mut filters, manager, tls, a, b)| {
        filters.push("{name: envoy.filters.http.router}".to_owned());
        format!(
            "static_resources:\n  listeners:\n  - {{name: l, address: {{socket_address: {{address: 0.0.0.0, port_value: 10000}}}}, filter_chains: [{{filters: [{{name: envoy.filters.network.http_connection_manager, typed_config: {{{manager}route_config: {{virtual_hosts: [{}]}}, http_filters: [{}]}}}}]{tls}}}]}}\n  clusters:\n  - {{name: a, {a}}}\n  - {{name: b, {b}}}\n  - {{name: t, type: ORIGINAL_DST}}\n",
            hosts.join(", "),
            filters.join(", ")
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_is_imported_of_envoy_is_accepted(text in config()) {
        let file = File { path: "envoy.yaml".into(), text: text.clone() };
        let imported = attache_import::import(ProxyKind::Envoy, &[file]);
        prop_assert!(imported.is_ok(), "{text}\n{imported:?}");

        if let Ok(imported) = imported
            && let Err(wrong) = attache_config::parse(&imported.text, None, &|_| None)
        {
            prop_assert!(false, "{text}\n{}\n{wrong}", imported.text);
        }
    }
}
