//! `inject` and `uninject` on manifests as people have them.

#![expect(clippy::unwrap_used, reason = "helpers of tests stand outside of them")]

use std::{fs, path::Path};

use attache_kubernetes::inject::{
    ContainerMode, InjectionOutcome, InjectionSettings, PodTemplate, TextFormat, convert, inject, uninject,
};

const CONFIG: &str = "\
listeners:
  outbound: { bind: :15001, transparent: true, to: anywhere }
  inbound:
    bind: :15006
    to: app
upstreams:
  anywhere: original-destination
  app: http://127.0.0.1:8080
";

fn settings(text: &[(&str, &str)]) -> InjectionSettings {
    let mut settings = InjectionSettings::default();
    for (name, value) in text {
        settings.set(name, value).unwrap();
    }
    settings
}

/// Settings that together use every way of injection.
fn ways() -> [(&'static str, InjectionSettings); 4] {
    [
        ("explicit", settings(&[("tls-secret", "web-tls"), ("config-map", "web-attache")])),
        ("http-proxy", settings(&[("traffic", "http-proxy")])),
        ("transparent", settings(&[("traffic", "transparent"), ("config", CONFIG)])),
        ("container", settings(&[("mode", "container"), ("traffic", "http-proxy"), ("log", "debug")])),
    ]
}

fn manifests() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 9);
    files
        .iter()
        .map(|file| (file.file_name().unwrap().display().to_string(), fs::read_to_string(file).unwrap()))
        .collect()
}

fn snapshot(name: &str, file: &str, settings: &InjectionSettings) {
    let (_, text) = manifests().into_iter().find(|(name, _)| name == file).unwrap();
    let done = inject(&text, settings).unwrap();
    let reports: Vec<String> = done.reports.iter().map(ToString::to_string).collect();
    let shown = format!("{}\n=====\n{}", reports.join("\n"), done.text);
    insta::assert_snapshot!(name, shown);
}

#[test]
fn manifests_of_many_shapes_get_attache() {
    let [explicit, proxy, transparent, container] = ways().map(|(_, settings)| settings);
    snapshot("nginx-deployment-explicit", "nginx-deployment.yaml", &explicit);
    snapshot("nginx-deployment-transparent", "nginx-deployment.yaml", &transparent);
    snapshot("nginx-deployment-container", "nginx-deployment.yaml", &container);
    snapshot("postgres-statefulset-explicit", "postgres-statefulset.yaml", &explicit);
    snapshot("postgres-statefulset-http-proxy", "postgres-statefulset.yaml", &proxy);
    snapshot("backup-cronjob-http-proxy", "backup-cronjob.yaml", &proxy);
    snapshot("node-exporter-daemonset", "node-exporter-daemonset.yaml", &explicit);
    snapshot("shop", "shop.yaml", &InjectionSettings::default());
    snapshot("helm-rendered-transparent", "helm-rendered.yaml", &transparent);
    snapshot("kubectl-list", "kubectl-list.yaml", &InjectionSettings::default());
    snapshot("deployment-json-http-proxy", "deployment.json", &proxy);
    snapshot("pod-json", "pod.json", &InjectionSettings::default());
    snapshot("anchors", "anchors.yaml", &InjectionSettings::default());
    snapshot("custom-kinds-transparent", "custom-kinds.yaml", &transparent);
    snapshot("pod-resources-explicit", "pod-resources.yaml", &explicit);
    snapshot("pod-resources-transparent", "pod-resources.yaml", &transparent);
    let everything = settings(&[
        ("spiffe-socket", "csi"),
        ("env", "{SSL_CERT_FILE: /ca/ca.crt}"),
        ("volumes", "[{name: ca, mountPath: /ca, readOnly: true, secret: {secretName: company-ca}}]"),
        ("image-pull-secrets", "registry"),
        ("service-account-token", "true"),
        ("upgrade", "true"),
    ]);
    snapshot("pod-json-everything", "pod.json", &everything);
}

#[test]
fn an_unknown_kind_is_injected_at_the_path_that_the_user_names() {
    let widget = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\nspec:\n  workers:\n  - template:\n      spec:\n        containers:\n        - name: app\n          image: app\n";
    let unknown = inject(widget, &InjectionSettings::default()).unwrap();
    assert_eq!(unknown.text, widget);
    assert_eq!(
        unknown.reports[0].to_string(),
        "Widget/w: skipped: attache doesn't know the kind `Widget` of example.com; what looks like a pod template stands at spec.workers.0.template: --pod-template Widget.example.com=spec.workers.*.template names it"
    );
    let named = PodTemplate::parse("Widget.example.com=spec.workers.*.template").unwrap();
    let settings = InjectionSettings { pod_templates: vec![named], ..InjectionSettings::default() };
    let done = inject(widget, &settings).unwrap();
    assert!(done.text.contains("attache.dev/injected"), "{}", done.text);
    assert_eq!(inject(&done.text, &settings).unwrap().text, done.text);
    assert_eq!(uninject(&done.text).unwrap().text, widget, "the record says where it is");
}

/// The result for the one object of a text.
fn outcome(text: &str, settings: &InjectionSettings) -> (InjectionOutcome, Vec<String>) {
    let report = inject(text, settings).unwrap().reports.pop().unwrap();
    (report.outcome, report.warnings)
}

#[test]
fn an_object_from_which_other_controllers_make_pods_is_not_reported_as_having_none() {
    let workflow = |metadata: &str| {
        let text = format!(
            "apiVersion: argoproj.io/v1alpha1\nkind: CronWorkflow\nmetadata: {metadata}\nspec:\n  workflowSpec: {{templates: [{{name: a, container: {{image: b}}}}]}}\n"
        );
        outcome(&text, &InjectionSettings::default()).0
    };
    let InjectionOutcome::Skipped(why) = workflow("{name: a}") else { panic!() };
    assert!(why.contains("no pod template is found") && why.contains("the webhook"), "{why}");
    let asks = workflow("{name: a, annotations: {attache.dev/inject: \"true\"}}");
    assert!(matches!(asks, InjectionOutcome::Refused(_)), "{asks:?}");
    // A namespace's label concerns the webhook.
    let namespace =
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {attache.dev/inject: \"true\"}}\n";
    assert_eq!(
        outcome(namespace, &InjectionSettings::default()).0,
        InjectionOutcome::Skipped("it has no pod".into())
    );
}

#[test]
fn a_volume_claim_template_is_a_volume_of_the_pods() {
    let text = |name: &str| {
        format!(
            "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: a}}\nspec:\n  volumeClaimTemplates: [{{metadata: {{name: {name}}}}}]\n  template:\n    spec:\n      containers: [{{name: a, image: b}}]\n"
        )
    };
    let InjectionOutcome::Refused(why) = outcome(&text("attache-config"), &InjectionSettings::default()).0
    else {
        panic!()
    };
    assert!(why.contains("volume `attache-config`"), "{why}");
    let shares = settings(&[("volumes", "[{ name: data, mountPath: /data }]")]);
    assert!(matches!(outcome(&text("data"), &shares).0, InjectionOutcome::Injected(_)));
    assert!(matches!(outcome(&text("other"), &shares).0, InjectionOutcome::Refused(_)));
}

#[test]
fn a_whole_number_is_known_however_it_is_written() {
    let transparent = settings(&[("traffic", "transparent"), ("config-map", "c")]);
    let pod = |spec: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {{{spec}}}\n");
    for user in ["1337", "1337.0", "1.337e3", "0x539", "02471", "1_337"] {
        let text =
            pod(&format!("securityContext: {{runAsUser: {user}}}, containers: [{{name: a, image: b}}]"));
        assert!(matches!(outcome(&text, &transparent).0, InjectionOutcome::Refused(_)), "{user}");
    }
    for port in ["15001", "15001.0", "1.5001e4"] {
        let text = pod(&format!("containers: [{{name: a, image: b, ports: [{{containerPort: {port}}}]}}]"));
        assert!(
            matches!(outcome(&text, &InjectionSettings::default()).0, InjectionOutcome::Refused(_)),
            "{port}"
        );
    }
    let probe =
        pod("containers: [{name: a, image: b, livenessProbe: {httpGet: {port: 80.0}, timeoutSeconds: 3.0}}]");
    let done = inject(&probe, &transparent).unwrap().text;
    assert!(done.contains(r#"timeoutSeconds\":3}"#), "{done}");
}

#[test]
fn a_grace_period_that_ends_before_the_hook_causes_a_warning() {
    let container = settings(&[("mode", "container")]);
    let text = |grace: u8| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec:\n  terminationGracePeriodSeconds: {grace}\n  containers: [{{name: a, image: b}}]\n"
        )
    };
    assert!(outcome(&text(5), &container).1.join("").contains("terminationGracePeriodSeconds 5"));
    assert!(outcome(&text(6), &container).1.is_empty());
}

#[test]
fn json_objects_one_after_the_other_are_read_as_kubectl_does() {
    let one = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[{"name":"a","image":"b"}]}}"#;
    let stream = format!("{one}\n{}\n", one.replace("\"a\"}", "\"b\"}"));
    let done = inject(&stream, &InjectionSettings::default()).unwrap();
    let names: Vec<_> = done.reports.iter().map(|report| report.object.as_str()).collect();
    assert_eq!(names, ["Pod/a", "Pod/b"]);
    assert_eq!(uninject(&done.text).unwrap().text, stream);
    let list: serde_json::Value = serde_json::from_str(&convert(&stream, TextFormat::Json).unwrap()).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    assert!(convert(&stream, TextFormat::Yaml).unwrap().contains("\n---\n"));
}

#[test]
fn an_image_that_nobody_can_pull_causes_a_warning() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: b}]}\n";
    assert!(inject(pod, &InjectionSettings::default()).unwrap().has_unnamed_image);
    let named = settings(&[("image", "registry.example/attache:1")]);
    assert!(!inject(pod, &named).unwrap().has_unnamed_image);
    let own = pod.replace("{name: a}\n", "{name: a, annotations: {attache.dev/image: x}}\n");
    assert!(!inject(&own, &InjectionSettings::default()).unwrap().has_unnamed_image);
}

#[test]
fn more_annotations_than_kubernetes_accepts_are_refused() {
    let config = format!("{}# {}\n", CONFIG, "x".repeat(300 << 10));
    let (_, pod) = manifests().into_iter().find(|(name, _)| name == "pod.json").unwrap();
    let done = inject(&pod, &settings(&[("config", &config)])).unwrap();
    assert!(
        matches!(&done.reports[0].outcome, InjectionOutcome::Refused(why) if why.contains("Kubernetes takes 262144")),
        "{:?}",
        done.reports
    );
    assert_eq!(done.text, pod);
}

#[test]
fn an_object_that_can_not_be_injected_is_reported_with_the_reason() {
    let (_, text) = manifests().into_iter().find(|(name, _)| name == "clashes.yaml").unwrap();
    let [_, _, transparent, container] = ways().map(|(_, settings)| settings);
    let reports = |settings| {
        let done = inject(&text, settings).unwrap();
        done.reports.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!("refusals-transparent", reports(&transparent));
    insta::assert_snapshot!("refusals-container", reports(&container));
    let no_config = settings(&[("traffic", "transparent")]);
    insta::assert_snapshot!("refusals-no-config", reports(&no_config));
}

#[test]
fn uninject_restores_every_byte() {
    for (file, text) in manifests() {
        for (way, settings) in ways() {
            let ends = text.trim_end().to_owned();
            let crlf = text.replace('\n', "\r\n");
            for (form, text) in [("as it is", &text), ("without a last line break", &ends), ("CRLF", &crlf)] {
                let injected = inject(text, &settings).unwrap();
                let back = uninject(&injected.text).unwrap();
                assert_eq!(&back.text, text, "{file}, {way}, {form}");
                if file != "clashes.yaml" && way == "explicit" {
                    assert_ne!(&injected.text, text, "{file}, {way}");
                }
            }
        }
    }
}

#[test]
fn injecting_twice_changes_nothing() {
    for (file, text) in manifests() {
        for (way, settings) in ways() {
            let once = inject(&text, &settings).unwrap();
            let twice = inject(&once.text, &settings).unwrap();
            assert_eq!(twice.text, once.text, "{file}, {way}");
            for (first, second) in once.reports.iter().zip(&twice.reports) {
                if matches!(first.outcome, InjectionOutcome::Injected(_)) {
                    assert_eq!(
                        second.outcome,
                        InjectionOutcome::Unchanged,
                        "{file}, {way}, {}",
                        first.object
                    );
                }
            }
        }
    }
}

#[test]
fn injecting_in_another_way_is_as_if_it_were_the_first() {
    for (file, text) in manifests().into_iter().filter(|(file, _)| file != "clashes.yaml") {
        for (from, first) in ways() {
            for (to, second) in ways() {
                let direct = inject(&text, &second).unwrap();
                if direct.reports.iter().any(|report| matches!(report.outcome, InjectionOutcome::Refused(_)))
                {
                    continue; // it keeps what it was injected with before
                }
                let twice = inject(&inject(&text, &first).unwrap().text, &second).unwrap();
                assert_eq!(twice.text, direct.text, "{file}, {from} and then {to}");
            }
        }
    }
}

#[test]
fn a_text_that_another_tool_has_rewritten_is_uninjected_by_its_meaning() {
    for (file, text) in manifests() {
        let original = convert(&text, TextFormat::Json).unwrap();
        for (way, settings) in ways() {
            let done = inject(&text, &settings).unwrap();
            if done.reports.iter().any(|report| matches!(report.outcome, InjectionOutcome::Refused(_))) {
                continue; // written by another tool, for example without anchors, it can be injected
            }
            let injected = done.text;
            let json = convert(&injected, TextFormat::Json).unwrap();
            let yaml = convert(&json, TextFormat::Yaml).unwrap();
            for other in [&json, &yaml] {
                let again = inject(other, &settings).unwrap();
                assert_eq!(&again.text, other, "{file}, {way}: nothing is to do");
                let back = convert(&uninject(other).unwrap().text, TextFormat::Json).unwrap();
                let (back, original): (serde_json::Value, serde_json::Value) =
                    (serde_json::from_str(&back).unwrap(), serde_json::from_str(&original).unwrap());
                assert_eq!(back, original, "{file}, {way}");
            }
        }
    }
}

#[test]
fn the_mode_is_known_by_its_restart_policy() {
    let (_, text) = manifests().into_iter().find(|(name, _)| name == "pod.json").unwrap();
    let native =
        inject(&text, &InjectionSettings { mode: ContainerMode::Native, ..InjectionSettings::default() })
            .unwrap();
    let pod: serde_json::Value = serde_json::from_str(&native.text).unwrap();
    assert_eq!(pod.pointer("/spec/initContainers/0/restartPolicy").unwrap(), "Always");
    assert_eq!(pod.pointer("/spec/restartPolicy").unwrap(), "Never");
}

mod hostile {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_text_and_no_record_makes_it_panic(
            remove in prop::collection::vec("(/(spec|metadata|annotations|containers|app|env|labels|attache.dev~1injected|0)){0,5}", 0..5),
            at in "(/(spec|metadata|annotations|containers|app|env|labels)){0,4}",
            key in "(containers|env|metadata|name|x)",
            raw in proptest::option::of("[a-z:{\\[\n -]{0,12}"),
            flow: bool,
        ) {
            let mut empty = serde_json::json!({"at": at, "empty": null});
            let mut swap = serde_json::json!({"at": at, "now": key, "was": "y", "value": 1});
            if let Some(raw) = raw {
                empty["raw"] = raw.as_str().into();
                swap["raw"] = raw.into();
            }
            let record = serde_json::json!({"version": "1", "remove": remove, "restore": [empty, swap]}).to_string();
            let pod = serde_json::json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "p", "annotations": {"attache.dev/injected": record}},
                "spec": {"containers": [{"name": "app", "env": [{"name": "env", "value": "v"}]}]},
            })
            .to_string();
            let text = if flow { pod } else { convert(&pod, TextFormat::Yaml).unwrap() };
            let _ = uninject(&text);
            let _ = inject(&text, &InjectionSettings::default());
        }

        #[test]
        fn no_yaml_makes_it_panic(text in "(apiVersion: v1\n|kind: Pod\n|spec:|metadata: |  containers:\n|  - name: a\n|\\{|\\}|\\[|\\]|&a |\\*a|<<: |: |\n|---\n|  |\\|\n|é|\t|#|\"|'){0,24}") {
            let _ = inject(&text, &InjectionSettings::default());
            let _ = uninject(&text);
        }
    }
}
