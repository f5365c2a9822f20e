//! The webhook's answers to reviews as an API server sends them.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stand outside of them")]

use attache_kubernetes::{
    inject::{self, InjectionSettings},
    manifest::{WebhookManifest, WebhookTrust},
    review::{ReviewOutcome, respond},
};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};

const POD_CREATE: &str = include_str!("reviews/pod-create.json");

fn settings(text: &[(&str, &str)]) -> InjectionSettings {
    let mut settings = InjectionSettings::default();
    for (name, value) in text {
        settings.set(name, value).unwrap();
    }
    settings
}

fn review(change: impl Fn(&mut Value)) -> String {
    let mut review: Value = serde_json::from_str(POD_CREATE).unwrap();
    change(&mut review);
    review.to_string()
}

fn unbase64(text: &str) -> Vec<u8> {
    BASE64_STANDARD.decode(text).unwrap()
}

/// Applies the patch like an API server (RFC 6902 section 4).
fn patched(mut object: Value, patch: &Value) -> Value {
    for op in patch.as_array().unwrap() {
        let place = op["path"].as_str().unwrap();
        let (parent, last) = place.rsplit_once('/').unwrap();
        let last = last.replace("~1", "/").replace("~0", "~");
        let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("{place} has no parent"));
        match (op["op"].as_str().unwrap(), parent) {
            ("add", Value::Object(entries)) => drop(entries.insert(last, op["value"].clone())),
            ("add", Value::Array(items)) => items.insert(last.parse().unwrap(), op["value"].clone()),
            ("replace", Value::Object(entries)) => {
                assert!(entries.insert(last, op["value"].clone()).is_some(), "{place}");
            }
            ("remove", Value::Object(entries)) => assert!(entries.shift_remove(&last).is_some(), "{place}"),
            (op, _) => panic!("{op} at {place}"),
        }
    }
    object
}

#[test]
fn a_recorded_review_is_answered() {
    let answer =
        respond(POD_CREATE.as_bytes(), &settings(&[("traffic", "http-proxy"), ("config-map", "web")]))
            .unwrap();
    assert_eq!(answer.outcome, ReviewOutcome::Injected);
    let response = &answer.review["response"];
    let patch: Value = serde_json::from_slice(&unbase64(response["patch"].as_str().unwrap())).unwrap();
    let shown = format!(
        "{}\nuid {}\nallowed {}\n{}",
        answer.summary,
        response["uid"],
        response["allowed"],
        serde_json::to_string_pretty(&patch).unwrap()
    );
    insta::assert_snapshot!("pod-create", shown);
}

#[test]
fn the_patch_makes_what_inject_makes() {
    let config = "listeners: {outbound: {bind: ':15001', transparent: true, to: a}, inbound: {bind: ':15006', to: a}}\nupstreams: {a: original-destination}\n";
    for settings in [
        InjectionSettings::default(),
        settings(&[("traffic", "http-proxy"), ("config-map", "web"), ("tls-secret", "s")]),
        settings(&[("traffic", "transparent"), ("config", config)]),
        settings(&[("traffic", "http-proxy"), ("mode", "container")]),
    ] {
        let request: Value = serde_json::from_str(POD_CREATE).unwrap();
        let pod = &request["request"]["object"];
        let answer = respond(POD_CREATE.as_bytes(), &settings).unwrap();
        let patch = unbase64(answer.review["response"]["patch"].as_str().unwrap());
        let by_webhook = patched(pod.clone(), &serde_json::from_slice(&patch).unwrap());
        let text = inject::inject(&pod.to_string(), &settings).unwrap().text;
        let mut by_command: Value = serde_json::from_str(&text).unwrap();
        // Only the command records how something was written.
        let marker = "/metadata/annotations/attache.dev~1injected";
        let record = |pod: &Value| {
            let mut record: Value =
                serde_json::from_str(pod.pointer(marker).unwrap().as_str().unwrap()).unwrap();
            for entry in record["restore"].as_array_mut().into_iter().flatten() {
                entry.as_object_mut().unwrap().shift_remove("raw");
            }
            record
        };
        assert_eq!(record(&by_webhook), record(&by_command));
        *by_command.pointer_mut(marker).unwrap() = by_webhook.pointer(marker).unwrap().clone();
        assert_eq!(by_webhook, by_command);

        let again = review(|review| review["request"]["object"] = by_webhook.clone());
        let answer = respond(again.as_bytes(), &settings).unwrap();
        assert!(
            answer.outcome == ReviewOutcome::Present && answer.review["response"].get("patch").is_none(),
            "asked again, nothing is to do"
        );
    }
}

#[test]
fn a_pod_that_is_not_injected_is_admitted_with_a_warning() {
    let settings = settings(&[("traffic", "transparent"), ("config-map", "web")]);
    let of = |change: &dyn Fn(&mut Value)| {
        respond(review(change).as_bytes(), &settings).unwrap().review["response"].clone()
    };
    let host = of(&|review| review["request"]["object"]["spec"]["hostNetwork"] = true.into());
    assert_eq!(host["allowed"], true);
    assert!(
        host["warnings"][0].as_str().unwrap().starts_with(
            "attache: Pod/web-7d9c5b6f8- in shop: not injected: it has hostNetwork, where attache's ports"
        ),
        "{host}"
    );
    let group =
        of(&|review| review["request"]["object"]["spec"]["securityContext"]["runAsGroup"] = 1337.into());
    assert_eq!(group["allowed"], true);
    assert!(
        group["warnings"][0]
            .as_str()
            .unwrap()
            .contains("NOT injected: its container `nginx` runs as group 1337"),
        "{group}"
    );
    let out = of(&|review| {
        review["request"]["object"]["metadata"]["labels"]["attache.dev/inject"] = "false".into();
    });
    assert_eq!(
        out["warnings"][0],
        "attache: Pod/web-7d9c5b6f8- in shop: not injected: its attache.dev/inject says so"
    );
    for other in ["UPDATE", "DELETE", "CONNECT"] {
        let response = of(&|review| review["request"]["operation"] = other.into());
        assert_eq!(response, json!({"uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "allowed": true}));
    }
}

#[test]
fn a_pod_that_asks_for_attache_and_cannot_have_it_is_denied() {
    let text = review(|review| {
        review["request"]["object"]["metadata"]["labels"]["attache.dev/inject"] = "true".into();
        review["request"]["object"]["spec"]["containers"][0]["ports"][0]["containerPort"] = 15001.into();
    });
    let response = &respond(text.as_bytes(), &InjectionSettings::default()).unwrap().review["response"];
    assert_eq!(response["allowed"], false);
    assert_eq!(
        response["status"]["message"],
        "attache can't be injected, and attache.dev/inject asks for it: its container `nginx` has port 15001, which is attache's"
    );
}

#[test]
fn the_configuration_explains_itself() {
    let webhook = WebhookManifest {
        service: "attache-webhook".to_owned(),
        namespace: "attache".to_owned(),
        trust: WebhookTrust::Bundle("PEM\n".to_owned()),
        fail: false,
        every_namespace: false,
    };
    insta::assert_snapshot!("configuration", webhook.configuration());
    let trust = WebhookTrust::CertManager("attache/webhook".to_owned());
    let webhook = WebhookManifest { trust, fail: true, every_namespace: true, ..webhook };
    insta::assert_snapshot!("configuration-cert-manager", webhook.configuration());
}
