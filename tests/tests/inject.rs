//! `attache inject` as a person runs it, its result before Kubernetes' own schemas, and the app's probes that it sends to attache.

use std::{
    fs,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use attache_tests::{Attache, binary, free_port, http_get, kubernetes_validate, local, nginx, script_server};

const POD: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: web   # the one
spec:
  containers:
  - name: app
    image: app
";

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/kubernetes/tests/manifests")
}

fn run(arguments: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(binary())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    match child.stdin.take().unwrap().write_all(stdin.as_bytes()) {
        // Whoever refuses its arguments ends without reading.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        written => written.unwrap(),
    }
    child.wait_with_output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_pipe_gets_attache_and_loses_it_again() {
    let injected = run(&["inject", "--traffic", "http-proxy"], POD);
    assert!(injected.status.success());
    assert_eq!(
        err(&injected),
        "-: Pod/web: injected: native sidecar, HTTP_PROXY, no config (a forward proxy)\n"
    );
    assert!(
        out(&injected).contains("name: web   # the one\n")
            && out(&injected).contains("restartPolicy: Always")
    );
    let back = run(&["uninject"], &out(&injected));
    assert_eq!((out(&back), err(&back)), (POD.to_owned(), "-: Pod/web: attache is removed\n".to_owned()));
}

#[test]
fn an_old_cluster_gets_a_plain_container() {
    let mode = |version: &str| out(&run(&["inject", "--kubernetes-version", version], POD));
    assert!(mode("1.28").contains("wait-ready") && !mode("1.28").contains("initContainers"));
    assert!(mode("v1.29.3").contains("initContainers") && !mode("v1.29.3").contains("wait-ready"));
    assert_eq!(run(&["inject", "--kubernetes-version", "old"], POD).status.code(), Some(1));
}

#[test]
fn files_and_folders_are_changed_in_place_or_shown_as_a_diff() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("deploy/web");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("pod.yaml");
    fs::write(&file, POD).unwrap();
    fs::write(folder.join("notes.txt"), "no manifest").unwrap();
    fs::write(
        dir.path().join("deploy/one.json"),
        r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}}"#,
    )
    .unwrap();
    let root = dir.path().display().to_string();

    let diff = run(&["inject", "--diff", &root], "");
    let shown = out(&diff);
    assert!(
        shown.contains(&format!("--- a/{}\n", file.display())) && shown.contains("\n+  initContainers:\n"),
        "{shown}"
    );
    assert!(!shown.contains("\n-"), "only additions: {shown}");
    assert_eq!(fs::read_to_string(&file).unwrap(), POD, "a diff changes nothing");

    let written = run(&["inject", "--write", &root], "");
    assert_eq!((out(&written), written.status.code()), (String::new(), Some(0)));
    assert!(fs::read_to_string(&file).unwrap().contains("attache.dev/injected"));
    assert_eq!(out(&run(&["inject", "--diff", &root], "")), "", "injecting twice changes nothing");
    assert!(run(&["uninject", "--write", &root], "").status.success());
    assert_eq!(fs::read_to_string(&file).unwrap(), POD);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "nothing is left behind");
}

#[test]
fn what_cannot_be_injected_ends_with_a_code_of_its_own() {
    let clash = POD.replace("name: app\n", "name: attache\n");
    let output = run(&["inject"], &format!("{clash}---\n{POD}"));
    assert_eq!(output.status.code(), Some(3));
    assert!(err(&output).contains("REFUSED: it has a container `attache` that attache didn't put there"));
    assert!(out(&output).starts_with(&clash), "it is passed on as it was");
    assert!(out(&output).contains("restartPolicy: Always"), "the other is injected");

    // Written out, an alias is in nobody's way.
    let alias =
        POD.replace("  name: web   # the one\n", "  name: web\n  labels: &l {a: b}\n  annotations: *l\n");
    assert_eq!(run(&["inject"], &alias).status.code(), Some(3));
    let written = run(&["inject", "-o", "json"], &alias);
    assert!(written.status.success() && out(&written).contains("attache.dev/injected"), "{}", err(&written));

    let broken = run(&["inject"], "a: [\n");
    assert_eq!((broken.status.code(), out(&broken)), (Some(1), String::new()));
    assert!(err(&broken).contains("-: line 1, column 4: not valid YAML"), "{}", err(&broken));
    let wrong = run(&["inject", "--cpu-limit", "much"], POD);
    assert!(err(&wrong).contains("--cpu-limit: `much` isn't a quantity"), "{}", err(&wrong));
    assert_eq!(run(&["inject", "--no-such"], POD).status.code(), Some(2));
}

#[test]
fn the_result_is_valid_for_kubernetes() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("attache.cfg");
    fs::write(
        &config,
        "listeners: {outbound: {bind: ':15001', transparent: true, to: a}, inbound: {bind: ':15006', to: a}}\nupstreams: {a: original-destination}\n",
    )
    .unwrap();
    let config = config.display().to_string();
    let ways: [(&str, &[&str]); 4] = [
        ("1.29", &["--config-map", "web", "--tls-secret", "web-tls"]),
        ("1.33", &["--traffic", "transparent", "--config", &config]),
        ("1.37", &["--traffic", "http-proxy"]),
        (
            "1.28",
            &["--kubernetes-version", "1.28", "--traffic", "http-proxy", "--image-pull-policy", "Always"],
        ),
    ];
    for (version, arguments) in ways {
        let mut files = Vec::new();
        for entry in fs::read_dir(manifests()).unwrap() {
            let path = entry.unwrap().path();
            // A List has no schema of its own; its items are those of other files.
            if path.ends_with("clashes.yaml") || path.ends_with("kubectl-list.yaml") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let output = run(&[&["inject"], arguments].concat(), &text);
            let file = dir.path().join(path.file_name().unwrap());
            fs::write(&file, out(&output)).unwrap();
            files.push(file);
        }
        assert!(files.len() > 8);
        let checked = kubernetes_validate(version, &files);
        assert!(checked.status.success(), "{version} {arguments:?}: {}{}", out(&checked), err(&checked));
    }
    // The judge sees a mistake.
    let wrong = dir.path().join("wrong.yaml");
    fs::write(&wrong, out(&run(&["inject"], POD)).replace("containerPort", "containersPort")).unwrap();
    assert!(!kubernetes_validate("1.29", &[wrong]).status.success());
}

#[test]
fn the_program_takes_what_its_containers_are_given() {
    let dir = tempfile::tempdir().unwrap();
    let transparent: &[&str] =
        &["--traffic", "transparent", "--config-map", "c", "--exclude-outbound-ports", "5432,9000-9100"];
    for more in [
        &["--exclude-outbound-cidrs", "10.0.0.0/8,fd00::/8", "--exclude-inbound-ports", "22"][..],
        &["--inbound", "false"],
    ] {
        let json = out(&run(&[&["inject", "-o", "json"], transparent, more].concat(), POD));
        let pod: serde_json::Value = serde_json::from_str(&json).unwrap();
        let args: Vec<&str> = pod["spec"]["initContainers"][1]["args"]
            .as_array()
            .unwrap()
            .iter()
            .map(|argument| argument.as_str().unwrap())
            .collect();
        let dry = run(&[&args[..], &["--dry-run"]].concat(), "");
        assert!(dry.status.success(), "{args:?}: {}", err(&dry));
    }
    let json = out(&run(&["inject", "-o", "json", "--mode", "container"], POD));
    let pod: serde_json::Value = serde_json::from_str(&json).unwrap();
    let lifecycle = &pod["spec"]["containers"][0]["lifecycle"];
    assert_eq!(
        lifecycle["postStart"]["exec"]["command"],
        serde_json::json!(["/attache", "wait-ready", "--timeout", "60s"])
    );
    assert_eq!(lifecycle["preStop"]["exec"]["command"], serde_json::json!(["/attache", "sleep", "5s"]));
    assert_eq!(run(&["sleep", "1ms"], "").status.code(), Some(0));
    let address = format!("unix:{}", dir.path().join("nobody").display());
    assert_eq!(run(&["wait-ready", "--timeout", "1ms", "--address", &address], "").status.code(), Some(1));
}

#[test]
fn probes_of_the_app_are_asked_inside_the_pod() {
    let (web, rpc, port) = (free_port(), free_port(), free_port());
    let _web = nginx(
        &format!(
            "server {{ listen 127.0.0.1:{web};
               location /live {{ if ($http_x_probe != yes) {{ return 403; }} return 204; }}
               location /moved {{ return 302 http://elsewhere.example/; }}
               location /sick {{ return 503; }} }}"
        ),
        local(web),
    );
    let _rpc = script_server("grpc_server.py", local(rpc), &[]);
    let nobody = free_port();
    let probes = serde_json::json!({"port": port, "probes": {
        "/app-probe/web/liveness": {"httpGet": {"path": "/live", "port": web, "httpHeaders": [{"name": "X-Probe", "value": "yes"}]}, "timeoutSeconds": 5},
        "/app-probe/web/readiness": {"httpGet": {"path": "/moved", "port": web}, "timeoutSeconds": 5},
        "/app-probe/web/startup": {"httpGet": {"path": "/sick", "port": web}, "timeoutSeconds": 5},
        "/app-probe/tcp/liveness": {"tcpSocket": {"port": web}, "timeoutSeconds": 5},
        "/app-probe/tcp/readiness": {"tcpSocket": {"port": nobody}, "timeoutSeconds": 5},
        "/app-probe/rpc/liveness": {"grpc": {"port": rpc, "service": null}, "timeoutSeconds": 5},
        "/app-probe/rpc/readiness": {"grpc": {"port": rpc, "service": "sick"}, "timeoutSeconds": 5},
        "/app-probe/rpc/startup": {"grpc": {"port": rpc, "service": "unknown"}, "timeoutSeconds": 5},
    }})
    .to_string();
    let _attache = Attache::start_with(
        "upstreams:\n  app: http://127.0.0.1:1\nlisteners:\n  outbound: { bind: 127.0.0.1:$PORT, to: app }\n",
        &[("ATTACHE_APP_PROBES", &probes), ("POD_IP", "127.0.0.1")],
    );
    for (path, status) in [
        ("web/liveness", "200"),
        ("web/readiness", "200"),
        ("web/startup", "503"),
        ("tcp/liveness", "200"),
        ("tcp/readiness", "503"),
        ("rpc/liveness", "200"),
        ("rpc/readiness", "503"),
        ("rpc/startup", "503"),
        ("no/such", "404"),
    ] {
        let answer = http_get(local(port), &format!("/app-probe/{path}"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
    }
}
