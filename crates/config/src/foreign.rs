//! Files of other programs that are given by mistake: one line says what it is and what to do, in place of fifty about keys that aren't known.

/// What a text is that is no config of attache, and what to do with it.
pub(crate) fn recognize(text: &str) -> Option<(&'static str, &'static str)> {
    const IMPORT: &str = "`attache import FILE` prints it as a config of attache, and says what is lost";
    let lines = || text.lines().map(str::trim_end).filter(|line| !line.trim_start().starts_with('#'));
    let key = |name: &str| {
        lines().any(|line| line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with(':')))
            // The same as JSON.
            || lines().any(|line| line.trim_start().trim_start_matches('{').trim_start().starts_with(&format!("\"{name}\"")))
    };
    if key("listeners") && key("upstreams") {
        return None;
    }
    if key("apiVersion") && key("kind") {
        if text.contains("istio.io/") {
            return Some((
                "this is a resource of Istio",
                "write what it says as `routes` of a listener and `upstreams`: docs/routing.md and docs/resilience.md",
            ));
        }
        return Some((
            "this is a Kubernetes manifest",
            "`attache inject FILE` puts attache into its pods; a config of attache stands in a file of its own, or in a ConfigMap",
        ));
    }
    if key("static_resources") || key("dynamic_resources") {
        return Some(("this is a config of Envoy", IMPORT));
    }
    if key("services") && (text.contains("image:") || text.contains("build:")) {
        return Some((
            "this is a Compose file",
            "a config of attache is a file of its own; deploy/compose has an example of both",
        ));
    }
    let first =
        |line: &str, words: &[&str]| line.split_whitespace().next().is_some_and(|word| words.contains(&word));
    let haproxy =
        lines().filter(|line| first(line, &["frontend", "backend", "defaults", "global", "listen"]));
    if haproxy.filter(|line| !line.contains([':', ';', '{'])).count() >= 2 {
        return Some(("this is a config of HAProxy", IMPORT));
    }
    let nginx = lines().filter(|line| {
        let line = line.trim_start();
        let block = line.ends_with('{')
            && first(line, &["http", "events", "server", "upstream", "location", "stream"]);
        block
            || (line.ends_with(';')
                && first(line, &["listen", "proxy_pass", "server_name", "worker_processes"]))
    });
    if nginx.count() >= 2 {
        return Some(("this is a config of nginx", IMPORT));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_others_are_recognized_and_our_own_are_not() {
        let is =
            |text: &str| recognize(text).map(|(what, _)| what.trim_start_matches("this is a ").to_owned());
        for (text, what) in [
            ("static_resources:\n  listeners: []\n", "config of Envoy"),
            ("{\n  \"static_resources\": {}\n}", "config of Envoy"),
            ("apiVersion: v1\nkind: Pod\n---\napiVersion: v1\nkind: Pod\n", "Kubernetes manifest"),
            ("global\n  maxconn 9\ndefaults\n  mode http\nfrontend web\n  bind *:80\n", "config of HAProxy"),
            ("events {\n}\nhttp {\n  server {\n    listen 80;\n  }\n}\n", "config of nginx"),
            ("services:\n  web:\n    image: nginx\n", "Compose file"),
        ] {
            assert_eq!(is(text).as_deref(), Some(what), "{text}");
        }
        assert_eq!(is(crate::FORWARD_PROXY), None);
        assert_eq!(is("upstreams:\n  orders: https://orders.internal:8443\n"), None);
        assert_eq!(is("x-a: 1\naccess_log: stdout\n"), None);
    }
}
