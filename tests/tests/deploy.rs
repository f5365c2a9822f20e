//! The files in `deploy/` are valid for the programs that read them, and agree with attache.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "the lint does not see that these are helpers of tests"
)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use attache_tests::{
    Attache, TestProcess, binary, curl, free_port, local,
    manifests::{deploy, read, repository, validate},
    python_with_packages, script_server, text,
};

/// Every file in `deploy/` whose name ends with this, without the chart's templates.
fn files(ending: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("helm") {
                walk(&path, ending, found);
            } else if path.display().to_string().ends_with(ending) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&deploy(""), ending, &mut found);
    found.sort();
    found
}

fn manifests() -> Vec<PathBuf> {
    let all = files(".yaml").into_iter().filter(|file| read(file).contains("\napiVersion: "));
    let all: Vec<PathBuf> = all.collect();
    assert!(all.len() >= 6, "{all:?}");
    all
}

#[test]
fn every_manifest_is_valid_for_kubernetes_and_every_config_in_it_for_attache() {
    assert!(validate(&manifests()) >= 9);
    text(
        &Command::new(binary())
            .args(["check", "--without-files"])
            .arg(deploy("compose/attache.yaml"))
            .output()
            .unwrap(),
    );
}

#[test]
fn a_manifest_that_is_wrong_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wrong.yaml");
    let right = read(deploy("kubernetes/sidecar.yaml"));
    for (from, to) in [
        ("startupProbe:", "startupProb:"),
        ("containerPort: 15006", "containerPort: \"15006\""),
        ("restartPolicy: Always", "restartPolicy: always\n          restartPolicy: Always"),
    ] {
        assert!(right.contains(from), "{from}");
        fs::write(&file, right.replacen(from, to, 1)).unwrap();
        let mut python = python_with_packages("manifests.py");
        let result = python.arg(folder.path()).arg(&file).output().unwrap();
        assert!(!result.status.success(), "{to}");
    }
}

#[test]
fn image_user_and_ports_are_the_same_everywhere() {
    let version = text(&Command::new(binary()).arg("--version").output().unwrap());
    let version = version.trim().rsplit(' ').next().unwrap().to_owned();
    let dockerfile = read(deploy("Dockerfile"));
    for line in ["FROM scratch", "USER 1337:1337", "EXPOSE 15001 15006 15090", "ENTRYPOINT [\"/attache\"]"] {
        assert!(dockerfile.lines().any(|own| own == line), "{line}");
    }
    let rules = text(&Command::new(binary()).args(["intercept", "--dry-run"]).output().unwrap());
    assert!(rules.contains("meta skuid 1337 accept"), "{rules}");
    for manifest in manifests() {
        let manifest = read(manifest);
        for image in
            manifest.lines().filter_map(|line| line.split_once("image: ghcr.io/attache-proxy/attache:"))
        {
            assert_eq!(image.1, version);
        }
    }
}

/// The labels of every metric in `docs/metrics.md`, which is generated from the code.
fn metrics() -> BTreeMap<String, Vec<String>> {
    let text = read(repository().join("docs/metrics.md"));
    let quoted =
        |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let mut found = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, kind, labels, ..] = cells[..] else { continue };
        let (name, labels) = (quoted(name).remove(0), quoted(labels));
        if kind == "histogram" {
            for end in ["_bucket", "_sum", "_count"] {
                found.insert(format!("{name}{end}"), labels.clone());
            }
        } else {
            found.insert(name, labels);
        }
    }
    assert!(found.len() > 30, "{found:?}");
    found
}

/// Labels that Prometheus adds to scraped metrics, or that are a part of a histogram.
const FROM_OUTSIDE: [&str; 4] = ["namespace", "pod", "instance", "le"];

/// Checks that every metric in an expression is attache's and has the labels that the expression uses.
fn names_what_is_there(expression: &str, metrics: &BTreeMap<String, Vec<String>>) -> usize {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut named = 0;
    let mut rest = expression;
    let mut known: Vec<&str> = FROM_OUTSIDE.to_vec();
    while let Some(at) = rest.find("attache_").into_iter().chain(rest.find("process_")).min() {
        rest = &rest[at..];
        let name = &rest[..rest.find(|c| !word(c)).unwrap_or(rest.len())];
        rest = &rest[name.len()..];
        let labels = metrics.get(name).unwrap_or_else(|| panic!("no metric `{name}`: {expression}"));
        known.extend(labels.iter().map(String::as_str));
        named += 1;
        let Some(selector) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) else { continue };
        for matcher in selector.0.split(", ") {
            let label = matcher.split(['=', '!']).next().unwrap();
            let there = labels.iter().any(|own| own == label) || FROM_OUTSIDE.contains(&label);
            assert!(there, "`{name}` has no label `{label}`: {expression}");
        }
    }
    for grouping in ["by (", "on (", "group_left ("] {
        for list in expression.split(grouping).skip(1) {
            for label in list.split(')').next().unwrap().split(", ") {
                assert!(known.contains(&label), "no label `{label}`: {expression}");
            }
        }
    }
    named
}

#[test]
fn the_dashboard_asks_for_metrics_and_labels_that_attache_has() {
    let dashboard: serde_json::Value = serde_json::from_str(&read(deploy("grafana/attache.json"))).unwrap();
    let metrics = metrics();
    let (mut named, mut identities) = (0, Vec::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        identities.push(panel["id"].as_u64().unwrap());
        for target in panel["targets"].as_array().into_iter().flatten() {
            named += names_what_is_there(target["expr"].as_str().unwrap(), &metrics);
        }
        let place = &panel["gridPos"];
        assert!(place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24, "{panel}");
    }
    assert!(named > 30, "{named}");
    identities.dedup();
    assert_eq!(identities.len(), dashboard["panels"].as_array().unwrap().len());
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if let Some(query) = variable["definition"].as_str() {
            let (metric, label) = query.trim_start_matches("label_values(").rsplit_once(", ").unwrap();
            names_what_is_there(metric, &metrics);
            let label = label.trim_end_matches(')');
            let own = &metrics[metric.split('{').next().unwrap()];
            assert!(own.iter().any(|own| own == label) || FROM_OUTSIDE.contains(&label), "{query}");
        }
    }
    let annotation = &dashboard["annotations"]["list"][0]["expr"];
    assert_eq!(names_what_is_there(annotation.as_str().unwrap(), &metrics), 1);
}

#[test]
fn the_alerts_fire_when_they_should_and_use_existing_metrics_and_labels() {
    let promtool = |arguments: &[&str]| {
        let mut command = Command::new("/usr/bin/promtool");
        command.args(arguments).current_dir(deploy("prometheus"));
        text(&command.output().expect("promtool (run `cargo xtask setup`)"))
    };
    assert!(promtool(&["check", "rules", "--lint-fatal", "alerts.yaml"]).contains("SUCCESS"));
    assert!(promtool(&["test", "rules", "alerts_test.yaml"]).contains("SUCCESS"));
    let alerts = read(deploy("prometheus/alerts.yaml"));
    let metrics = metrics();
    let mut named = 0;
    // Every expression, on one line or on several lines.
    for rule in alerts.split("- alert: ").skip(1) {
        let expression = rule.split("expr:").nth(1).unwrap();
        let end = ["\n        for:", "\n        labels:"].iter().filter_map(|key| expression.find(key)).min();
        named += names_what_is_there(&expression[..end.unwrap()], &metrics);
        assert!(rule.contains("severity: page") || rule.contains("severity: ticket"), "{rule}");
    }
    assert!(named >= 20, "{named}");
}

#[test]
fn the_units_are_valid_for_systemd_and_have_a_low_exposure() {
    let folder = tempfile::tempdir().unwrap();
    for (unit, most) in [("attache.service", 1.5), ("attache-intercept.service", 2.5)] {
        let there = folder.path().join(unit);
        // `verify` checks that the program exists.
        let program = binary().display().to_string();
        fs::write(&there, read(deploy("systemd").join(unit)).replace("/usr/local/bin/attache", &program))
            .unwrap();
        let analyze = |arguments: &[&str]| {
            let mut command = Command::new("/usr/bin/systemd-analyze");
            command
                .args(arguments)
                .arg(&there)
                .env("SYSTEMD_UNIT_PATH", format!("{}:", folder.path().display()));
            command.output().expect("systemd-analyze (run `cargo xtask setup`)")
        };
        let verified = analyze(&["verify"]);
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        text(&verified);
        assert!(!said.contains(unit), "{said}");
        if unit == "attache.service" {
            // The socket unit is checked together with the service that it starts.
            let socket = folder.path().join("attache.socket");
            fs::copy(deploy("systemd/attache.socket"), &socket).unwrap();
            let verified = analyze(&["verify", &socket.display().to_string()]);
            let said = String::from_utf8_lossy(&verified.stderr).into_owned();
            assert!(verified.status.success() && !said.contains("attache."), "{said}");
        }
        let score = text(&analyze(&["security", "--offline=true"]));
        let line = score.lines().find(|line| line.contains("Overall exposure level")).unwrap().to_owned();
        let level = line.split(": ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        assert!(level.parse::<f64>().unwrap() <= most, "{line}");
    }
}

#[test]
fn the_compose_file_is_valid_and_both_share_one_network() {
    let file = deploy("compose/compose.yaml");
    let config = Command::new("/usr/bin/docker-compose").arg("-f").arg(&file).arg("config").output();
    let config = text(&config.expect("docker-compose (run `cargo xtask setup`)"));
    assert!(config.contains("network_mode: service:app"), "{config}");
    for used in ["../examples/python/app.py", "attache.yaml", "orders.conf", "../Dockerfile"] {
        assert!(deploy("compose").join(used).exists(), "{used}");
    }
}

/// The config in the ConfigMap of a manifest.
fn config_of(manifest: &Path) -> String {
    let configs = tempfile::tempdir().unwrap();
    text(&python_with_packages("manifests.py").arg(configs.path()).arg(manifest).output().unwrap());
    let mut found = fs::read_dir(configs.path()).unwrap();
    read(found.next().expect("a config").unwrap().path())
}

#[test]
fn the_example_apps_reach_their_service_through_attache_with_the_config_of_their_manifest() {
    for (language, program, file) in
        [("python", "/usr/bin/python3", "app.py"), ("node", "/usr/bin/node", "app.js")]
    {
        let folder = deploy("examples").join(language);
        let orders = local(free_port());
        let server = script_server("orders.py", orders, &[]);
        let (app_port, inbound) = (free_port(), free_port());
        let config = config_of(&folder.join("deployment.yaml"))
            .replace("localhost:15001", "127.0.0.1:$PORT")
            .replace(":15006", &format!("127.0.0.1:{inbound}"))
            .replace("127.0.0.1:8080", &format!("127.0.0.1:{app_port}"));
        let attache = Attache::start_with(&config, &[("ORDERS", &orders.to_string())]);
        let mut app = Command::new(program);
        app.arg(folder.join(file))
            .env("ORDERS_URL", attache.url(""))
            .env("PORT", app_port.to_string())
            .env_remove("http_proxy");
        let mut app = TestProcess::start(&mut app, tempfile::tempdir().unwrap());
        app.wait_for(local(app_port));
        let url = format!("http://127.0.0.1:{inbound}/");
        let answer = text(&curl([&url]));
        assert!(answer.contains("\"customer\"") && answer.contains("a lamp"), "{language}: {answer}");
        assert!(
            attache.metric(
                "attache_requests_total",
                &["listener=\"outbound\"", "upstream=\"orders\"", "code=\"2xx\""]
            ) >= 1.0
        );
        assert!(
            attache.metric("attache_requests_total", &["listener=\"inbound\"", "upstream=\"app\""]) >= 1.0
        );
        // Without the service, the app gets the reason.
        drop(server);
        let answer = text(&curl([&url]));
        assert!(answer.contains("connect-refused"), "{language}: {answer}");
    }
}
