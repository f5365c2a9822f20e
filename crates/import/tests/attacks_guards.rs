//! Guards of Envoy in spellings and places that an importer easily misses: no import of them is more open than the
//! original.

#![allow(clippy::unwrap_used, missing_docs)]

use attache_import::{File, Grade, Imported, ProxyKind};

fn import(text: &str) -> Imported {
    let file = File { path: "envoy.yaml".into(), text: text.to_owned() };
    attache_import::import(ProxyKind::Envoy, &[file]).unwrap()
}

const CLUSTERS: &str = "clusters: [{name: a, type: STRICT_DNS, load_assignment: {endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: \
                        {address: a.internal, port_value: 80}}}}]}]}}, {name: b, type: STRICT_DNS, load_assignment: {endpoints: [{lb_endpoints: \
                        [{endpoint: {address: {socket_address: {address: b.internal, port_value: 80}}}}]}]}}]";

/// A listener with these keys.
fn listener(keys: &str) -> Imported {
    import(&format!(
        "static_resources: {{listeners: [{{name: in, address: {{socket_address: {{address: 127.0.0.1, port_value: 10000}}}}, {keys}}}], {CLUSTERS}}}"
    ))
}

/// A connection manager with these keys, HTTP filters and routes.
fn manager(keys: &str, filters: &str, routes: &str) -> String {
    format!(
        "{{name: envoy.filters.network.http_connection_manager, typed_config: {{stat_prefix: in, {keys} route_config: {{virtual_hosts: [{{name: v, domains: ['*'], routes: [{routes}]}}]}}, http_filters: [{filters} {{name: envoy.filters.http.router}}]}}}}"
    )
}

const ALL: &str = "{match: {prefix: /}, route: {cluster: a}}";

fn filters(filters: &str) -> Imported {
    listener(&format!("filter_chains: [{{filters: [{}]}}]", manager("", filters, ALL)))
}

fn routes(filters: &str, routes: &str) -> Imported {
    listener(&format!("filter_chains: [{{filters: [{}]}}]", manager("", filters, routes)))
}

fn rbac(action: &str, policy: &str) -> String {
    format!(
        "{{name: envoy.filters.http.rbac, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: {{action: {action}, policies: {{p: {{{policy}}}}}}}}}}},"
    )
}

/// Routes that go to an upstream.
fn opened(imported: &Imported) -> usize {
    imported.text.lines().filter(|line| line.trim_start().trim_start_matches("- ").starts_with("to:")).count()
}

fn assert_closed(what: &str, imported: &Imported) {
    assert_eq!(opened(imported), 0, "{what}:\n{}", imported.text);
    assert_eq!(imported.grade, Grade::Point, "{what}:\n{}", imported.text);
}

#[test]
fn a_filter_whose_config_is_discovered_is_not_the_one_that_its_name_says() {
    for name in ["rbac", "jwt_authn", "fault", "cors", "router", "grpc_stats"] {
        let filter = format!(
            "{{name: envoy.filters.http.{name}, config_discovery: {{config_source: {{ads: {{}}}}, type_urls: [x]}}}},"
        );
        assert_closed(name, &filters(&filter));
    }
    let open = manager("", "", ALL);
    let rbac = "{name: envoy.filters.network.rbac, configDiscovery: {config_source: {ads: {}}}}";
    assert_closed("of connections", &listener(&format!("filter_chains: [{{filters: [{rbac}, {open}]}}]")));
    let inspector = "{name: envoy.filters.listener.tls_inspector, config_discovery: {}}";
    assert_closed(
        "of a listener",
        &listener(&format!("listener_filters: [{inspector}], filter_chains: [{{filters: [{open}]}}]")),
    );
}

#[test]
fn the_type_of_a_typed_struct_says_what_a_filter_is() {
    let filter = "{name: envoy.filters.http.cors, typed_config: {'@type': type.googleapis.com/xds.type.v3.TypedStruct, type_url: type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, value: {rules: {action: DENY, policies: {p: {permissions: [{any: true}], principals: [{any: true}]}}}}}},";
    let imported = filters(filter);
    assert_eq!(opened(&imported), 0, "{}", imported.text);
    assert!(imported.text.contains("respond: { status: 403"), "{}", imported.text);
}

#[test]
fn yes_and_on_are_true_as_yaml_reads_them() {
    for word in ["yes", "On", "TRUE", "y"] {
        let imported = listener(&format!(
            "filter_chains: [{{filters: [{}], transport_socket: {{name: envoy.transport_sockets.tls, typed_config: {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, require_client_certificate: {word}, common_tls_context: {{tls_certificates: [{{certificate_chain: {{filename: /c}}, private_key: {{filename: /k}}}}], validation_context: {{trusted_ca: {{filename: /ca}}}}}}}}}}}}]",
            manager("", "", ALL)
        ));
        assert!(!imported.text.contains("client_optional"), "{word}:\n{}", imported.text);
    }
    let denied = "{match: {prefix: /ADMIN, case_sensitive: no}, direct_response: {status: 403}},";
    let imported = routes("", &format!("{denied} {ALL}"));
    assert!(imported.text.contains("(?i:/ADMIN"), "{}", imported.text);
}

#[test]
fn a_header_that_rbac_asks_for_is_given_once() {
    let imported = filters(&rbac(
        "ALLOW",
        "permissions: [{header: {name: x-role, string_match: {exact: admin}}}], principals: [{any: true}]",
    ));
    // One of several fields is enough for the route, so the other fields must not have other values.
    assert!(
        imported.text.contains("deny: [{ name: several-x-role, not: { headers: { x-role: admin } } }]"),
        "{}",
        imported.text
    );
    assert_eq!(imported.grade, Grade::Nothing);
    let imported = filters(&rbac(
        "DENY",
        "permissions: [{header: {name: x-role, string_match: {exact: guest}}}], principals: [{any: true}]",
    ));
    assert!(!imported.text.contains("several-"), "{}", imported.text);
}

#[test]
fn claims_are_those_of_the_payload_that_the_rule_reads() {
    let tokens = |providers: &[(&str, &str)]| {
        let all: Vec<String> = providers
            .iter()
            .map(|(name, keys)| format!("{name}: {{issuer: 'https://{name}', local_jwks: {{inline_string: '{{\"keys\":[]}}'}}, {keys}}}"))
            .collect();
        let any: Vec<String> =
            providers.iter().map(|(name, _)| format!("{{provider_name: {name}}}")).collect();
        let requires = if any.len() == 1 {
            any.concat()
        } else {
            format!("{{requires_any: {{requirements: [{}]}}}}", any.join(", "))
        };
        format!(
            "{{name: envoy.filters.http.jwt_authn, typed_config: {{providers: {{{}}}, rules: [{{match: {{prefix: /}}, requires: {requires}}}]}}}},",
            all.join(", ")
        )
    };
    let rule = |path: &str| {
        rbac(
            "ALLOW",
            &format!(
                "permissions: [{{any: true}}], principals: [{{metadata: {{filter: envoy.filters.http.jwt_authn, path: [{path}], value: {{string_match: {{exact: admin}}}}}}}}]"
            ),
        )
    };
    let wanted = rule("{key: pay}, {key: role}");
    let named = tokens(&[("p", "payload_in_metadata: pay")]);
    assert_eq!(opened(&filters(&format!("{named} {wanted}"))), 1);
    for (what, text) in [
        ("no payload", format!("{} {wanted}", tokens(&[("p", "")]))),
        ("another key", format!("{named} {}", rule("{key: other}, {key: role}"))),
        (
            "the token's head",
            format!(
                "{} {}",
                tokens(&[("p", "payload_in_metadata: pay, header_in_metadata: head")]),
                rule("{key: head}, {key: kid}")
            ),
        ),
        (
            "two keys",
            format!(
                "{} {wanted}",
                tokens(&[("p", "payload_in_metadata: pay"), ("q", "payload_in_metadata: other")])
            ),
        ),
        ("in front of the tokens", format!("{wanted} {named}")),
        ("a name with a dot", format!("{named} {}", rule("{key: pay}, {key: 'https://x.example/role'}"))),
    ] {
        assert_closed(what, &filters(&text));
    }
}

#[test]
fn a_health_check_behind_a_guard_is_guarded() {
    let check = "{name: envoy.filters.http.health_check, typed_config: {headers: [{name: ':path', string_match: {exact: /healthz}}]}},";
    let nobody = rbac("DENY", "permissions: [{any: true}], principals: [{any: true}]");
    assert!(!filters(&format!("{nobody} {check}")).text.contains("respond: 200"));
    assert!(filters(&format!("{check} {nobody}")).text.contains("respond: 200"));
}

#[test]
fn headers_that_become_metadata_are_removed_where_that_is_said() {
    let filter = "{name: envoy.filters.http.header_to_metadata, typed_config: {request_rules: [{header: x-admin, on_header_present: {metadata_namespace: n, key: k}, remove: true}, {header: x-kept, on_header_present: {metadata_namespace: n, key: k}}]}},";
    let imported = filters(filter);
    assert!(
        imported.text.contains("remove: [x-admin]") && !imported.text.contains("x-kept"),
        "{}",
        imported.text
    );
    let guard = rbac(
        "ALLOW",
        "permissions: [{header: {name: x-admin, present_match: true}}], principals: [{any: true}]",
    );
    assert_closed("read behind it", &filters(&format!("{filter} {guard}")));
}

#[test]
fn a_fault_for_some_requests_is_one_for_them() {
    let fault = |conditions: &str| {
        filters(&format!(
            "{{name: envoy.filters.http.fault, typed_config: {{abort: {{http_status: 403, percentage: {{numerator: 100}}}}, {conditions}}}}},"
        ))
    };
    let imported = fault("headers: [{name: x-block, string_match: {exact: '1'}}]");
    let (with, without) = (imported.text.find("x-block"), imported.text.rfind("to: a\n"));
    assert!(with < without && imported.text.matches("abort:").count() == 1, "{}", imported.text);
    assert_eq!(imported.grade, Grade::Nothing, "{}", imported.text);
    assert_eq!(fault("upstream_cluster: a").grade, Grade::Point);
    assert_eq!(fault("headers: [{name: x-block, string_match: {custom: {}}}]").grade, Grade::Point);
    let grpc = filters(
        "{name: envoy.filters.http.fault, typed_config: {abort: {grpc_status: 7, percentage: {numerator: 100}}}},",
    );
    assert_eq!(grpc.grade, Grade::Point);
}

#[test]
fn limits_of_every_level_count() {
    let limited = |filter: &str, route: &str, host: &str| {
        let filter = format!(
            "{{name: envoy.filters.http.ratelimit, typed_config: {{domain: d, rate_limit_service: {{grpc_service: {{envoy_grpc: {{cluster_name: b}}}}}}, {filter}}}}}"
        );
        listener(&format!(
            "filter_chains: [{{filters: [{{name: envoy.filters.network.http_connection_manager, typed_config: {{stat_prefix: in, route_config: {{virtual_hosts: [{{name: v, domains: ['*'], {host} routes: [{{match: {{prefix: /}}, {route}}}]}}]}}, http_filters: [{filter}, {{name: envoy.filters.http.router}}]}}}}]}}]"
        ))
    };
    let address = "[{actions: [{remote_address: {}}]}]";
    let word = |word: &str| format!("[{{actions: [{{generic_key: {{descriptor_value: {word}}}}}]}}]");
    let host = format!("rate_limits: {address},");
    let route = |more: &str| format!("route: {{cluster: a, {more} rate_limits: {}}}", word("x"));
    let has = |imported: &Imported| {
        (imported.text.contains("remote_address"), imported.text.contains("descriptor_value: x"))
    };
    assert_eq!(has(&limited("", &route(""), &host)), (false, true));
    assert_eq!(has(&limited("", &route("include_vh_rate_limits: true,"), &host)), (true, true));
    assert_eq!(has(&limited("", "route: {cluster: a}", &host)), (true, false));
    let own = |keys: &str| {
        format!(
            "{}, typed_per_filter_config: {{envoy.filters.http.ratelimit: {{'@type': type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute, {keys}}}}}",
            route("")
        )
    };
    assert_eq!(has(&limited("", &own("vh_rate_limits: INCLUDE"), &host)), (true, true));
    assert_eq!(has(&limited("", &own(&format!("rate_limits: {address}")), "")), (true, false));
    assert_eq!(has(&limited(&format!("rate_limits: {address}"), "route: {cluster: a}", "")), (true, false));
}

#[test]
fn what_is_lost_of_limits_and_answers_is_said() {
    for (what, filter) in [
        ("answers", "{name: envoy.filters.http.custom_response, typed_config: {}},"),
        (
            "state",
            "{name: envoy.filters.http.set_filter_state, typed_config: {on_request_headers: [{object_key: envoy.upstream.dynamic_host}]}},",
        ),
    ] {
        assert_eq!(filters(filter).grade, Grade::Point, "{what}");
    }
    let keyed = |keys: &str| listener(&format!("filter_chains: [{{filters: [{}]}}]", manager(keys, "", ALL)));
    let sized = filters("{name: envoy.filters.http.buffer, typed_config: {max_request_bytes: 1000}},");
    assert!(sized.text.contains("body_size: 1000B"), "{}", sized.text);
    for action in ["2", "REJECT_REQUEST"] {
        assert!(
            keyed(&format!("path_with_escaped_slashes_action: {action},"))
                .text
                .contains("escaped_slashes: reject"),
            "{action}"
        );
    }
    assert_closed("a status", &routes("", "{match: {prefix: /}, direct_response: {status: none}}"));
}

#[test]
fn endpoints_that_metadata_chose_are_not_all_endpoints() {
    let proxy = "{name: envoy.filters.network.tcp_proxy, typed_config: {stat_prefix: t, cluster: a, metadata_match: {filter_metadata: {envoy.lb: {stage: test}}}}}";
    assert_closed("tcp_proxy", &listener(&format!("filter_chains: [{{filters: [{proxy}]}}]")));
}

#[test]
fn parameters_of_a_path_belong_to_it() {
    let imported = routes(
        "",
        "{match: {path: /ok}, route: {cluster: a}}, {match: {prefix: /}, direct_response: {status: 403}}",
    );
    assert!(imported.text.contains("parameters: keep"), "{}", imported.text);
    assert!(!filters("").text.contains("parameters"));
}

/// A config with a further cluster that has these keys, and a route to it.
fn cluster(keys: &str) -> Imported {
    let to = "{match: {prefix: /}, route: {cluster: c}}";
    let cluster = format!("{{name: c, connect_timeout: 1s, {keys}}}");
    import(&format!(
        "static_resources: {{listeners: [{{name: in, address: {{socket_address: {{address: 127.0.0.1, port_value: 10000}}}}, filter_chains: [{{filters: [{}]}}]}}], clusters: [{cluster}, {{name: a, type: STATIC, load_assignment: {{endpoints: []}}}}]}}",
        manager("", "", to)
    ))
}

#[test]
fn a_cluster_that_goes_elsewhere_than_it_seems_goes_nowhere() {
    let there = "load_assignment: {endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: c.internal, port_value: 80}}}}]}]}";
    let verified = |keys: &str| {
        format!(
            "type: STRICT_DNS, {there}, transport_socket: {{name: envoy.transport_sockets.tls, typed_config: {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: c.example, common_tls_context: {{validation_context: {{trusted_ca: {{filename: /ca}}, {keys}}}}}}}}}"
        )
    };
    let dns = format!("type: STRICT_DNS, {there}");
    for keys in [
        "cluster_type: {name: envoy.clusters.aggregate, typed_config: {'@type': type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig, clusters: [a]}}".to_owned(),
        "type: ORIGINAL_DST, original_dst_lb_config: {use_http_header: true}".to_owned(),
        format!("{dns}, transport_socket_matches: [{{name: m, match: {{a: b}}, transport_socket: {{name: envoy.transport_sockets.tls}}}}]"),
        format!("{dns}, filters: [{{name: x}}]"),
        verified("verify_certificate_hash: [aa]"),
        verified("custom_validator_config: {name: envoy.tls.cert_validator.spiffe}"),
        verified("crl: {inline_string: x}"),
        verified("match_typed_subject_alt_names: [{san_type: DNS, matcher: {safe_regex: {regex: 'a.*'}}}]"),
    ] {
        let imported = cluster(&keys);
        assert!(imported.text.contains("c.invalid"), "{keys}:\n{}", imported.text);
        assert_eq!(imported.grade, Grade::Point, "{keys}");
    }
    let forward = cluster(
        "cluster_type: {name: envoy.clusters.dynamic_forward_proxy, typed_config: {'@type': type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig}}",
    );
    assert!(forward.text.contains("address: authority"), "{}", forward.text);
    assert!(cluster(&verified("")).text.contains("https://c.internal:80"));
}

#[test]
fn what_a_virtual_host_says_of_all_its_routes_counts() {
    let imported = listener(
        "filter_chains: [{filters: [{name: envoy.filters.network.http_connection_manager, typed_config: {stat_prefix: in, route_config: {request_mirror_policies: [{cluster: b}], virtual_hosts: [{name: v, domains: ['*'], retry_policy: {retry_on: 5xx, num_retries: 3}, routes: [{match: {prefix: /}, route: {cluster: a, host_rewrite_literal: x.example, append_x_forwarded_host: true}}]}]}, http_filters: [{name: envoy.filters.http.router}]}}]}]",
    );
    for part in ["retry:", "mirror:", "x-forwarded-host: \"%{request.host}\""] {
        assert!(imported.text.contains(part), "{part}:\n{}", imported.text);
    }
}
