//! Which Kubernetes objects have a pod in them, and where.

use serde_json::Value;

use crate::edit::{Path, find};

/// `Deployment/web`, as people name objects; with the namespace where one is given.
pub(crate) fn name(object: &Value) -> String {
    let text = |path: &[&str]| {
        let path: Vec<String> = path.iter().map(ToString::to_string).collect();
        find(object, &path).and_then(Value::as_str)
    };
    let kind = text(&["kind"]).unwrap_or("object");
    let name =
        text(&["metadata", "name"]).or_else(|| text(&["metadata", "generateName"])).unwrap_or("(no name)");
    match text(&["metadata", "namespace"]) {
        Some(namespace) => format!("{kind}/{name} in {namespace}"),
        None => format!("{kind}/{name}"),
    }
}

/// The path of the pod template (`metadata` and `spec`) of an object, if its kind has one.
pub(crate) fn template(object: &Value) -> Option<Path> {
    let group = object.get("apiVersion")?.as_str()?.split_once('/').map_or("", |(group, _)| group);
    let path: &[&str] = match (group, object.get("kind")?.as_str()?) {
        ("", "Pod") => &[],
        ("", "PodTemplate") => &["template"],
        ("", "ReplicationController")
        | ("apps" | "extensions", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("batch", "Job") => &["spec", "template"],
        ("batch", "CronJob") => &["spec", "jobTemplate", "spec", "template"],
        _ => return None,
    };
    Some(path.iter().map(ToString::to_string).collect())
}

/// The object is a list of objects, at `items`.
pub(crate) fn is_list(object: &Value) -> bool {
    object.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"))
        && object.get("items").is_some_and(Value::is_array)
}

/// The paths of the objects in a document: its root, or the items of a list (and of lists in it).
pub(crate) fn objects(document: &Value) -> Vec<Path> {
    fn walk(value: &Value, path: &Path, found: &mut Vec<Path>) {
        if !is_list(value) {
            found.push(path.clone());
            return;
        }
        for (index, item) in value.get("items").and_then(Value::as_array).into_iter().flatten().enumerate() {
            let mut path = path.clone();
            path.extend(["items".to_owned(), index.to_string()]);
            walk(item, &path, found);
        }
    }
    let mut found = Vec::new();
    walk(document, &Path::new(), &mut found);
    found
}
