//! A route's settings for Envoy's filters open nothing that Envoy keeps closed.

#![allow(clippy::unwrap_used, missing_docs)]

use attache_import::{File, ProxyKind};

/// The import of an Envoy with these filters, and this `typed_per_filter_config` on its only route.
fn imported(filters: &str, own: &str) -> String {
    let text = format!(
        "static_resources: {{listeners: [{{name: in, address: {{socket_address: {{address: 127.0.0.1, port_value: 10000}}}}, filter_chains: [{{filters: [{{\
         name: envoy.filters.network.http_connection_manager, typed_config: {{stat_prefix: in, route_config: {{virtual_hosts: [{{name: v, domains: ['*'], \
         routes: [{{match: {{prefix: /}}, route: {{cluster: a}}, typed_per_filter_config: {{{own}}}}}]}}]}}, http_filters: [{filters}, {{name: \
         envoy.filters.http.router}}]}}}}]}}]}}], clusters: [{{name: a, type: STRICT_DNS, load_assignment: {{endpoints: [{{lb_endpoints: [{{endpoint: \
         {{address: {{socket_address: {{address: a.internal, port_value: 80}}}}}}}}]}}]}}}}]}}"
    );
    let file = File { path: "envoy.yaml".into(), text };
    attache_import::import(ProxyKind::Envoy, &[file]).unwrap().text
}

const RBAC: &str = "{name: envoy.filters.http.rbac, typed_config: {rules: {action: ALLOW, policies: {p: {permissions: [{header: {name: ':method', \
                    string_match: {exact: GET}}}], principals: [{any: true}]}}}}}";
const LUA: &str =
    "{name: NAME, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua}}";
const WRAPPED: &str = "'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig";
const PER_ROUTE: &str = "'@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute";

fn is_open(text: &str) -> bool {
    // Nothing is denied, and no method is required.
    text.contains("to: a") && !text.contains("methods: GET") && !text.contains("403")
}

#[test]
fn a_filter_that_is_only_said_to_be_on_keeps_its_rules() {
    for own in [
        format!("envoy.filters.http.rbac: {{{WRAPPED}}}"),
        format!("envoy.filters.http.rbac: {{{WRAPPED}, is_optional: true, config: {{}}}}"),
        format!("envoy.filters.http.rbac: {{{WRAPPED}, disabled: false}}"),
    ] {
        let text = imported(RBAC, &own);
        assert!(!is_open(&text), "{own}:\n{text}");
    }
}

#[test]
fn rules_within_a_wrapper_are_those_of_the_route() {
    let rules = "{rules: {action: ALLOW, policies: {p: {permissions: [{header: {name: ':method', string_match: {exact: POST}}}], principals: [{any: true}]}}}}";
    let text = imported(
        RBAC,
        &format!("envoy.filters.http.rbac: {{{WRAPPED}, config: {{{PER_ROUTE}, rbac: {rules}}}}}"),
    );
    assert!(!is_open(&text) && text.contains("POST"), "{text}");
}

#[test]
fn a_filter_is_off_where_envoy_turns_it_off() {
    for own in [
        format!("envoy.filters.http.rbac: {{{WRAPPED}, disabled: true}}"),
        format!("envoy.filters.http.rbac: {{{PER_ROUTE}}}"),
        format!("envoy.filters.http.rbac: {{{WRAPPED}, config: {{{PER_ROUTE}}}}}"),
    ] {
        let text = imported(RBAC, &own);
        assert!(is_open(&text), "{own}:\n{text}");
    }
}

#[test]
fn a_filter_with_a_name_of_its_own_is_turned_off_by_that_name_alone() {
    let off = "'@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.LuaPerRoute, disabled: true";
    let closed = |text: &str| text.contains("closed:");
    let own = LUA.replace("NAME", "checks");
    assert!(closed(&imported(&own, &format!("envoy.filters.http.lua: {{{off}}}"))));
    assert!(!closed(&imported(&own, &format!("checks: {{{off}}}"))));
    // Envoy's own names have an older spelling.
    let named = LUA.replace("NAME", "envoy.filters.http.lua");
    assert!(!closed(&imported(&named, &format!("envoy.lua: {{{off}}}"))));
}
