//! Objects in which no pod template was found: the kind has no pods, or attache doesn't know it.
//!
//! Only for Kubernetes' own kinds it is certain that there is no pod. What another controller makes from its objects
//! isn't known here. So attache reports such an object, and refuses it if it asks for attache, because its owner relies
//! on attache.

use serde_json::{Map, Value};

use super::decision::{InjectionDecision, asks};
use crate::{
    edit::{ObjectPath, find},
    object::{self, ObjectKind},
};

/// Groups of the Kubernetes API server itself, in addition to those without a dot; other groups below `k8s.io` are
/// custom ones.
const GROUPS: &[&str] = &[
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];

pub(crate) fn decide(object: &Value, kind: &ObjectKind) -> InjectionDecision {
    if kind.is_built_in() {
        return InjectionDecision::Refuse(format!("it has no pod template at {}", kind.expected()));
    }
    let alike = object::lookalikes(object);
    let asked = |template: &Value| matches!(asks(object, template), Ok(Some((true, _))));
    let Some(first) = alike.first() else {
        return match kind.expected() {
            expected if !expected.is_empty() => {
                InjectionDecision::Skip(format!("it has no pod template at {expected}"))
            }
            _ if kind.group.contains('.') && !GROUPS.contains(&kind.group.as_str()) => {
                let why = format!(
                    "no pod template is found in it, and attache doesn't know the kind `{}` of {}; if it creates pods, the webhook injects them",
                    kind.kind, kind.group
                );
                if asked(&Map::new().into()) {
                    InjectionDecision::Refuse(why)
                } else {
                    InjectionDecision::Skip(why)
                }
            }
            _ => InjectionDecision::Skip("it has no pod".to_owned()),
        };
    };
    let ObjectKind { group, kind } = kind;
    if kind.is_empty() {
        return InjectionDecision::Skip("it has no `kind`, so attache can't know what it is".to_owned());
    }
    if group.is_empty() && object.get("apiVersion").is_none() {
        return InjectionDecision::Skip(
            "it has no `apiVersion`, so attache can't know what it is".to_owned(),
        );
    }
    let why = format!(
        "attache doesn't know the kind `{kind}`{}; what looks like a pod template stands at {}: --pod-template {kind}{}{group}={} names it",
        if group.is_empty() { String::new() } else { format!(" of {group}") },
        alike.iter().map(place_name).collect::<Vec<_>>().join(", "),
        if group.is_empty() { "" } else { "." },
        starred(first),
    );
    if alike.iter().any(|path| find(object, path).is_some_and(asked)) {
        InjectionDecision::Refuse(why)
    } else {
        InjectionDecision::Skip(why)
    }
}

fn place_name(path: &ObjectPath) -> String {
    if path.is_empty() { "its root".to_owned() } else { path.join(".") }
}

/// A path with `*` for indexes of lists.
fn starred(path: &ObjectPath) -> String {
    let part = |part: &String| if part.bytes().all(|b| b.is_ascii_digit()) { "*" } else { part }.to_owned();
    path.iter().map(part).collect::<Vec<_>>().join(".")
}
