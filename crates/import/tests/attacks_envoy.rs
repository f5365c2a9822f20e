//! Configs of Envoy that refuse some requests, in forms that an importer easily misses: no import of them is more open
//! than the original.

#![allow(clippy::unwrap_used, missing_docs)]

use attache_import::{File, Grade, Imported, ProxyKind};

fn import(text: &str) -> Imported {
    let file = File { path: "envoy.yaml".into(), text: text.to_owned() };
    attache_import::import(ProxyKind::Envoy, &[file]).unwrap()
}

const CLUSTERS: &str = "clusters: [{name: a, type: STRICT_DNS, load_assignment: {endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: \
                        {address: a.internal, port_value: 80}}}}]}]}}, {name: b, type: STRICT_DNS, load_assignment: {endpoints: [{lb_endpoints: \
                        [{endpoint: {address: {socket_address: {address: b.internal, port_value: 80}}}}]}]}}]";

/// Envoy with these filter chains (and more keys of the listener), and these keys beside `static_resources`.
fn listener(keys: &str, more: &str) -> Imported {
    import(&format!(
        "static_resources: {{listeners: [{{name: in, address: {{socket_address: {{address: 127.0.0.1, port_value: 10000}}}}, {keys}}}], {CLUSTERS}}}\n{more}"
    ))
}

/// A connection manager with these keys.
fn manager(keys: &str) -> String {
    format!(
        "{{name: envoy.filters.network.http_connection_manager, typed_config: {{stat_prefix: in, {keys}}}}}"
    )
}

/// The keys of a connection manager with these virtual hosts and filters.
fn hosts(keys: &str, filters: &str, hosts: &str) -> String {
    manager(&format!(
        "{keys} route_config: {{virtual_hosts: [{hosts}]}}, http_filters: [{filters} {{name: envoy.filters.http.router}}]"
    ))
}

const EVERYTHING: &str = "{name: all, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: a}}]}";
const NOTHING: &str =
    "{name: no, domains: ['*'], routes: [{match: {prefix: /}, direct_response: {status: 403}}]}";

fn open() -> String {
    hosts("", "", EVERYTHING)
}

fn shut() -> String {
    hosts("", "", NOTHING)
}

/// One chain of these filters.
fn chain(filters: &str) -> Imported {
    listener(&format!("filter_chains: [{{filters: [{filters}]}}]"), "")
}

/// Routes that go to an upstream.
fn opened(imported: &Imported) -> usize {
    imported.text.lines().filter(|line| line.trim_start().trim_start_matches("- ").starts_with("to:")).count()
}

/// Whether each route to an upstream comes after this answer to the same requests.
fn is_behind(imported: &Imported, answer: &str) -> bool {
    let (answer, route) = (imported.text.find(answer), imported.text.find(" to: a\n"));
    answer.is_some() && route.is_none_or(|route| answer < Some(route))
}

fn assert_closed(what: &str, imported: &Imported) {
    assert_eq!(opened(imported), 0, "{what}:\n{}", imported.text);
    assert_eq!(imported.grade, Grade::Point, "{what}:\n{}", imported.text);
}

#[test]
fn rbac_of_connections_is_kept_in_all_its_forms() {
    let rbac = |config: &str| {
        chain(&format!(
            "{{name: envoy.filters.network.rbac, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, stat_prefix: r, {config}}}}}, {}",
            open()
        ))
    };
    assert_closed("a matcher tree", &rbac("matcher: {matcher_list: {matchers: []}}"));
    let policies = "policies: {p: {permissions: [{any: true}], principals: [{direct_remote_ip: {address_prefix: 10.0.0.0, prefix_len: 8}}]}}";
    for action in ["DENY", "1"] {
        let imported = rbac(&format!("rules: {{action: {action}, {policies}}}"));
        assert!(
            imported.text.contains("deny:") && !imported.text.contains("allow:"),
            "{action}:\n{}",
            imported.text
        );
    }
    for action in ["LOG", "2"] {
        assert!(
            !rbac(&format!("rules: {{action: {action}, {policies}}}")).text.contains("authorization"),
            "{action}"
        );
    }
}

#[test]
fn what_a_chain_took_that_is_left_out_does_not_meet_another_chain() {
    for conditions in [
        "source_prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]",
        "direct_source_prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]",
        "source_ports: [1000]",
        "source_type: EXTERNAL",
    ] {
        let imported = listener(
            &format!(
                "filter_chains: [{{filter_chain_match: {{{conditions}}}, filters: [{}]}}, {{filters: [{}]}}]",
                shut(),
                open()
            ),
            "",
        );
        assert_closed(conditions, &imported);
    }
    // Only connections that could match such a chain are refused.
    let imported = listener(
        &format!(
            "filter_chains: [{{filter_chain_match: {{destination_port: 8080, source_ports: [1000]}}, filters: [{}]}}, {{filter_chain_match: {{destination_port: 9090}}, filters: [{}]}}]",
            shut(),
            open()
        ),
        "",
    );
    assert_eq!(opened(&imported), 1, "{}", imported.text);
}

#[test]
fn a_default_chain_has_what_no_other_takes_whatever_stands_in_it() {
    let imported = listener(
        &format!(
            "filter_chains: [{{filter_chain_match: {{destination_port: 8080}}, filters: [{}]}}], default_filter_chain: {{filter_chain_match: {{destination_port: 9090}}, filters: [{}]}}",
            open(),
            shut()
        ),
        "",
    );
    let (to, shut) = (
        imported.text.find("to: a"),
        imported.text.find("status: 403").or_else(|| imported.text.find("respond: 403")),
    );
    assert!(to.is_some() && shut.is_some() && !imported.text.contains("9090"), "{}", imported.text);
}

#[test]
fn chains_that_are_told_apart_by_their_protocol_are_not_one() {
    let imported = listener(
        &format!(
            "filter_chains: [{{filter_chain_match: {{application_protocols: [h2]}}, filters: [{}]}}, {{filters: [{}]}}]",
            open(),
            shut()
        ),
        "",
    );
    assert_closed("application_protocols", &imported);
    let imported = listener(
        &format!(
            "filter_chains: [{{filter_chain_match: {{application_protocols: [http/1.1]}}, filters: [{0}]}}, {{filters: [{0}]}}]",
            open()
        ),
        "",
    );
    assert_eq!(opened(&imported), 1, "both do the same:\n{}", imported.text);
}

#[test]
fn what_chooses_or_refuses_connections_and_is_not_known_closes_the_listener() {
    let chains = format!("filter_chains: [{{name: x, filters: [{}]}}]", open());
    assert_closed(
        "a matcher of chains",
        &listener(&format!("{chains}, filter_chain_matcher: {{matcher_tree: {{}}}}"), ""),
    );
    assert_closed(
        "a listener filter",
        &listener(&format!("{chains}, listener_filters: [{{name: example.listener.guard}}]"), ""),
    );
}

#[test]
fn headers_that_a_filter_removes_are_removed() {
    let mutation = |changes: &str, own: &str| {
        chain(&hosts(
            "",
            &format!(
                "{{name: envoy.filters.http.header_mutation, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation, mutations: {{{changes}}}}}}}, {own}"
            ),
            EVERYTHING,
        ))
    };
    let imported = mutation(
        "request_mutations: [{remove: x-admin}], response_mutations: [{remove: x-secret}, {append: {header: {key: x-by, value: e}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}]",
        "",
    );
    for part in ["x-admin", "x-secret", "x-by"] {
        assert!(imported.text.contains(part), "{part}:\n{}", imported.text);
    }
    assert_ne!(imported.grade, Grade::Point, "{}", imported.text);
    // A guard behind the filter read the changed request.
    let rbac = "{name: envoy.filters.http.rbac, typed_config: {rules: {action: ALLOW, policies: {p: {permissions: [{header: {name: x-admin, string_match: {exact: 'yes'}}}], principals: [{any: true}]}}}}},";
    assert_closed("rbac", &mutation("request_mutations: [{remove: X-Admin}]", rbac));
    let asked = "{name: envoy.filters.http.ext_authz, typed_config: {http_service: {server_uri: {uri: http://b, cluster: b, timeout: 1s}}}},";
    assert_closed("ext_authz", &mutation("request_mutations: [{remove: x-user}]", asked));
    let other = "{name: envoy.filters.http.rbac, typed_config: {rules: {action: ALLOW, policies: {p: {permissions: [{header: {name: x-other, string_match: {exact: 'yes'}}}], principals: [{any: true}]}}}}},";
    assert_eq!(opened(&mutation("request_mutations: [{remove: x-admin}]", other)), 1);
}

#[test]
fn a_part_of_a_split_gives_no_header_through_that_it_removed_or_set() {
    let split = |parts: &str| {
        chain(&hosts(
            "",
            "",
            &format!(
                "{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{weighted_clusters: {{clusters: [{parts}]}}}}}}]}}"
            ),
        ))
    };
    let imported = split(
        "{name: a, weight: 50, request_headers_to_remove: [x-admin], request_headers_to_add: [{header: {key: x-user, value: none}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]}, {name: b, weight: 50}",
    );
    let removed =
        imported.text.split("remove:").nth(1).unwrap_or_default().lines().take(4).collect::<String>();
    assert!(removed.contains("x-admin") && removed.contains("x-user"), "{}", imported.text);
    assert_eq!(imported.grade, Grade::Point);
    // With one part alone the changes are those of the route.
    let imported = split(
        "{name: a, weight: 100, request_headers_to_remove: [x-admin], request_headers_to_add: [{header: {key: x-user, value: none}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]}",
    );
    assert!(imported.text.contains("x-admin") && imported.text.contains("x-user: none"), "{}", imported.text);
    assert_ne!(imported.grade, Grade::Point, "{}", imported.text);
}

#[test]
fn a_host_that_can_not_be_said_does_not_fall_to_another_virtual_host() {
    for domain in ["*-internal.example.com", "admin-*", "*internal"] {
        let imported = chain(&hosts(
            "",
            "",
            &format!(
                "{{name: no, domains: ['{domain}'], routes: [{{match: {{prefix: /}}, direct_response: {{status: 403}}}}]}}, {EVERYTHING}"
            ),
        ));
        // No host that the domain could match is open.
        let closed = match domain {
            "*-internal.example.com" => {
                imported.text.contains("host: \"*.example.com\"")
                    || imported.text.contains("host: '*.example.com'")
            }
            _ => opened(&imported) == 0,
        };
        assert!(closed && imported.text.contains("closed:"), "{domain}:\n{}", imported.text);
    }
}

#[test]
fn clients_are_verified_or_refused() {
    let tls = |validation: &str, required: bool| {
        listener(
            &format!(
                "filter_chains: [{{filters: [{}], transport_socket: {{name: envoy.transport_sockets.tls, typed_config: {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, require_client_certificate: {required}, common_tls_context: {{tls_certificates: [{{certificate_chain: {{filename: /c}}, private_key: {{filename: /k}}}}], validation_context: {{{validation}}}}}}}}}}}]",
                open()
            ),
            "",
        )
    };
    for validation in [
        "trusted_ca: {inline_bytes: AAAA}",
        "trusted_ca: {environment_variable: CA}",
        "custom_validator_config: {name: envoy.tls.cert_validator.spiffe, typed_config: {trust_domains: []}}",
        "system_root_certs: {}",
        "trusted_ca: {filename: /ca}, crl: {inline_string: x}",
        "trusted_ca: {filename: /ca}, max_verify_depth: 1",
        "trusted_ca: {filename: /ca}, custom_validator_config: {name: envoy.tls.cert_validator.spiffe}",
        "trusted_ca: {filename: /ca}, match_subject_alt_names: [{safe_regex: {regex: '.*'}}]",
    ] {
        assert_closed(validation, &tls(validation, true));
    }
    let imported = tls("trusted_ca: {filename: /ca}", true);
    assert!(
        imported.text.contains("client_ca: /ca") && !imported.text.contains("client_optional"),
        "{}",
        imported.text
    );
    // v2 has its TLS under another key.
    let v2 = listener(
        &format!(
            "filter_chains: [{{filters: [{}], tls_context: {{require_client_certificate: true, common_tls_context: {{tls_certificates: [{{certificate_chain: {{filename: /c}}, private_key: {{filename: /k}}}}], validation_context: {{trusted_ca: {{filename: /ca}}}}}}}}}}]",
            open()
        ),
        "",
    );
    assert!(v2.text.contains("client_ca: /ca") && !v2.text.contains("client_optional"), "{}", v2.text);
}

fn condition(condition: &str) -> Imported {
    chain(&hosts(
        "",
        "",
        &format!(
            "{{name: v, domains: ['*'], routes: [{{match: {{prefix: /, headers: [{condition}]}}, direct_response: {{status: 403}}}}, {{match: {{prefix: /}}, route: {{cluster: a}}}}]}}"
        ),
    ))
}

#[test]
fn a_matcher_that_is_not_known_is_not_a_matcher_of_everything() {
    for text in [
        "{name: x, newest_match: a}",
        "{name: x, string_match: {custom: {name: y}}}",
        "{name: x, string_match: {exact: a}, treat_missing_header_as_empty: true}",
    ] {
        let imported = condition(text);
        assert!(is_behind(&imported, "closed:"), "{text}:\n{}", imported.text);
    }
    let numbers = condition("{name: x, range_match: {start: 7, end: 9}}");
    let pattern = numbers
        .text
        .lines()
        .find_map(|line| line.trim().strip_prefix("x: ").or_else(|| line.split("x: ").nth(1)))
        .unwrap_or_default()
        .trim_matches(['"', '\'', ' ', '}']);
    let regex =
        regex::Regex::new(&format!("^(?:{})$", pattern.trim_start_matches('~').replace("\\\\", "\\")))
            .unwrap();
    assert!(
        ["7", "8", "007", "+7"].iter().all(|text| regex.is_match(text))
            && !regex.is_match("9")
            && !regex.is_match("77"),
        "{}",
        numbers.text
    );
}

#[test]
fn values_of_the_runtime_count() {
    let share = "runtime_fraction: {default_value: {numerator: NUM}, runtime_key: deny.share}";
    let with = |numerator: &str, runtime: &str| {
        listener(
            &format!(
                "filter_chains: [{{filters: [{}]}}]",
                hosts(
                    "",
                    "",
                    &format!(
                        "{{name: v, domains: ['*'], routes: [{{match: {{prefix: /, {}}}, direct_response: {{status: 403}}}}, {{match: {{prefix: /}}, route: {{cluster: a}}}}]}}",
                        share.replace("NUM", numerator)
                    )
                )
            ),
            runtime,
        )
    };
    let fixed = |value: &str| format!("layered_runtime: {{layers: [{{name: s, static_layer: {value}}}]}}");
    // The value of a static layer overrides the default.
    for value in [
        "{deny.share: 100}",
        "{deny: {share: 100}}",
        "{deny: {share: {numerator: 1000000, denominator: MILLION}}}",
    ] {
        let imported = with("0", &fixed(value));
        assert!(is_behind(&imported, "respond: 403"), "{value}:\n{}", imported.text);
    }
    let imported = with("100", &fixed("{deny: {share: 0}}"));
    assert!(opened(&imported) == 1 && !imported.text.contains("403"), "{}", imported.text);
    // The last layer wins.
    let imported = with(
        "0",
        "layered_runtime: {layers: [{name: s, static_layer: {deny.share: 0}}, {name: t, static_layer: {deny.share: 100}}]}",
    );
    assert!(is_behind(&imported, "respond: 403"), "{}", imported.text);
    // A value outside the config is unknown, so a refusal of a share refuses all requests.
    for layer in ["disk_layer: {symlink_root: /r}", "rtds_layer: {name: r, rtds_config: {ads: {}}}"] {
        let imported = with(
            "0",
            &format!("layered_runtime: {{layers: [{{name: s, static_layer: {{}}}}, {{name: x, {layer}}}]}}"),
        );
        let said = imported.remarks.iter().any(|remark| remark.text.contains("deny.share"));
        assert!(said && is_behind(&imported, "respond: 403"), "{layer}:\n{}", imported.text);
    }
    // The older form.
    assert!(is_behind(&with("0", "runtime: {base: {deny: {share: 100}}}"), "respond: 403"));
}

#[test]
fn what_changes_or_removes_headers_before_routes_closes_what_reads_them() {
    let early = "early_header_mutation_extensions: [{name: envoy.http.early_header_mutation.header_mutation, typed_config: {mutations: [{remove: x-role}]}}],";
    assert_closed("early header mutation", &chain(&hosts(early, "", EVERYTHING)));
    let inner = |reads: &str, filters: &str| {
        chain(&manager(&format!(
            "use_remote_address: true, route_config: {{internal_only_headers: [X-Role], virtual_hosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /, {reads}}}, route: {{cluster: a}}}}]}}]}}, http_filters: [{filters} {{name: envoy.filters.http.router}}]"
        )))
    };
    assert_closed(
        "internal_only_headers",
        &inner("headers: [{name: x-role, string_match: {exact: admin}}]", ""),
    );
    assert_eq!(opened(&inner("headers: [{name: x-other, string_match: {exact: admin}}]", "")), 1);
    for policies in [
        // Once as routes, once as rules.
        "permissions: [{header: {name: x-role, string_match: {exact: admin}}}], principals: [{any: true}]",
        "permissions: [{not_rule: {header: {name: x-role, string_match: {exact: guest}}}}], principals: [{any: true}]",
    ] {
        let rbac = format!(
            "{{name: envoy.filters.http.rbac, typed_config: {{rules: {{action: ALLOW, policies: {{p: {{{policies}}}}}}}}}}},"
        );
        assert_closed(policies, &inner("headers: []", &rbac));
    }
}

#[test]
fn an_origin_that_takes_a_star_is_everybody() {
    let cors = |origin: &str, credentials: bool| {
        chain(&hosts(
            "",
            "{name: envoy.filters.http.cors},",
            &format!(
                "{{name: v, domains: ['*'], typed_per_filter_config: {{envoy.filters.http.cors: {{allow_origin_string_match: [{origin}], allow_credentials: {credentials}}}}}, routes: [{{match: {{prefix: /}}, route: {{cluster: a}}}}]}}"
            ),
        ))
    };
    for origin in [
        "{exact: '*'}",
        "{safe_regex: {regex: '\\*'}}",
        "{safe_regex: {regex: '.*'}}",
        "{prefix: ''}",
        "{contains: ''}",
    ] {
        let imported = cors(origin, false);
        assert!(
            imported.text.contains("origins: \"*\"")
                || imported.text.contains("origins: ['*']")
                || imported.text.contains("origins: [\"*\"]"),
            "{origin}:\n{}",
            imported.text
        );
        // With credentials every page could act as the user.
        let imported = cors(origin, true);
        assert!(
            !imported.text.contains("origins:") && imported.grade == Grade::Point,
            "{origin}:\n{}",
            imported.text
        );
    }
    assert!(!cors("{safe_regex: {regex: 'https://.*'}}", false).text.contains("origins: \"*\""));
}

#[test]
fn what_a_limit_said_beside_its_bucket_is_not_lost_unsaid() {
    let limited = |more: &str| {
        chain(&hosts(
            "",
            &format!(
                "{{name: envoy.filters.http.local_ratelimit, typed_config: {{token_bucket: {{max_tokens: 2, tokens_per_fill: 2, fill_interval: 5s}}, filter_enabled: {{default_value: {{numerator: 100}}}}, filter_enforced: {{default_value: {{numerator: 100}}}}, {more}}}}},"
            ),
            EVERYTHING,
        ))
    };
    assert_eq!(limited("response_headers_to_add: [{header: {key: a, value: b}}]").grade, Grade::Soft);
    assert_eq!(limited("local_rate_limit_per_downstream_connection: true").grade, Grade::Point);
    assert_ne!(limited("newest: {}").grade, Grade::Nothing);
    assert_eq!(limited("local_rate_limit_per_downstream_connection: false").grade, Grade::Nothing);
}
