//! Files of other programs that are given by mistake: one line says what it is and what to do, in place of fifty about
//! keys that aren't known.
//!
//! A file is recognized by its top-level keys (YAML and JSON), or by the first words of its lines (other formats). A
//! file that could be a config of attache with a mistake in it is never taken for another program's.

use crate::suggest;

/// What can be done with a file that `attache import` reads.
const IMPORT: &str = "`attache import FILE` prints it as a config of attache, and says what is lost";

const ANOTHER: &str = "`attache schema` describes a config of attache; the smallest is `upstreams: { orders: https://orders.internal:8443 }`";

/// The kind of a text that is not a config of attache, and what to do with it.
pub(crate) fn recognize(text: &str) -> Option<(&'static str, &'static str)> {
    let text = text.trim_start_matches('\u{feff}');
    if text.lines().any(|line| line.starts_with("{{")) {
        return Some((
            "this is a template: its `{{ … }}` have to be filled in first",
            "fill it in first, as `helm template` does; a config of attache itself takes `${VARIABLE}`",
        ));
    }
    if text.trim_start().starts_with('<') {
        return Some(("this is XML or HTML", ANOTHER));
    }
    if text.trim_start().starts_with("-----BEGIN ") {
        return Some(pem(text));
    }
    let keys = keys(text);
    let has = |name: &str| keys.iter().any(|key| key == name);
    if has("upstreams") {
        return None;
    }
    if has("apiVersion") && has("kind") {
        return Some(kubernetes(text));
    }
    if is_envoy(text, &has) {
        return Some(("this is a config of Envoy", IMPORT));
    }
    if has("clusters")
        && ["load_assignment", "connect_timeout", "lb_policy"].iter().any(|word| text.contains(word))
    {
        return Some(("this is a part of a config of Envoy", IMPORT));
    }
    if ["entryPoints", "certificatesResolvers"].into_iter().any(has)
        || (has("http") && text.contains("routers:"))
    {
        return Some(("this is a config of Traefik", ANOTHER));
    }
    if has("apps") && text.contains("\"http\"") {
        return Some((
            "this is a config of Caddy",
            "write what it says as `listeners` and `upstreams`: docs/README.md has a first config",
        ));
    }
    if has("_format_version") {
        return Some(("this is a config of Kong", ANOTHER));
    }
    if has("services") && (text.contains("image:") || text.contains("build:")) {
        return Some((
            "this is a Compose file",
            "attache needs a separate config file; deploy/compose has an example of both",
        ));
    }
    if keys.is_empty() {
        return lines(text);
    }
    // Several keys, none of which could be meant for one of ours.
    let strange = |key: &String| !key.starts_with("x-") && !is_known(key);
    (keys.len() > 1 && keys.iter().all(strange)).then_some(("this is a file of another program", ANOTHER))
}

/// A key that some section of a config has, or one spelt nearly so, or another program's word for it.
fn is_known(key: &str) -> bool {
    let root = crate::schema::annotated();
    let sections = root.get("$defs").and_then(serde_json::Value::as_object).into_iter().flatten();
    let sections = sections.map(|(_, section)| section).chain([root]);
    let known = || {
        sections
            .clone()
            .filter_map(|section| section.get("properties").and_then(serde_json::Value::as_object))
            .flat_map(|properties| properties.keys().map(String::as_str))
    };
    known().any(|known| known == key)
        || root
            .get("properties")
            .and_then(serde_json::Value::as_object)
            .is_some_and(|properties| suggest::meant(key, properties.keys().map(String::as_str)).is_some())
}

/// Keys of the outermost mapping. Empty if the text is not a mapping, as far as this is visible without parsing YAML.
fn keys(text: &str) -> Vec<String> {
    if text.trim_start().starts_with('{') {
        let json: Option<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(text).ok();
        return json.map(|map| map.into_iter().map(|(key, _)| key).collect()).unwrap_or_default();
    }
    let name = |line: &str| {
        let (key, rest) = line.split_once(':')?;
        let key = key.trim_end().trim_matches(['"', '\'']);
        let plain = !key.is_empty() && !key.starts_with(['#', '-', ' ', '\t']) && !key.contains(['{', ' ']);
        (plain && (rest.is_empty() || rest.starts_with([' ', '\t']))).then(|| key.to_owned())
    };
    // A part that was cut out of a larger file is indented as a whole.
    let lines =
        || text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with(['#', '%']));
    let indent = lines().next().map_or(0, |first| first.len() - first.trim_start_matches(' ').len());
    let outermost = |line| {
        let (before, rest) = str::split_at_checked(line, indent)?;
        before.bytes().all(|byte| byte == b' ').then_some(rest)
    };
    lines().filter_map(outermost).filter_map(name).collect()
}

fn pem(text: &str) -> (&'static str, &'static str) {
    if text.contains("PRIVATE KEY-----") {
        return (
            "this is a private key in PEM",
            "a config names it: `tls: { certificate: FILE, key: FILE }` of a listener or an upstream",
        );
    }
    (
        "this is a certificate in PEM",
        "a config names it: `tls: { certificate: FILE, key: FILE }` of a listener, `tls: { ca: FILE }` of an upstream",
    )
}

fn kubernetes(text: &str) -> (&'static str, &'static str) {
    if text.contains("istio.io/") || text.contains("gateway.networking.k8s.io/") {
        return ("this is a resource of Istio or of the Gateway API", IMPORT);
    }
    (
        "this is a Kubernetes manifest",
        "`attache inject FILE` puts attache into its pods; the config of attache is a separate file, or a ConfigMap",
    )
}

/// A bootstrap file, a file of resources, or a part of either.
fn is_envoy(text: &str, has: &dyn Fn(&str) -> bool) -> bool {
    ["static_resources", "dynamic_resources", "staticResources", "dynamicResources"].into_iter().any(has)
        || ["type.googleapis.com/envoy.", "socket_address", "filter_chains"]
            .into_iter()
            .any(|word| text.contains(word))
}

/// Formats that are no YAML, by the first words of their lines.
fn lines(text: &str) -> Option<(&'static str, &'static str)> {
    let lines =
        || text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';']));
    let begins = |words: &[&str]| {
        lines()
            .filter(|line| {
                let first = line.split([' ', '\t', '{']).next().unwrap_or_default();
                words.contains(&first)
            })
            .count()
    };
    // Blocks and directives of nginx end with these characters, lines of HAProxy never do.
    let punctuated = lines().map(|line| line.matches(['{', '}', ';']).count()).sum::<usize>();
    if lines().any(|line| line.starts_with("ghostunnel ")) {
        return Some(("this is a command line of ghostunnel", IMPORT));
    }
    if punctuated >= 2 {
        if begins(&["reverse_proxy", "file_server", "handle", "tls"]) > 0 && !text.contains(';') {
            return Some((
                "this is a Caddyfile",
                "write what it says as `listeners` and `upstreams`: docs/README.md has a first config",
            ));
        }
        let nginx = [
            "http",
            "events",
            "server",
            "upstream",
            "location",
            "stream",
            "listen",
            "proxy_pass",
            "user",
            "include",
            "worker_processes",
        ];
        return (begins(&nginx) > 0).then_some(("this is a config of nginx", IMPORT));
    }
    if begins(&["frontend", "backend", "defaults", "global", "listen"]) > 0
        && begins(&["bind", "server", "default_backend", "mode", "maxconn", "timeout", "option"]) > 0
    {
        return Some(("this is a config of HAProxy", IMPORT));
    }
    let assigned = |name: &str| {
        lines().any(|line| line.split_once('=').is_some_and(|(key, _)| key.trim().eq_ignore_ascii_case(name)))
    };
    if assigned("accept") && assigned("connect") {
        return Some(("this is a config of stunnel", IMPORT));
    }
    let section = lines().any(|line| line.starts_with('[') && line.ends_with(']') && !line.contains(','));
    (section && lines().any(|line| line.contains(" = ") || line.contains('='))).then_some((
        "this is a TOML or an INI file",
        "a config of attache is YAML: `attache schema` describes it, and config/ has examples",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_others_are_recognized() {
        let is = |text: &str| {
            recognize(text).map(|(what, _)| what.trim_start_matches("this is a").trim_start().to_owned())
        };
        for (text, what) in [
            ("static_resources:\n  listeners: []\n", "config of Envoy"),
            ("{\n  \"static_resources\": {}\n}", "config of Envoy"),
            (r#"{"admin":{"address":{}},"static_resources":{"listeners":[]}}"#, "config of Envoy"),
            ("admin: {}\ndynamicResources: {}\n", "config of Envoy"),
            (
                "listeners:\n- address: { socket_address: { address: ::, port_value: 1 } }\nclusters: []\n",
                "config of Envoy",
            ),
            (
                "resources:\n- \"@type\": type.googleapis.com/envoy.config.listener.v3.Listener\n",
                "config of Envoy",
            ),
            (
                r#"{"configs":[{"@type":"type.googleapis.com/envoy.admin.v3.ListenersConfigDump"}]}"#,
                "config of Envoy",
            ),
            ("apiVersion: v1\nkind: Pod\n---\napiVersion: v1\nkind: Pod\n", "Kubernetes manifest"),
            (r#"{"kind":"Pod","apiVersion":"v1"}"#, "Kubernetes manifest"),
            ("---\n\"kind\": Deployment\n\"apiVersion\": apps/v1\n", "Kubernetes manifest"),
            (
                "apiVersion: v1\nkind: ConfigMap\ndata:\n  a.yaml: |\n    upstreams: {}\n",
                "Kubernetes manifest",
            ),
            (
                "apiVersion: networking.istio.io/v1\nkind: Gateway\n",
                "resource of Istio or of the Gateway API",
            ),
            ("global\n  maxconn 9\ndefaults\n  mode http\nfrontend web\n  bind *:80\n", "config of HAProxy"),
            ("listen web :80\n\tserver s1 127.0.0.1:80 check\n", "config of HAProxy"),
            ("events {\n}\nhttp {\n  server {\n    listen 80;\n  }\n}\n", "config of nginx"),
            (
                "server{\n\tlisten 80;\n\tlocation /{\n\t\tproxy_pass http://a:80;\n\t}\n}\n",
                "config of nginx",
            ),
            ("upstream a {\n  server 127.0.0.1:80;\n}\n", "config of nginx"),
            ("example.com {\n\treverse_proxy localhost:80\n}\n", "Caddyfile"),
            ("; a comment\n[a]\nclient = yes\naccept = 1\nconnect=b:443\n", "config of stunnel"),
            ("ghostunnel client --listen localhost:1 --target a:2\n", "command line of ghostunnel"),
            ("[server]\nport = 1\n", "TOML or an INI file"),
            ("  static_resources:\n    listeners: []\n", "config of Envoy"),
            ("clusters:\n- name: a\n  load_assignment: {}\n", "part of a config of Envoy"),
            ("server { listen 80; location / { proxy_pass http://a; } }\n", "config of nginx"),
            ("user www-data;\nworker_processes auto;\n", "config of nginx"),
            (
                "{{- if .Values.x }}\napiVersion: v1\n{{- end }}\n",
                "template: its `{{ … }}` have to be filled in first",
            ),
            ("entryPoints:\n  web:\n    address: ':80'\n", "config of Traefik"),
            ("http:\n  routers:\n    a: { rule: b }\n", "config of Traefik"),
            ("global:\n  scrape_interval: 15s\nscrape_configs: []\n", "file of another program"),
            ("replicaCount: 1\nimage:\n  repository: a\n", "file of another program"),
            ("openapi: 3.0.0\ninfo: {}\npaths: {}\n", "file of another program"),
            ("services:\n  web:\n    image: nginx\n", "Compose file"),
            ("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "certificate in PEM"),
            ("-----BEGIN EC PRIVATE KEY-----\nMIIB\n-----END EC PRIVATE KEY-----\n", "private key in PEM"),
        ] {
            assert_eq!(is(text).as_deref().map(|is| is.trim_start_matches("n ")), Some(what), "{text}");
        }
    }

    #[test]
    fn a_config_of_attache_with_a_mistake_is_not_taken_for_another_programs() {
        for text in [
            crate::FORWARD_PROXY,
            "upstreams:\n  orders: https://orders.internal:8443\n",
            "upstream:\n  orders: https://orders.internal:8443\n",
            "listners:\n  a: { bind: ':1' }\nupstraems:\n  a: http://b\n",
            "listeners: { a: { bind: ':1', routes: [{ match: { path: '/socket' }, to: b }] } }\nupstream: { b: 'http://c' }\n",
            "x-a: 1\naccess_log: stdout\n",
            "bind: ':1'\nto: orders\n",
            "x-a: 1\nx-b: 2\n",
            "listner: {}\nupstreem: {}\n",
            "frontends: {}\nbackends: {}\n",
            "{ upstreams: { a: 'http://b' } }",
            "{ \"upstreams\": { \"a\": \"http://b\" } }",
            "# server {\n# }\nupstreams: { a: 'http://b' }\n",
            "",
            "hello\n",
            "[1, 2]\n",
        ] {
            assert_eq!(recognize(text), None, "{text}");
        }
    }
}
