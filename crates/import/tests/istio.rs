//! The effect of Istio's objects on requests: the import lets nothing pass that the mesh refused.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use attache_import::{File, Grade, Imported, ProxyKind};

const WORKLOAD: &str = "
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {template: {metadata: {labels: {app: web}}}}
";

fn import(objects: &str) -> Imported {
    let text = format!("{WORKLOAD}---\n{objects}");
    let imported =
        attache_import::import(ProxyKind::Istio, &[File { path: "mesh.yaml".into(), text }]).unwrap();
    if let Err(wrong) = attache_config::parse(&imported.text, None, &|_| None) {
        panic!("{}\n{wrong}", imported.text);
    }
    imported
}

fn policy(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n"
    )
}

#[test]
fn policies_of_other_namespaces_and_workloads_are_not_for_this_one() {
    let deny = "{action: DENY, rules: [{}]}";
    assert!(!import(&policy("a", "elsewhere", deny)).text.contains("closed:"));
    for namespace in ["istio-system", "shop"] {
        let denied = import(&policy("a", namespace, deny));
        assert!(denied.text.contains("authorization: { allow: [] }"), "{}", denied.text);
        assert_ne!(denied.grade, Grade::Point, "{}", denied.text);
    }
    let selected = "{selector: {matchLabels: {app: other}}, action: DENY, rules: [{}]}";
    assert!(!import(&policy("a", "shop", selected)).text.contains("closed:"));
}

#[test]
fn no_rules_match_nothing_and_an_empty_rule_everything() {
    assert!(import(&policy("a", "shop", "{}")).text.contains("authorization: { allow: [] }"));
    let open = import(&(policy("a", "shop", "{}") + &policy("b", "shop", "{rules: [{}]}")));
    assert!(!open.text.contains("authorization"), "{}", open.text);
    assert!(!import(&policy("a", "shop", "{action: DENY}")).text.contains("authorization"));
}

#[test]
fn a_rule_that_cannot_be_said_opens_nothing() {
    let unsaid = "[{from: [{source: {remoteIpBlocks: [10.0.0.0/8]}}]}]";
    let deny = import(&policy("a", "shop", &format!("{{action: DENY, rules: {unsaid}}}")));
    assert!(deny.text.contains("closed:"), "{}", deny.text);
    assert_eq!(deny.grade, Grade::Point);
    let allow = import(&policy("a", "shop", &format!("{{rules: {unsaid}}}")));
    assert!(allow.text.contains("allow: []"), "{}", allow.text);
    assert_eq!(allow.grade, Grade::Point);
}

#[test]
fn the_workloads_own_mode_of_mutual_tls_counts_before_the_namespaces_and_the_meshs() {
    let peers = |namespace: &str, spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: p{}, namespace: {namespace}}}\nspec: {spec}\n---\n",
            spec.len()
        )
    };
    let mesh = peers("istio-system", "{mtls: {mode: STRICT}}");
    assert!(!import(&mesh).text.contains("permissive"));
    assert!(import("").text.contains("permissive"));
    let namespace = mesh.clone() + &peers("shop", "{mtls: {mode: PERMISSIVE}}");
    assert!(import(&namespace).text.contains("permissive"));
    let own = namespace + &peers("shop", "{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}}");
    assert!(!import(&own).text.contains("permissive"));
    let unset = mesh + &peers("shop", "{mtls: {mode: UNSET}}");
    assert!(!import(&unset).text.contains("permissive"));
}

#[test]
fn one_port_in_clear_leaves_the_others_closed() {
    let text = import(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: shop}\nspec: {selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}, portLevelMtls: {9090: {mode: DISABLE}}}\n",
    )
    .text;
    assert!(text.contains("mode: permissive"), "{text}");
    assert!(text.contains("not: { identity: \"*\", port: [9090] }"), "{text}");
}

#[test]
fn calls_within_the_mesh_never_lose_their_encryption_unasked() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\nspec: {clusterIP: None, ports: [{port: 80, name: http}]}\n";
    let text = import(&format!("{service}---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: s, namespace: other}}\nspec: {{}}\n")).text;
    assert!(text.contains("https://a.shop.svc.cluster.local:80"), "{text}");
    assert!(text.contains("peers: spiffe://cluster.local/ns/shop/**"), "{text}");
}

#[test]
fn a_match_that_cannot_be_said_refuses_whatever_it_could_take() {
    let text = import(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a, namespace: shop}\nspec: {hosts: [a], http: [{match: [{uri: {prefix: /x}, authority: {exact: b}}], route: [{destination: {host: b}}]}, {route: [{destination: {host: c}}]}]}\n",
    )
    .text;
    assert!(text.contains("path: \"~/x.*\" }\n        respond: { status: 503"), "{text}");
}

#[test]
fn the_more_specific_route_of_the_gateway_api_comes_first_wherever_it_stands() {
    let text = import(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: shop}\nspec:\n  parentRefs: [{kind: Service, name: a}]\n  rules:\n  - backendRefs: [{name: wide, port: 80}]\n  - matches: [{path: {value: /deep}}]\n    backendRefs: [{name: deep, port: 80}]\n  - matches: [{path: {type: Exact, value: /deep/x}}]\n    backendRefs: [{name: exact, port: 80}]\n",
    )
    .text;
    let place =
        |what: &str| text.find(&format!("to: {what}.shop")).unwrap_or_else(|| panic!("{what}: {text}"));
    assert!(place("exact") < place("deep") && place("deep") < place("wide"), "{text}");
    assert!(!text.contains('~'), "a prefix of segments stays one: {text}");
}
