//! Objects of a mesh that refuse some requests, in forms that an importer easily misses: no import of them is more open
//! than the original.

#![allow(clippy::unwrap_used, missing_docs)]

use attache_import::{File, Grade, Imported, ProxyKind};

const WORKLOAD: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec: {template: {metadata: {labels: {app: web}}}}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: orders, namespace: shop}\nspec: {ports: [{name: http, port: 80}]}\n";

fn import(objects: &str) -> Imported {
    let file = File { path: "objects.yaml".into(), text: format!("{WORKLOAD}---\n{objects}") };
    attache_import::import(ProxyKind::Istio, &[file]).unwrap()
}

fn virtual_service(route: &str) -> Imported {
    import(&format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: orders, namespace: shop}}\nspec: {{hosts: [orders], http: [{{{route}}}]}}\n"
    ))
}

fn policy(spec: &str) -> Imported {
    import(&format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
    ))
}

/// The listener for calls to the workload.
fn inbound(imported: &Imported) -> &str {
    let start = imported.text.find("  inbound:").unwrap();
    let end = imported.text[start..].find("\nupstreams:").map_or(imported.text.len(), |end| start + end);
    &imported.text[start..end]
}

fn is_shut(imported: &Imported) -> bool {
    let text = inbound(imported);
    text.contains("closed:") || text.contains("allow: []")
}

#[test]
fn headers_of_the_only_destination_are_those_of_the_route() {
    let imported =
        virtual_service("route: [{destination: {host: orders}, headers: {request: {remove: [x-admin]}}}]");
    assert!(imported.text.contains("x-admin"), "{}", imported.text);
    let imported = virtual_service(
        "route: [{destination: {host: orders}, headers: {response: {remove: [x-secret]}, request: {set: {x-user: none}}}}]",
    );
    assert!(
        imported.text.contains("x-secret") && imported.text.contains("x-user: none"),
        "{}",
        imported.text
    );
}

#[test]
fn what_is_not_known_of_a_route_refuses_it() {
    for route in [
        "match: [{uri: {prefix: /a}, newestMatch: x}], route: [{destination: {host: orders}}]",
        "match: [{headers: {x-role: {suffix: admin}}}], route: [{destination: {host: orders}}]",
        "match: [{uri: {suffix: /a}}], route: [{destination: {host: orders}}]",
        "match: [{queryParams: {x: {newest: a}}}], route: [{destination: {host: orders}}]",
        "newestGuard: {}, route: [{destination: {host: orders}}]",
        "delegate: {name: other}",
        "match: [{scheme: {exact: https}}], route: [{destination: {host: orders}}]",
    ] {
        let imported = virtual_service(route);
        assert!(
            imported.text.contains("closed:") && imported.grade == Grade::Point,
            "{route}:\n{}",
            imported.text
        );
    }
    // The route is for other workloads.
    let imported =
        virtual_service("match: [{sourceLabels: {app: other}}], route: [{destination: {host: orders}}]");
    assert!(!imported.text.contains("to: orders"), "{}", imported.text);
}

#[test]
fn the_share_of_a_mirror_is_said_in_several_ways() {
    for share in ["mirrorPercent: 10", "mirror_percent: 10", "mirrorPercentage: {value: 10}"] {
        let imported = virtual_service(&format!(
            "route: [{{destination: {{host: orders}}}}], mirror: {{host: orders}}, {share}"
        ));
        assert!(imported.text.contains("10%"), "{share}:\n{}", imported.text);
    }
}

#[test]
fn policies_are_as_strict_as_they_were() {
    // No client is allowed.
    for spec in ["{}", "{action: ALLOW}", "{rules: []}"] {
        assert!(is_shut(&policy(spec)), "{spec}:\n{}", policy(spec).text);
    }
    // Every client is allowed.
    for spec in
        ["{rules: [{}]}", "{action: DENY}", "{action: AUDIT, rules: [{}]}", "{action: DENY, rules: []}"]
    {
        let imported = policy(spec);
        assert!(
            !is_shut(&imported) && !inbound(&imported).contains("authorization"),
            "{spec}:\n{}",
            imported.text
        );
    }
    // Every client is denied, or the decision belongs to a service that isn't here.
    for spec in [
        "{action: DENY, rules: [{}]}",
        "{action: CUSTOM, provider: {name: x}, rules: [{}]}",
        "{action: NEWEST, rules: [{}]}",
        "{action: deny, rules: [{to: [{operation: {paths: [/admin]}}]}]}",
        "{selector: {matchExpressions: [{key: app}]}, action: DENY, rules: [{}]}",
        "{action: DENY, rules: [{to: [{operation: {newest: [a]}}]}]}",
        "{action: DENY, rules: [{from: [{newest: {}}]}]}",
        "{action: DENY, rules: [{when: [{key: newest, values: [a]}]}]}",
        "{action: DENY, rules: [{newest: []}]}",
    ] {
        assert!(is_shut(&policy(spec)), "{spec}:\n{}", policy(spec).text);
    }
    // An unknown condition allows no client.
    for spec in [
        "{rules: [{to: [{operation: {newest: [a]}}]}]}",
        "{rules: [{from: [{newest: {principals: [a/b]}}]}]}",
        "{rules: [{when: [{key: source.ip, newest: [a]}]}]}",
        "{rules: [{when: [{key: 'request.auth.claims[a]', values: [b]}]}]}",
    ] {
        assert!(is_shut(&policy(spec)), "{spec}:\n{}", policy(spec).text);
    }
}

#[test]
fn an_object_that_may_decide_and_is_not_known_closes_everything() {
    for (group, kind) in [
        ("security.istio.io/v2", "NewestPolicy"),
        ("extensions.istio.io/v1", "NewestPlugin"),
        ("gateway.example.io/v1", "AccessPolicy"),
    ] {
        let imported = import(&format!(
            "apiVersion: {group}\nkind: {kind}\nmetadata: {{name: x, namespace: shop}}\nspec: {{}}\n---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: s, namespace: shop}}\nspec: {{}}\n"
        ));
        assert!(is_shut(&imported), "{kind}:\n{}", imported.text);
    }
    let imported = import(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\nmetadata: {name: x, namespace: shop}\nspec: {}\n",
    );
    assert!(!is_shut(&imported), "{}", imported.text);
}

#[test]
fn a_policy_of_other_workloads_is_not_this_ones() {
    let imported = policy("{selector: {matchLabels: {app: other}}, action: DENY, rules: [{}]}");
    assert!(!is_shut(&imported), "{}", imported.text);
    assert!(is_shut(&policy("{selector: {matchLabels: {app: web}}, action: DENY, rules: [{}]}")));
}

#[test]
fn a_host_of_a_policy_is_not_one_with_another_port() {
    for (spec, hosts) in [
        ("{rules: [{to: [{operation: {hosts: [Example.com]}}]}]}", r"host: ~(?i:Example\.com)"),
        (
            "{action: DENY, rules: [{to: [{operation: {notHosts: [a.example, 'b.example:8080']}}]}]}",
            r"not: { host: [~(?i:a\.example), ~(?i:b\.example:8080)] }",
        ),
        (
            "{rules: [{when: [{key: 'request.headers[:authority]', values: [a.example]}]}]}",
            r"host: ~(?i:a\.example)",
        ),
        ("{rules: [{to: [{operation: {hosts: ['example.com:*']}}]}]}", r"host: ~(?i:example\.com:.*)"),
    ] {
        let text = inbound(&policy(spec)).replace('"', "").replace("\\\\", "\\");
        assert!(text.contains(hosts), "{spec}:\n{}", policy(spec).text);
    }
    let within = policy("{rules: [{to: [{operation: {hosts: ['ex*ple.com']}}]}]}");
    assert!(is_shut(&within), "{}", within.text);
}

#[test]
fn tokens_are_verified_without_a_policy_that_reads_them() {
    let imported = import(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: r, namespace: shop}\nspec: {jwtRules: [{issuer: 'https://i', jwksUri: 'https://i/keys'}]}\n",
    );
    let text = inbound(&imported);
    assert!(text.contains("required: false") && !is_shut(&imported), "{}", imported.text);
}
