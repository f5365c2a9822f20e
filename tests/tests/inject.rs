//! `attache inject` as a person runs it, its result checked by Kubernetes' own schemas, and the app's probes that it redirects to attache.

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
        // A program that refuses its arguments ends without reading its input.
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
fn manifests_in_a_pipe_get_attache_and_lose_it_again() {
    let injected = run(&["inject", "--image", "registry.example/attache:1", "--traffic", "http-proxy"], POD);
    assert!(injected.status.success());
    assert_eq!(
        err(&injected),
        "-: Pod/web: injected: native sidecar, HTTP_PROXY, no config (a forward proxy)\n"
    );
    assert!(err(&run(&["inject"], POD)).ends_with("and name it\n"), "no registry has the default image");
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
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "no file is left behind");
}

#[test]
fn a_refused_object_causes_an_exit_code_of_its_own() {
    let clash = POD.replace("name: app\n", "name: attache\n");
    let output = run(&["inject"], &format!("{clash}---\n{POD}"));
    assert_eq!(output.status.code(), Some(3));
    assert!(err(&output).contains("REFUSED: it has a container `attache` that attache didn't put there"));
    assert!(out(&output).starts_with(&clash), "it is passed on as it was");
    assert!(out(&output).contains("restartPolicy: Always"), "the other is injected");

    // An alias that is written out is no problem.
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
            // A List has no schema of its own; its items are tested in other files.
            let without_schema = ["clashes.yaml", "kubectl-list.yaml", "custom-kinds.yaml"];
            let too_new = path.ends_with("pod-resources.yaml") && version < "1.34";
            if too_new || without_schema.iter().any(|name| path.ends_with(name)) {
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
    // The validator notices a mistake.
    let wrong = dir.path().join("wrong.yaml");
    fs::write(&wrong, out(&run(&["inject"], POD)).replace("containerPort", "containersPort")).unwrap();
    assert!(!kubernetes_validate("1.29", &[wrong]).status.success());
}

#[test]
fn the_program_accepts_the_arguments_of_its_containers() {
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
fn probes_of_the_app_are_sent_inside_the_pod() {
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

/// Starts attache for these probes, on a port of its own.
fn answering(port: u16, probes: &serde_json::Value) -> Attache {
    let probes = serde_json::json!({"port": port, "probes": probes}).to_string();
    Attache::start_with(
        "upstreams:\n  app: http://127.0.0.1:1\nlisteners:\n  outbound: { bind: 127.0.0.1:$PORT, to: app }\n",
        &[("ATTACHE_APP_PROBES", &probes), ("POD_IP", "127.0.0.1")],
    )
}

#[test]
fn a_probe_sends_what_the_kubelet_sends() {
    let (web, tls, port) = (free_port(), free_port(), free_port());
    let pki = attache_tests::pki::Pki::new();
    pki.issue(&pki.ca("nobody"), "app", &["app.example"]);
    let _web = nginx(
        &format!(
            "server {{ listen 127.0.0.1:{web}; listen 127.0.0.1:{tls} ssl http2;
               ssl_certificate {}; ssl_certificate_key {}; absolute_redirect off;
               location = /healthz {{ return 301 /healthz/; }}
               location = /healthz/ {{ return 500; }}
               location = /loop {{ return 302 /loop; }}
               location = /away {{ return 302 http://elsewhere.example/; }}
               location = /to-tls {{ return 302 https://127.0.0.1:{tls}/tls; }}
               location = /tls {{ if ($https != on) {{ return 500; }} return 204; }}
               location = /gone {{ return 404; }}
               location = \"/a b\" {{ return 204; }}
               location = /host {{ if ($http_host != example.com) {{ return 500; }} return 204; }}
               location = /agent {{ if ($http_user_agent != kube-probe/1.33) {{ return 500; }} return 204; }}
               location / {{ return 418; }} }}",
            pki.at("app.crt"),
            pki.at("app.key")
        ),
        local(web),
    );
    let get = |path: &str| serde_json::json!({"httpGet": {"path": path, "port": web}, "timeoutSeconds": 5});
    let with = |path: &str, headers: serde_json::Value| serde_json::json!({"httpGet": {"path": path, "port": web, "httpHeaders": headers}, "timeoutSeconds": 5});
    let https = |port: u16| serde_json::json!({"httpGet": {"path": "/tls", "port": port, "scheme": "HTTPS"}, "timeoutSeconds": 5});
    let hook = |path: &str, port: u16, scheme: &str| serde_json::json!({"hook": {"path": path, "port": port, "scheme": scheme}});
    let nobody = free_port();
    let cases = [
        ("redirect-to-a-sick-page", get("/healthz"), "500"),
        ("loop", get("/loop"), "503"),
        ("another-host", get("/away"), "200"),
        ("to-https", get("/to-tls"), "200"),
        ("status", get("/gone"), "404"),
        ("space", get("/a b"), "200"),
        ("odd", get("/<>\"|{}^"), "418"),
        ("host", with("/host", serde_json::json!([{"name": "host", "value": "example.com"}])), "200"),
        ("agent", get("/agent"), "200"),
        ("https", https(tls), "200"),
        ("https-of-a-plaintext-port", https(web), "503"),
        ("bad-header", with("/gone", serde_json::json!([{"name": "a b", "value": "c"}])), "503"),
        ("hook", hook("/gone", web, "HTTP"), "200"),
        ("hook-by-https-of-a-plaintext-port", hook("/gone", web, "HTTPS"), "200"),
        ("hook-of-nobody", hook("/", nobody, "HTTP"), "503"),
    ];
    let probes: serde_json::Map<String, serde_json::Value> =
        cases.iter().map(|(name, probe, _)| (format!("/{name}"), probe.clone())).collect();
    let _attache = answering(port, &probes.into());
    for (name, _, status) in cases {
        let request = format!(
            "GET /{name} HTTP/1.1\r\nHost: x\r\nUser-Agent: kube-probe/1.33\r\nConnection: close\r\n\r\n"
        );
        let answer = attache_tests::raw(local(port), request.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer}");
    }
}

#[test]
fn an_answer_that_breaks_off_or_stalls_is_a_failure_and_a_long_one_is_not() {
    use std::{net::TcpListener, thread};
    let (app, port) = (TcpListener::bind("127.0.0.1:0").unwrap(), free_port());
    let at = app.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in app.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let mut head = [0; 1024];
                let read = std::io::Read::read(&mut stream, &mut head).unwrap_or(0);
                let head = String::from_utf8_lossy(&head[..read]).into_owned();
                // The header's names as Go writes them.
                assert!(
                    head.contains("\r\nUser-Agent: ")
                        && head.contains("\r\nConnection: close\r\n")
                        && head.contains("\r\nX-A: 1\r\nX-A: 2\r\n"),
                    "{head}"
                );
                let body = match head.split(' ').nth(1) {
                    Some("/long") => 20 << 10,
                    Some("/stalls") => 100,
                    _ => 100,
                };
                let _ = stream
                    .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body * 2).as_bytes());
                let _ = stream.write_all(&vec![b'x'; body]);
                if !head.contains("/breaks") {
                    thread::sleep(std::time::Duration::from_secs(5));
                }
            });
        }
    });
    let headers = serde_json::json!([{"name": "x-a", "value": "1"}, {"name": "X-A", "value": "2"}]);
    let get = |path: &str| {
        let get = serde_json::json!({"path": path, "port": at, "httpHeaders": headers});
        serde_json::json!({"httpGet": get, "timeoutSeconds": 1})
    };
    let _attache = answering(
        port,
        &serde_json::json!({"/long": get("/long"), "/stalls": get("/stalls"), "/breaks": get("/breaks")}),
    );
    for (path, status) in [("/long", "200"), ("/stalls", "504"), ("/breaks", "503")] {
        let answer = http_get(local(port), path);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
    }
}

#[test]
fn idle_connections_do_not_block_a_probe() {
    let (web, port) = (free_port(), free_port());
    let _web = nginx(&format!("server {{ listen 127.0.0.1:{web}; return 204; }}"), local(web));
    let probe = serde_json::json!({"httpGet": {"port": web}, "timeoutSeconds": 1});
    let _attache = answering(port, &serde_json::json!({"/live": probe}));
    let silent: Vec<_> = (0..600).map(|_| std::net::TcpStream::connect(local(port)).unwrap()).collect();
    let begun = std::time::Instant::now();
    assert!(http_get(local(port), "/live").starts_with("HTTP/1.1 200 "));
    assert!(begun.elapsed().as_secs() < 2, "{:?}", begun.elapsed());
    drop(silent);
}
