//! Files of other programs that are given by mistake: one line says what it is and what to do, in place of fifty about keys that aren't known.
//!
//! A file is told by its top-level keys (YAML and JSON), or by the first words of its lines (other formats). What could be a config of attache
//! with a mistake in it is never taken for another program's.

/// What can be done with a file that `attache import` reads.
const IMPORT: &str = "`attache import FILE` prints it as a config of attache, and says what is lost";

/// What a text is that is no config of attache, and what to do with it.
pub(crate) fn recognize(text: &str) -> Option<(&'static str, &'static str)> {
    let text = text.trim_start_matches('\u{feff}');
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
    if has("services") && (text.contains("image:") || text.contains("build:")) {
        return Some((
            "this is a Compose file",
            "a config of attache is a file of its own; deploy/compose has an example of both",
        ));
    }
    if keys.is_empty() { lines(text) } else { None }
}

/// Keys of the outermost mapping. None where the text isn't one, as far as can be told without parsing YAML.
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
    text.lines().map(str::trim_end).filter_map(name).collect()
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
        "`attache inject FILE` puts attache into its pods; a config of attache stands in a file of its own, or in a ConfigMap",
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
    // A block or a directive of nginx ends so, and no line of HAProxy does.
    let punctuated = lines().filter(|line| line.ends_with(['{', '}', ';'])).count();
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
        let nginx = ["http", "events", "server", "upstream", "location", "stream", "listen", "proxy_pass"];
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
            ("services:\n  web:\n    image: nginx\n", "Compose file"),
            ("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "certificate in PEM"),
            ("-----BEGIN EC PRIVATE KEY-----\nMIIB\n-----END EC PRIVATE KEY-----\n", "private key in PEM"),
        ] {
            assert_eq!(is(text).as_deref().map(|is| is.trim_start_matches("n ")), Some(what), "{text}");
        }
    }

    #[test]
    fn a_config_of_ours_with_a_mistake_is_not_taken_for_another_s() {
        for text in [
            crate::FORWARD_PROXY,
            "upstreams:\n  orders: https://orders.internal:8443\n",
            "upstream:\n  orders: https://orders.internal:8443\n",
            "listners:\n  a: { bind: ':1' }\nupstraems:\n  a: http://b\n",
            "listeners: { a: { bind: ':1', routes: [{ match: { path: '/socket' }, to: b }] } }\nupstream: { b: 'http://c' }\n",
            "x-a: 1\naccess_log: stdout\n",
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
