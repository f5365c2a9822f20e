//! Which Kubernetes objects have pods in them, and where.
//!
//! Built-in kinds, and custom ones that are in wide use, are known by group and kind ([`KNOWN`]); for others the user
//! names the path ([`PodTemplate`]). A pod that has attache is found by its record, wherever it is. A mapping that only
//! looks like a pod template, in an object of an unknown kind, is never changed; a warning names it ([`lookalikes`]).

use serde_json::Value;

use crate::edit::{ObjectPath, find};

/// Groups, kinds, and where their pod templates (`metadata` and `spec`) are; `*` is every item or entry.
///
/// Sources: the Kubernetes API, and the types that each project publishes for its kinds.
const KNOWN: &[(&[&str], &[&str], &[&str])] = &[
    (&[""], &["Pod"], &[""]),
    (&[""], &["PodTemplate"], &["template"]),
    (&[""], &["ReplicationController"], &["spec.template"]),
    (&["apps", "extensions"], &["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"], &["spec.template"]),
    (&["batch"], &["Job"], &["spec.template"]),
    (&["batch"], &["CronJob"], &["spec.jobTemplate.spec.template"]),
    (&["apps.openshift.io", ""], &["DeploymentConfig"], &["spec.template"]),
    (&["argoproj.io"], &["Rollout"], &["spec.template"]),
    (&["serving.knative.dev"], &["Service", "Configuration"], &["spec.template"]),
    (&["jobset.x-k8s.io"], &["JobSet"], &["spec.replicatedJobs.*.template.spec.template"]),
    (
        &["leaderworkerset.x-k8s.io"],
        &["LeaderWorkerSet"],
        &["spec.leaderWorkerTemplate.leaderTemplate", "spec.leaderWorkerTemplate.workerTemplate"],
    ),
    (&["apps.kruise.io"], &["CloneSet", "StatefulSet", "DaemonSet", "BroadcastJob"], &["spec.template"]),
    (&["apps.kruise.io"], &["AdvancedCronJob"], &["spec.template.jobTemplate.spec.template"]),
    (&["batch.volcano.sh"], &["Job"], &["spec.tasks.*.template"]),
    (&["keda.sh"], &["ScaledJob"], &["spec.jobTargetRef.template"]),
    (
        &["kubeflow.org"],
        &["TFJob", "PyTorchJob", "MPIJob", "XGBoostJob", "PaddleJob", "JAXJob"],
        &[
            "spec.tfReplicaSpecs.*.template",
            "spec.pytorchReplicaSpecs.*.template",
            "spec.mpiReplicaSpecs.*.template",
            "spec.xgbReplicaSpecs.*.template",
            "spec.paddleReplicaSpecs.*.template",
            "spec.jaxReplicaSpecs.*.template",
        ],
    ),
    (&["ray.io"], &["RayCluster"], &["spec.headGroupSpec.template", "spec.workerGroupSpecs.*.template"]),
    (
        &["ray.io"],
        &["RayJob", "RayService"],
        &[
            "spec.rayClusterSpec.headGroupSpec.template",
            "spec.rayClusterSpec.workerGroupSpecs.*.template",
            "spec.rayClusterConfig.headGroupSpec.template",
            "spec.rayClusterConfig.workerGroupSpecs.*.template",
        ],
    ),
    (&["agones.dev"], &["GameServer"], &["spec.template"]),
    (&["agones.dev"], &["Fleet", "GameServerSet"], &["spec.template.spec.template"]),
];

/// Groups whose kinds are all known: a kind of theirs that isn't in [`KNOWN`] has no pod.
const BUILT_IN: &[&str] = &["", "apps", "extensions", "batch"];

/// Where the pod templates are in a kind that attache doesn't know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodTemplate {
    kind: String,
    group: String,
    path: String,
}

impl PodTemplate {
    /// Reads `KIND.GROUP=PATH`, such as `Widget.example.com=spec.workers.*.template`.
    ///
    /// # Errors
    /// What is missing.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` isn't KIND.GROUP=PATH, such as Widget.example.com=spec.template; `*` in PATH is every item of a list"
            )
        };
        let (kind, path) = text.split_once('=').ok_or_else(wrong)?;
        let (kind, group) = kind.split_once('.').unwrap_or((kind, ""));
        if kind.is_empty() || path.split('.').any(str::is_empty) {
            return Err(wrong());
        }
        Ok(Self { kind: kind.to_owned(), group: group.to_owned(), path: path.to_owned() })
    }
}

/// The kind of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct ObjectKind {
    pub(crate) group: String,
    pub(crate) kind: String,
}

impl ObjectKind {
    /// The kind that the object names, or that of the list around it.
    pub(crate) fn of(object: &Value, inherited: Option<&Self>) -> Self {
        let text = |key: &str| object.get(key).and_then(Value::as_str);
        let group = text("apiVersion").map(|version| version.split_once('/').map_or("", |(group, _)| group));
        let inherit = |own: Option<&str>, from: fn(&Self) -> &String| {
            own.map_or_else(|| inherited.map(from).cloned().unwrap_or_default(), str::to_owned)
        };
        Self { group: inherit(group, |kind| &kind.group), kind: inherit(text("kind"), |kind| &kind.kind) }
    }

    /// The paths of this kind's templates; none for a kind that attache doesn't know.
    fn known(&self) -> impl Iterator<Item = &str> {
        KNOWN
            .iter()
            .filter(|(groups, kinds, _)| {
                groups.contains(&self.group.as_str()) && kinds.contains(&self.kind.as_str())
            })
            .flat_map(|(.., paths)| paths.iter().copied())
    }

    /// Whether Kubernetes itself defines the kind, so that a missing template is an error of the manifest.
    pub(crate) fn is_built_in(&self) -> bool {
        BUILT_IN.contains(&self.group.as_str()) && self.known().next().is_some()
    }

    /// The path at which its template is expected, for messages.
    pub(crate) fn expected(&self) -> String {
        self.known().collect::<Vec<_>>().join(" or ")
    }
}

/// An object of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DocumentObject {
    /// Its path from the document's root.
    pub(crate) path: ObjectPath,
    pub(crate) kind: ObjectKind,
}

/// A number without a fraction, in any notation: kubectl reads `1337.0` and `1.337e3` as 1337.
pub(crate) fn whole(value: &Value) -> Option<u64> {
    let float = || value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..9e15).contains(number));
    value.as_u64().or_else(|| float().map(|number| number as u64))
}

/// `Deployment/web`, as people name objects; with its namespace if it has one.
pub(crate) fn name(object: &Value, kind: &ObjectKind) -> String {
    let text = |path: &[&str]| {
        let path: Vec<String> = path.iter().map(ToString::to_string).collect();
        find(object, &path).and_then(Value::as_str)
    };
    let kind = if kind.kind.is_empty() { "object" } else { &kind.kind };
    let name =
        text(&["metadata", "name"]).or_else(|| text(&["metadata", "generateName"])).unwrap_or("(no name)");
    match text(&["metadata", "namespace"]) {
        Some(namespace) => format!("{kind}/{name} in {namespace}"),
        None => format!("{kind}/{name}"),
    }
}

/// The paths of an object's pod templates, from the object's root: those of its kind, those that the user named, and
/// those with the annotation `marker`.
pub(crate) fn templates(
    object: &Value,
    kind: &ObjectKind,
    named: &[PodTemplate],
    marker: &str,
) -> Vec<ObjectPath> {
    let named = named.iter().filter(|own| own.kind == kind.kind && own.group == kind.group);
    let paths: Vec<&str> = kind.known().chain(named.map(|own| own.path.as_str())).collect();
    let mut found = Vec::new();
    for path in paths {
        let path: Vec<&str> = path.split('.').filter(|part| !part.is_empty()).collect();
        matching(object, &path, &mut ObjectPath::new(), &mut found);
    }
    walk(object, &mut ObjectPath::new(), &mut |value, path| {
        let has_it = value.pointer("/metadata/annotations").is_some_and(|own| own.get(marker).is_some());
        // A workload's own metadata isn't its pod's.
        if has_it && value.get("spec").is_some_and(|spec| spec.get("containers").is_some()) {
            found.push(path.clone());
        }
    });
    let mut unique = Vec::new();
    for path in found {
        if !unique.contains(&path) {
            unique.push(path);
        }
    }
    unique
}

/// The paths of mappings that look like a pod template: a `spec` with a list of named `containers`.
pub(crate) fn lookalikes(object: &Value) -> Vec<ObjectPath> {
    let mut found = Vec::new();
    walk(object, &mut ObjectPath::new(), &mut |value, path| {
        let containers = value.pointer("/spec/containers").and_then(Value::as_array);
        if containers.is_some_and(|all| {
            !all.is_empty() && all.iter().all(|one| one.get("name").is_some_and(Value::is_string))
        }) {
            found.push(path.clone());
        }
    });
    found
}

fn matching(value: &Value, path: &[&str], at: &mut ObjectPath, found: &mut Vec<ObjectPath>) {
    let Some((first, rest)) = path.split_first() else { return found.push(at.clone()) };
    let mut below = |key: String, value: &Value| {
        at.push(key);
        matching(value, rest, at, found);
        at.pop();
    };
    match value {
        Value::Object(entries) if *first == "*" => {
            entries.iter().for_each(|(key, value)| below(key.clone(), value));
        }
        Value::Array(items) if *first == "*" => {
            items.iter().enumerate().for_each(|(index, value)| below(index.to_string(), value));
        }
        value => {
            let place = [(*first).to_owned()];
            if let Some(value) = find(value, &place) {
                below((*first).to_owned(), value);
            }
        }
    }
}

/// Visits every mapping, with its path. The parser limits the depth.
fn walk(value: &Value, path: &mut ObjectPath, look: &mut impl FnMut(&Value, &ObjectPath)) {
    let mut below = |key: String, value: &Value| {
        path.push(key);
        walk(value, path, look);
        path.pop();
    };
    match value {
        Value::Object(entries) => {
            entries.iter().for_each(|(key, value)| below(key.clone(), value));
            look(value, path);
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| below(index.to_string(), value));
        }
        _ => {}
    }
}

/// If the object is a list of objects, at `items`: the kind of items that don't name one (from `DeploymentList`), which
/// is empty for a `List`.
fn list(object: &Value, kind: &ObjectKind) -> Option<ObjectKind> {
    let of = kind.kind.strip_suffix("List")?;
    object.get("items").filter(|items| items.is_array())?;
    Some(ObjectKind {
        group: if of.is_empty() { String::new() } else { kind.group.clone() },
        kind: of.to_owned(),
    })
}

/// The objects in a document: its root, or the items of a list (and of lists in it).
pub(crate) fn objects(document: &Value) -> Vec<DocumentObject> {
    fn gather(
        value: &Value,
        path: &ObjectPath,
        inherited: Option<&ObjectKind>,
        found: &mut Vec<DocumentObject>,
    ) {
        let kind = ObjectKind::of(value, inherited);
        let Some(items) = list(value, &kind) else {
            found.push(DocumentObject { path: path.clone(), kind });
            return;
        };
        for (index, item) in value.get("items").and_then(Value::as_array).into_iter().flatten().enumerate() {
            let mut path = path.clone();
            path.extend(["items".to_owned(), index.to_string()]);
            gather(item, &path, Some(&items), found);
        }
    }
    let mut found = Vec::new();
    gather(document, &ObjectPath::new(), None, &mut found);
    found
}

/// The items of a list, or none.
pub(crate) fn items<'v>(spec: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> + use<'v> {
    spec.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// A text, if it is one.
pub(crate) fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(object: &Value, named: &[PodTemplate]) -> Vec<String> {
        let kind = ObjectKind::of(object, None);
        templates(object, &kind, named, "mark").iter().map(|path| path.join(".")).collect()
    }

    fn pod() -> Value {
        json!({"spec": {"containers": [{"name": "a", "image": "b"}]}})
    }

    #[test]
    fn every_template_of_a_kind_is_found() {
        let set = json!({"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "spec": {"replicatedJobs": [
            {"template": {"spec": {"template": pod()}}}, {"template": {"spec": {"template": pod()}}}]}});
        assert_eq!(
            found(&set, &[]),
            ["spec.replicatedJobs.0.template.spec.template", "spec.replicatedJobs.1.template.spec.template"]
        );
        let rollout =
            json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "spec": {"template": pod()}});
        assert_eq!(found(&rollout, &[]), ["spec.template"]);
        let bare = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "a"}]}});
        assert_eq!(found(&bare, &[]), [""]);
    }

    #[test]
    fn a_kind_of_the_same_name_in_another_group_is_another_kind() {
        let other =
            json!({"apiVersion": "example.com/v1", "kind": "Deployment", "spec": {"template": pod()}});
        assert_eq!(found(&other, &[]), [""; 0]);
        let paths: Vec<String> = lookalikes(&other).iter().map(|path| path.join(".")).collect();
        assert_eq!(paths, ["spec.template"]);
        let named = [PodTemplate::parse("Deployment.example.com=spec.template").unwrap()];
        assert_eq!(found(&other, &named), ["spec.template"]);
    }

    #[test]
    fn a_marked_template_is_found_wherever_it_stands() {
        let mut pod = pod();
        pod["metadata"] = json!({"annotations": {"mark": "{}"}});
        let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget", "spec": {"parts": [pod]}});
        assert_eq!(found(&widget, &[]), ["spec.parts.0"]);
    }

    #[test]
    fn a_path_is_written_in_one_way() {
        for wrong in ["", "Widget", "Widget.example.com=", "=spec", "W=spec..template"] {
            assert!(PodTemplate::parse(wrong).is_err(), "{wrong}");
        }
    }
}
