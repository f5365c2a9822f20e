//! Envoy's part of the admin API: every endpoint, in Envoy's form.
//!
//! `ENVOY=PATH` names an Envoy. Then its responses for a similar config are compared too.

use std::{collections::BTreeSet, fs, net::SocketAddr, process::Command};

use attache_tests::{Attache, TestProcess, curl, eventually, free_port, local, nginx, text};
use serde_json::{Value, json};

fn upstream(address: SocketAddr) -> TestProcess {
    nginx(
        &format!(
            "server {{ listen {address}; location / {{ return 200 ok; }} location /broken {{ return 503; }} }}"
        ),
        address,
    )
}

fn start(upstream: SocketAddr) -> Attache {
    let attache = Attache::start(&format!(
        "admin: {{ bind: '127.0.0.1:$ADMIN', envoy_compatible: true }}\n\
         listeners: {{ inbound: {{ bind: '127.0.0.1:$PORT', to: app }} }}\n\
         upstreams: {{ app: {{ address: 'http://{upstream}', circuit_breaker: {{ max_requests: 77 }} }} }}\n"
    ));
    for path in ["/", "/", "/broken"] {
        curl([attache.url(path)]);
    }
    attache
}

fn split(answer: &str) -> (u16, String, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    let kind = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-type: ").map(str::to_owned));
    (status, kind.unwrap_or_default(), body.to_owned())
}

fn get(at: SocketAddr, path: &str) -> (u16, String, String) {
    split(&text(&curl(["--include", &format!("http://{at}{path}")])))
}

fn post(at: SocketAddr, path: &str) -> (u16, String, String) {
    split(&text(&curl(["--include", "--request", "POST", &format!("http://{at}{path}")])))
}

fn json_of(at: SocketAddr, path: &str) -> Value {
    let (status, kind, body) = get(at, path);
    assert_eq!((status, kind.as_str()), (200, "application/json"), "{path}: {body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
}

#[test]
fn every_endpoint_answers_in_envoys_form() {
    let server = local(free_port());
    let _upstream = upstream(server);
    let attache = start(server);
    let admin = local(attache.admin);

    assert_eq!(get(admin, "/ready"), (200, "text/plain; charset=utf-8".into(), "LIVE\n".into()));

    let info = json_of(admin, "/server_info");
    assert_eq!(info["state"], "LIVE");
    assert!(info["version"].as_str().unwrap().starts_with("attache/"), "{info}");
    assert!(info["uptime_current_epoch"].as_str().unwrap().ends_with('s'), "{info}");

    let clusters = json_of(admin, "/clusters?format=json");
    let app = &clusters["cluster_statuses"][0];
    assert_eq!(app["name"], "app");
    assert_eq!(app["circuit_breakers"]["thresholds"][0]["max_requests"], 77);
    let host = &app["host_statuses"][0];
    let address = json!({ "socket_address": { "address": "127.0.0.1", "port_value": server.port() } });
    assert_eq!(host["address"], address);
    assert_eq!(host["health_status"], json!({ "eds_health_status": "HEALTHY" }));
    assert_eq!(host["stats"][1], json!({ "type": "GAUGE", "name": "rq_active", "value": "0" }));

    let (status, _, lines) = get(admin, "/clusters");
    assert_eq!(status, 200);
    for line in [
        "app::observability_name::app".to_owned(),
        "app::default_priority::max_requests::77".to_owned(),
        "app::added_via_api::false".to_owned(),
        format!("app::{server}::rq_active::0"),
        format!("app::{server}::health_flags::healthy"),
        format!("app::{server}::weight::1"),
    ] {
        assert!(lines.lines().any(|own| own == line), "{line}\n{lines}");
    }

    let dump = json_of(admin, "/config_dump");
    let types: Vec<_> = dump["configs"].as_array().unwrap().iter().map(|one| one["@type"].clone()).collect();
    let type_of = |name: &str| json!(format!("type.googleapis.com/envoy.admin.v3.{name}ConfigDump"));
    assert_eq!(types, [type_of("Bootstrap"), type_of("Clusters"), type_of("Listeners")]);
    assert_eq!(dump["configs"][1]["static_clusters"][0]["cluster"]["name"], "app");
    assert_eq!(dump["configs"][2]["static_listeners"][0]["listener"]["name"], "inbound");

    for path in ["/stats/prometheus", "/stats?format=prometheus&usedonly"] {
        let (status, kind, page) = get(admin, path);
        assert_eq!(status, 200);
        assert!(kind.starts_with("text/plain"), "{kind}");
        for line in [
            "envoy_cluster_upstream_rq_total{envoy_cluster_name=\"app\"} 3",
            "envoy_cluster_upstream_rq{envoy_cluster_name=\"app\",envoy_response_code=\"503\"} 1",
            "envoy_cluster_upstream_rq_xx{envoy_cluster_name=\"app\",envoy_response_code_class=\"2\"} 2",
        ] {
            assert!(page.lines().any(|own| own == line), "{line}\n{page}");
        }
    }

    let (status, _, body) = get(admin, "/stats?filter=^cluster.app.upstream_rq_(total|5|2xx)&usedonly");
    assert_eq!(status, 200);
    for line in [
        "cluster.app.upstream_rq_2xx: 2",
        "cluster.app.upstream_rq_503: 1",
        "cluster.app.upstream_rq_total: 3",
    ] {
        assert!(body.lines().any(|own| own == line), "{line}\n{body}");
    }
    assert!(
        body.lines().all(|line| line.starts_with("cluster.app.upstream_rq_") && !line.ends_with(": 0")),
        "{body}"
    );

    assert_eq!(get(admin, "/logging").0, 405);
    let (status, _, body) = post(admin, "/logging?level=warning");
    assert_eq!(status, 200);
    assert!(body.starts_with("active loggers:\n") && body.contains("warn"), "{body}");
    assert_eq!(post(admin, "/logging?level=blah").0, 400);
    assert_eq!(post(admin, "/clusters").0, 405);
}

#[test]
fn a_draining_process_is_not_ready_in_envoy_s_terms() {
    let server = local(free_port());
    let _upstream = upstream(server);
    let attache = Attache::start(&format!(
        "admin: {{ bind: '127.0.0.1:$ADMIN', envoy_compatible: true }}\nshutdown: {{ delay: 5s }}\n\
         listeners: {{ inbound: {{ bind: '127.0.0.1:$PORT', to: app }} }}\nupstreams: {{ app: 'http://{server}' }}\n"
    ));
    attache.process.signal("TERM");
    eventually("it drains", || get(local(attache.admin), "/ready").0 == 503);
    assert_eq!(get(local(attache.admin), "/ready").2, "DRAINING\n");
    assert_eq!(json_of(local(attache.admin), "/server_info")["state"], "DRAINING");
}

#[test]
fn without_the_key_envoy_s_paths_do_not_exist() {
    let server = local(free_port());
    let attache = Attache::start(&format!(
        "admin: 127.0.0.1:$ADMIN\nlisteners: {{ in: {{ bind: '127.0.0.1:$PORT', to: app }} }}\nupstreams: {{ app: 'http://{server}' }}\n"
    ));
    for path in ["/ready", "/server_info", "/clusters", "/config_dump", "/stats/prometheus", "/stats"] {
        assert_eq!(get(local(attache.admin), path).0, 404, "{path}");
    }
}

/// A similar config for Envoy itself.
fn envoy(program: &str, upstream: SocketAddr) -> (TestProcess, SocketAddr) {
    let (admin, listen) = (local(free_port()), local(free_port()));
    let dir = tempfile::tempdir().unwrap();
    let socket =
        |at: SocketAddr| json!({ "socket_address": { "address": "127.0.0.1", "port_value": at.port() } });
    let ext = "type.googleapis.com/envoy.extensions";
    let router = json!({ "name": "router", "typed_config": { "@type": format!("{ext}.filters.http.router.v3.Router") } });
    let manager = json!({
        "@type": format!("{ext}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "inbound", "http_filters": [router],
        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "app" } }] }] },
    });
    let tcp = json!({ "@type": format!("{ext}.filters.network.tcp_proxy.v3.TcpProxy"), "stat_prefix": "opaque", "cluster": "app" });
    let listener = |name: &str, at: SocketAddr, filter: &Value| json!({ "name": name, "address": socket(at), "filter_chains": [{ "filters": [{ "name": name, "typed_config": filter }] }] });
    let endpoint = json!({ "endpoint": { "address": socket(upstream) } });
    let config = json!({
        "admin": { "address": socket(admin) },
        "static_resources": {
            "listeners": [listener("inbound", listen, &manager), listener("opaque", local(free_port()), &tcp)],
            "clusters": [{ "name": "app", "type": "STATIC", "outlier_detection": {}, "load_assignment": { "cluster_name": "app", "endpoints": [{ "lb_endpoints": [endpoint] }] } }],
        },
    });
    fs::write(dir.path().join("envoy.json"), config.to_string()).unwrap();
    let mut command = Command::new(program);
    command.args(["--disable-hot-restart", "--concurrency", "1", "-l", "error", "-c"]);
    command.arg(dir.path().join("envoy.json"));
    let mut process = TestProcess::start(&mut command, dir);
    process.wait_for(listen);
    for path in ["/", "/", "/broken"] {
        curl([format!("http://{listen}{path}")]);
    }
    (process, admin)
}

/// All paths of keys in a value; positions in lists count as one.
fn ways(value: &Value, way: &str, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| ways(value, &format!("{way}.{key}"), out)),
        Value::Array(items) => items.iter().for_each(|item| ways(item, &format!("{way}[]"), out)),
        _ => drop(out.insert(way.to_owned())),
    }
}

fn ways_of(value: &Value) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    ways(value, "", &mut out);
    out
}

#[test]
fn envoy_itself_has_everything_that_attache_shows_in_its_form() {
    let Ok(program) = std::env::var("ENVOY") else {
        eprintln!("ENVOY names no Envoy: its own answers are not compared");
        return;
    };
    let server = local(free_port());
    let _upstream = upstream(server);
    let attache = start(server);
    let own = local(attache.admin);
    let (_envoy, theirs) = envoy(&program, server);

    for path in ["/ready", "/clusters", "/server_info", "/config_dump", "/stats/prometheus"] {
        let (a, b) = (get(own, path), get(theirs, path));
        let kind = |kind: &str| kind.split(';').next().unwrap_or_default().to_owned();
        assert_eq!((a.0, kind(&a.1)), (b.0, kind(&b.1)), "{path}");
    }
    assert_eq!(get(own, "/ready").2, get(theirs, "/ready").2);
    assert_eq!(get(own, "/logging").0, get(theirs, "/logging").0);
    assert_eq!(post(own, "/logging?level=blah").0, post(theirs, "/logging?level=blah").0);
    let loggers = |at| post(at, "/logging?level=warning").2.lines().next().unwrap_or_default().to_owned();
    assert_eq!(loggers(own), loggers(theirs));

    // JSON: attache has no key that Envoy doesn't have in the same place. Envoy leaves out the value of a gauge of 0, and the zone of a
    // place without one.
    let foreign = |path: &str, but: &[&str]| -> Vec<String> {
        let theirs = ways_of(&json_of(theirs, path));
        let own = ways_of(&json_of(own, path));
        own.into_iter()
            .filter(|way| !theirs.contains(way) && !but.iter().any(|own| way.starts_with(own)))
            .collect()
    };
    let values = ".cluster_statuses[].host_statuses[].stats[].value";
    assert_eq!(foreign("/clusters?format=json", &[values]), Vec::<String>::new());
    assert_eq!(foreign("/server_info", &[]), Vec::<String>::new());
    assert_eq!(
        foreign("/config_dump", &[".configs[].bootstrap.node.metadata.attache"]),
        Vec::<String>::new()
    );

    // Lines of `/clusters`: the same keys in the same order.
    let keys = |at| -> Vec<String> {
        let lines = get(at, "/clusters").2;
        lines.lines().map(|line| line.rsplit_once("::").map_or(line, |(key, _)| key).to_owned()).collect()
    };
    let theirs_keys = keys(theirs);
    let mut rest = theirs_keys.iter();
    for key in keys(own) {
        assert!(rest.any(|other| *other == key), "{key} is not there, or in another order: {theirs_keys:#?}");
    }

    // Metrics: every name, type and label name is one of Envoy's. Metrics about TLS have no series in this Envoy.
    let families = |page: &str| -> BTreeSet<(String, String)> {
        let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE envoy_")?.split_once(' '));
        types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
    };
    let labels = |page: &str| -> BTreeSet<(String, String)> {
        let series = page.lines().filter(|line| line.starts_with("envoy_"));
        series
            .filter_map(|line| line.split_once('{'))
            .flat_map(|(name, rest)| {
                let inner = rest.rsplit_once('}').map_or("", |(inner, _)| inner);
                inner
                    .split(',')
                    .filter_map(|pair| pair.split_once('='))
                    .map(|(label, _)| (name.to_owned(), label.to_owned()))
                    .collect::<Vec<_>>()
            })
            .collect()
    };
    let (a, b) = (get(own, "/stats/prometheus").2, get(theirs, "/stats/prometheus").2);
    let missing: Vec<_> = families(&a).difference(&families(&b)).cloned().collect();
    assert_eq!(missing, Vec::<(String, String)>::new(), "families that Envoy lacks");
    let named = |page: &str| -> BTreeSet<String> {
        families(page).into_iter().map(|(name, _)| format!("envoy_{name}")).collect()
    };
    let known = named(&b);
    let unlike: Vec<_> = labels(&a)
        .difference(&labels(&b))
        .filter(|(name, label)| label != "envoy_listener_address" || known.contains(name))
        .cloned()
        .collect();
    assert_eq!(unlike, Vec::<(String, String)>::new(), "labels that Envoy lacks");
}
