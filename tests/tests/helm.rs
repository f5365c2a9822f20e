//! The Helm chart, rendered by Helm's own parts (Go's templates and sprig), because no package here contains Helm itself.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "the lint does not see that these are helpers of tests"
)]

use std::{fs, path::Path, process::Command};

use attache_tests::{
    binary,
    manifests::{deploy, read, repository, validate},
    python_with_packages, text,
};

/// The result of `helm template` for the chart with these values, and its final notes.
fn rendered(values: &str) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let (file, program) = (folder.path().join("values.yaml"), folder.path().join("render"));
    fs::write(&file, values).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/helm/render.go");
    let mut build = Command::new("/usr/bin/go");
    build.args(["build", "-o"]).arg(&program).arg(source);
    // With Debian's packages, and without the network.
    build.env("GO111MODULE", "off").env("GOPATH", "/usr/share/gocode").env("GOFLAGS", "");
    text(&build.output().expect("go (run `cargo xtask setup`)"));
    // It runs in the repository's folder, so that the comments contain no path of this machine.
    let mut render = Command::new(&program);
    render.args(["deploy/helm/attache"]).arg(&file).args(["attache", "attache-system"]);
    let output = render.current_dir(repository()).output().unwrap();
    (text(&output), String::from_utf8(output.stderr).unwrap())
}

/// Checks that a text contains valid manifests.
fn valid(manifests: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), manifests).unwrap();
    validate(&[file.path().to_owned()]);
}

/// Sets of values that together use every feature of the chart.
const VALUES: [&str; 12] = [
    "{}",
    "certificate: { from: cert-manager }",
    "certificate: { from: cert-manager, issuer: { kind: ClusterIssuer, name: company } }",
    "certificate: { from: secret, secretName: mine, caBundle: '-----BEGIN CERTIFICATE-----' }",
    "replicas: 1\nwebhook: { everyNamespace: true, failurePolicy: Ignore, exceptNamespaces: [monitoring] }",
    "inject: { traffic: transparent, config-map: attache, rewrite-probes: false, uid: 1338, cpu-limit: none }
networkPolicy: { enabled: true }
imagePullSecrets: [{ name: registry }]
priorityClassName: system-cluster-critical
podAnnotations: { a.example/b: c }
podLabels: { team: platform }
nodeSelector: { kubernetes.io/os: linux }
tolerations: [{ key: dedicated, operator: Exists }]
affinity: { nodeAffinity: {} }
serviceAccount: { name: mine, annotations: { a: b } }",
    // One config as text, as in a file, and one as a mapping.
    "inject:
  traffic: explicit
  config: |
    listeners: { outbound: { bind: ':15001', to: orders } }
    upstreams: { orders: http://orders }",
    "inject:
  config:
    listeners: { outbound: { bind: ':15001', to: orders } }
    upstreams: { orders: 'http://orders' }
  env: { SSL_CERT_FILE: /ca/ca.crt, LEVEL: 3 }
  volumes: [{ name: ca, mountPath: /ca, secret: { secretName: ca } }]
  spiffe-socket: csi
  image-pull-secrets: registry",
    "image: { repository: registry.example/attache, digest: 'sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef' }
replicas: 3
podDisruptionBudget: { maxUnavailable: 1 }
topologySpreadConstraints: [{ maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule }]",
    "metrics: { enabled: false }\nwebhook: { preStopSeconds: 0, shutdownDelay: 30s, bind: '0.0.0.0:8443' }\npodDisruptionBudget: { enabled: false }",
    "metrics: { port: 9090, annotations: false, podMonitor: { enabled: true, labels: { release: prometheus } } }
networkPolicy: { enabled: true }
podDisruptionBudget: { minAvailable: 50% }",
    "extraEnv: [{ name: RUST_BACKTRACE, value: '1' }]
extraVolumes: [{ name: tmp, emptyDir: {} }]
extraVolumeMounts: [{ name: tmp, mountPath: /tmp }]
resources: { requests: { cpu: 0.1, memory: 64Mi } }
inject: { mode: container, pre-stop: 10, exclude-outbound-ports: '5432,9000-9100' }",
];

#[test]
fn the_chart_renders_to_valid_manifests_for_all_values() {
    for values in VALUES {
        let (manifests, notes) = rendered(values);
        valid(&manifests);
        assert!(manifests.contains("runAsUser: 1337") && notes.contains("helm test attache"), "{values}");
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), values).unwrap();
        let mut schema = python_with_packages("values.py");
        schema.arg(deploy("helm/attache/values.schema.json")).arg(deploy("helm/attache/values.yaml"));
        assert_eq!(text(&schema.arg(file.path()).output().unwrap()), "ok\n", "{values}");
    }
}

#[test]
fn the_chart_knows_every_setting_of_inject_and_no_other() {
    let schema: serde_json::Value =
        serde_json::from_str(&read(deploy("helm/attache/values.schema.json"))).unwrap();
    let mut known: Vec<String> =
        schema["properties"]["inject"]["properties"].as_object().unwrap().keys().cloned().collect();
    let docs = read(repository().join("docs/kubernetes.md"));
    let table = docs.split("<!-- SETTINGS -->").nth(1).unwrap().split("<!-- END").next().unwrap();
    let mut settings: Vec<String> = table
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| `")?.split('`').next()?.to_owned()))
        .collect();
    known.sort();
    settings.sort();
    assert_eq!(known, settings);
}

#[test]
fn the_chart_refuses_values_that_mean_nothing() {
    for (values, what) in [
        ("replica: 3", "replica"),
        ("replicas: 0", "minimum"),
        ("webhook: { failurePolicy: Maybe }", "Maybe"),
        ("certificate: { from: secret }", "secretName"),
        ("certificate: { from: vault }", "vault"),
        ("inject: { Traffic: transparent }", "Traffic"),
        ("inject: { traffics: transparent }", "traffics"),
        ("inject: { traffic: transparant }", "transparant"),
        ("inject: { mode: sidecar }", "sidecar"),
        ("inject: { cpu-limit: plenty }", "plenty"),
        ("inject: { uid: 0 }", "minimum"),
        ("inject: { config: a, config-map: b }", "config"),
        ("inject: { env: [LEVEL=debug] }", "env"),
        ("replicas: '2'", "replicas"),
        ("image: { digest: latest }", "latest"),
        ("image: { repository: 'a b' }", "a b"),
        ("webhook: { bind: ':9443' }", "9443"),
        ("webhook: { timeoutSeconds: 31 }", "31"),
        ("webhook: { shutdownDelay: soon }", "soon"),
        ("webhook: { exceptNamespaces: [Not_A_Name] }", "Not_A_Name"),
        ("resources: { limit: { cpu: 1 } }", "limit"),
        ("resources: { limits: { cpu: much } }", "much"),
        ("tolerations: [{ key: a, operator: Maybe }]", "Maybe"),
        ("affinity: { nodeAfinity: {} }", "nodeAfinity"),
        ("podDisruptionBudget: { minAvailable: 1, maxUnavailable: 1 }", "podDisruptionBudget"),
        ("podLabels: { team: 3 }", "team"),
        ("extraVolumes: [{ name: tmp }]", "extraVolumes"),
        ("metrics: { port: 8443 }", "8443"),
    ] {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), values).unwrap();
        let mut schema = python_with_packages("values.py");
        let refused =
            schema.arg(deploy("helm/attache/values.schema.json")).arg(file.path()).output().unwrap();
        let said = String::from_utf8_lossy(&refused.stdout).into_owned();
        assert!(!refused.status.success() && said.contains(what), "{values}: {said}");
    }
}

#[test]
fn the_chart_s_certificate_is_for_the_service_and_signed_by_the_authority_that_the_api_server_trusts() {
    let (manifests, _) = rendered("{}");
    let value = |key: &str| {
        let line = manifests.lines().find_map(|line| line.trim().strip_prefix(&format!("{key}: ")));
        line.unwrap_or_else(|| panic!("{key}")).to_owned()
    };
    assert_eq!(value("caBundle"), value("ca.crt"));
    let folder = tempfile::tempdir().unwrap();
    for key in ["ca.crt", "tls.crt"] {
        let file = folder.path().join(key);
        fs::write(&file, value(key)).unwrap();
        let pem = text(&Command::new("base64").arg("-d").arg(&file).output().unwrap());
        fs::write(&file, pem).unwrap();
    }
    let mut verify = Command::new("openssl");
    verify.args(["verify", "-verify_hostname", "attache.attache-system.svc", "-CAfile"]);
    text(&verify.arg(folder.path().join("ca.crt")).arg(folder.path().join("tls.crt")).output().unwrap());
}

#[test]
fn the_chart_registers_the_webhook_as_the_program_itself_would() {
    for (values, flags) in [
        ("certificate: { from: cert-manager }", &["--fail"][..]),
        (
            "certificate: { from: cert-manager }\nwebhook: { everyNamespace: true, failurePolicy: Ignore }",
            &["--every-namespace"],
        ),
    ] {
        let (manifests, _) = rendered(values);
        let mut program = Command::new(binary());
        program.args(["webhook", "manifest", "--service=attache", "--namespace=attache-system"]);
        program.arg("--cert-manager=attache-system/attache").args(flags);
        let own = text(&program.output().unwrap());
        let folder = tempfile::tempdir().unwrap();
        for (name, manifests) in [("chart", &manifests), ("program", &own)] {
            fs::write(folder.path().join(name), manifests).unwrap();
        }
        let mut same = python_with_packages("same_webhook.py");
        text(&same.arg(folder.path().join("chart")).arg(folder.path().join("program")).output().unwrap());
    }
}

/// The arguments of the webhook's container, as the API server would read them.
fn arguments(manifests: &str) -> Vec<String> {
    let block = manifests.split("args:\n").nth(1).unwrap();
    let lines = block.lines().map_while(|line| line.trim().strip_prefix("- "));
    lines
        .map(|argument| match argument.strip_prefix('"') {
            Some(_) => serde_json::from_str(argument).unwrap(),
            None => argument.to_owned(),
        })
        .collect()
}

#[test]
fn the_chart_starts_the_webhook_with_valid_arguments() {
    for values in VALUES {
        let (manifests, _) = rendered(values);
        let folder = tempfile::tempdir().unwrap();
        let mut arguments = arguments(&manifests);
        assert_eq!(arguments[0], "webhook");
        for argument in &mut arguments {
            // The file from the ConfigMap that the chart makes.
            if argument.starts_with("--config=") {
                let text = manifests.split("  attache.yaml: |\n").nth(1).unwrap();
                let lines = text.lines().map_while(|line| line.strip_prefix("    "));
                let file = folder.path().join("attache.yaml");
                fs::write(&file, lines.collect::<Vec<_>>().join("\n")).unwrap();
                *argument = format!("--config={}", file.display());
            }
        }
        // It accepts all arguments, and only lacks its certificate, which exists in the pod.
        let mut webhook = Command::new(binary());
        let output = webhook.args(&arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("/certs/tls.crt"), "{values}: {said}");
    }
}
