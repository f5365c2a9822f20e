//! Decides what one pod gets, or why it gets nothing.
//!
//! Only [`decide`] decides, for `attache inject` and for the webhook. Its order: opt-out, an existing injection, the
//! pod's own annotations, clashes ([`super::possible`]); then the edits, and the record that undoes them
//! ([`super::record`]).

use serde_json::{Map, Value, json};

pub(crate) use super::decision::{InjectionDecision, asks};
use super::{
    containers,
    possible::possible,
    probes,
    record::{InjectionRecord, MARKER, Undo},
    resources,
    settings::{
        APP_PROBES, ContainerMode, INBOUND, InjectionSettings, OUTBOUND, PREFIX, PROBES, TrafficMode,
    },
    without_pod,
};
use crate::{
    edit::{ObjectEdit, ObjectPath, find},
    object::{ObjectKind, items, text},
};

/// Bytes of a pod's annotations, keys and values (`TotalAnnotationSizeLimitB` of the API server).
const MAX_ANNOTATION_BYTES: usize = 256 << 10;

/// The original YAML of the entry at a path of the object, if there is one.
pub(crate) type WrittenEntry<'w> = &'w dyn Fn(&[String]) -> Option<String>;

/// Decides about one pod of an object, by its path there; `None` if no pod of the object is known.
pub(crate) fn decide(
    object: &Value,
    kind: &ObjectKind,
    pod: Option<&[String]>,
    defaults: &InjectionSettings,
    written: WrittenEntry<'_>,
) -> InjectionDecision {
    let Some(base) = pod else { return without_pod::decide(object, kind) };
    let template = match find(object, base) {
        Some(template) if template.is_object() => template,
        _ => return InjectionDecision::Refuse(format!("it has no pod template at {}", base.join("."))),
    };
    let asked = match asks(object, template) {
        Ok(Some((false, place))) => {
            return InjectionDecision::Skip(format!("{place} {PREFIX}inject says so"));
        }
        Ok(asked) => asked.is_some(),
        Err(wrong) => return InjectionDecision::Refuse(wrong),
    };
    let annotations = match template.pointer("/metadata/annotations") {
        Some(Value::Object(annotations)) => annotations.clone(),
        _ => Map::new(),
    };
    if annotations.contains_key(MARKER) {
        return InjectionDecision::Present;
    }
    if !asked && template.pointer("/spec/hostNetwork").and_then(Value::as_bool) == Some(true) {
        return InjectionDecision::Skip(format!(
            "it has hostNetwork, where attache's ports {OUTBOUND}, {INBOUND} and {PROBES} would be the node's: {PREFIX}inject: \"true\" asks for it anyway"
        ));
    }
    let (settings, unknown) = match defaults.with(&annotations) {
        Ok(settings) => settings,
        Err(wrong) => return InjectionDecision::Refuse(wrong),
    };
    let mut warnings: Vec<String> =
        unknown.iter().map(|key| format!("the annotation `{key}` means nothing to attache")).collect();
    if kind.group == "serving.knative.dev" {
        warnings.push(
            "Knative takes init containers and a sidecar's ports only with its feature flags (kubernetes.podspec-init-containers): the webhook injects its pods without them"
                .to_owned(),
        );
    }
    let claims: Vec<&str> = object
        .get("spec")
        .into_iter()
        .flat_map(|spec| items(spec, "volumeClaimTemplates"))
        .filter_map(|claim| text(claim.get("metadata")?, "name"))
        .collect();
    if let Err(reason) = possible(kind, template, &claims, &settings, &mut warnings) {
        return InjectionDecision::Refuse(reason);
    }
    let base = base.to_vec();
    let plan = InjectionPlan {
        template,
        base,
        written,
        edits: Vec::new(),
        record: InjectionRecord::default(),
        warnings,
    };
    match plan.make(&settings, &annotations) {
        Ok((edits, warnings)) => InjectionDecision::Inject { edits, warnings, settings: Box::new(settings) },
        Err(reason) => InjectionDecision::Refuse(reason),
    }
}

struct InjectionPlan<'p> {
    template: &'p Value,
    base: ObjectPath,
    written: WrittenEntry<'p>,
    edits: Vec<ObjectEdit>,
    record: InjectionRecord,
    warnings: Vec<String>,
}

impl InjectionPlan<'_> {
    fn make(
        mut self,
        settings: &InjectionSettings,
        annotations: &Map<String, Value>,
    ) -> Result<(Vec<ObjectEdit>, Vec<String>), String> {
        let probes = if settings.intercepts_inbound() && settings.rewrite_probes {
            self.rewrite_probes(settings)?
        } else {
            if settings.intercepts_inbound() {
                self.warnings
                    .push("its probes are asked from outside, and intercepted as every call".to_owned());
            }
            None
        };
        if settings.traffic == TrafficMode::HttpProxy {
            self.set_proxy(settings);
        }
        self.grow_resources(settings)?;
        let attache = containers::attache(settings, probes.as_deref());
        match settings.mode {
            ContainerMode::Native => {
                let mut front = vec![attache];
                if settings.traffic == TrafficMode::Transparent {
                    front.push(containers::intercept(settings, probes.is_some()));
                }
                self.add_items("initContainers", front, Vec::new());
            }
            ContainerMode::Container => {
                // It comes last: connections of the earlier init containers are not redirected, since attache doesn't
                // run yet.
                if settings.traffic == TrafficMode::Transparent {
                    let intercept = containers::intercept(settings, probes.is_some());
                    self.add_items("initContainers", Vec::new(), vec![intercept]);
                }
                self.add_items("containers", vec![attache], Vec::new());
            }
        }
        self.add_items("volumes", Vec::new(), containers::volumes(settings));
        self.add_pull_secrets(settings);
        self.annotate(settings, annotations);
        self.check_annotations(annotations)?;
        Ok((self.edits, self.warnings))
    }

    fn annotate(&mut self, settings: &InjectionSettings, annotations: &Map<String, Value>) {
        let mut add: Vec<(String, Value)> = Vec::new();
        if let Some(config) = &settings.config {
            let key = format!("{PREFIX}config");
            if !annotations.contains_key(&key) {
                add.push((key, config.as_str().into()));
            }
        }
        if settings.prometheus {
            if annotations.keys().any(|key| key.starts_with("prometheus.io/")) {
                self.warnings.push(format!(
                    "the app announces its own metrics by prometheus.io annotations: attache's, on {PROBES}, aren't announced"
                ));
            } else {
                let port = PROBES.to_string();
                for (key, value) in [("scrape", "true"), ("port", port.as_str()), ("path", "/metrics")] {
                    add.push((format!("prometheus.io/{key}"), value.into()));
                }
            }
        }
        let default = "kubectl.kubernetes.io/default-container";
        if settings.mode == ContainerMode::Container && !annotations.contains_key(default) {
            // `kubectl logs` and `kubectl exec` use the first container by default.
            let app = self.template.pointer("/spec/containers/0/name").cloned();
            add.extend(app.map(|app| (default.to_owned(), app)));
        }
        for (key, _) in &add {
            self.record.undo.push(Undo::remove(&["metadata", "annotations", key]));
        }
        // The record is a part of the pod that it describes: everything except the record itself is known now.
        let metadata = self.template.get("metadata");
        let (mut add, place): (Vec<(String, Value)>, &[&str]) = match metadata {
            Some(Value::Object(metadata)) if !metadata.is_empty() => (add, &["metadata"]),
            _ => (add, &[]),
        };
        match (place, metadata.and_then(|metadata| metadata.get("annotations"))) {
            (["metadata"], Some(Value::Object(own))) if !own.is_empty() => {
                add.push((MARKER.to_owned(), self.record.text().into()));
                let object = self.path(&["metadata", "annotations"]);
                for (key, value) in add {
                    self.edits.push(ObjectEdit::Set { object: object.clone(), key, value });
                }
            }
            (["metadata"], own) => {
                self.note_empty(&["metadata"], "annotations", own);
                add.push((MARKER.to_owned(), self.record.text().into()));
                self.set(&["metadata"], "annotations", Value::Object(add.into_iter().collect()));
            }
            _ => {
                self.note_empty(&[], "metadata", metadata);
                add.push((MARKER.to_owned(), self.record.text().into()));
                let annotations: Map<String, Value> = add.into_iter().collect();
                self.set(&[], "metadata", json!({"annotations": annotations}));
            }
        }
    }

    /// Checks the API server's limit of annotations: the bytes of all keys and values together.
    fn check_annotations(&mut self, annotations: &Map<String, Value>) -> Result<(), String> {
        let of = |entries: &Map<String, Value>| -> usize {
            entries.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum()
        };
        let put: usize = self
            .edits
            .iter()
            .map(|edit| match edit {
                ObjectEdit::Set { object, key, value: Value::String(value) }
                    if object.last().is_some_and(|last| last == "annotations") =>
                {
                    key.len() + value.len()
                }
                ObjectEdit::Set { key, value: Value::Object(value), .. }
                | ObjectEdit::Swap { new: key, value: Value::Object(value), .. } => match key.as_str() {
                    "annotations" => of(value),
                    "metadata" => value.get("annotations").and_then(Value::as_object).map_or(0, of),
                    _ => 0,
                },
                _ => 0,
            })
            .sum();
        let all = of(annotations) + put;
        if all > MAX_ANNOTATION_BYTES {
            return Err(format!(
                "its annotations would hold {all} bytes, and Kubernetes takes {MAX_ANNOTATION_BYTES}: put the config into a ConfigMap ({PREFIX}config-map)"
            ));
        }
        // kubectl apply keeps a copy of the whole object in its own annotation.
        if all > MAX_ANNOTATION_BYTES / 2 {
            self.warnings.push(format!(
                "its annotations hold {all} bytes; `kubectl apply` keeps a copy of them and Kubernetes takes {MAX_ANNOTATION_BYTES} in all: use `kubectl apply --server-side`, or a ConfigMap"
            ));
        }
        Ok(())
    }

    /// Raises the resources of the pod as a whole, if it has any.
    fn grow_resources(&mut self, settings: &InjectionSettings) -> Result<(), String> {
        let template = self.template;
        let Some(spec) = template.get("spec") else { return Ok(()) };
        for grown in resources::grown(spec, settings)? {
            let place = ["spec", "resources", grown.part];
            let object = self.path(&place);
            let mut entry = object.clone();
            entry.push(grown.resource.to_owned());
            let key = grown.resource.to_owned();
            let old = spec.pointer(&format!("/resources/{}/{}", grown.part, grown.resource)).cloned();
            self.record.undo.push(Undo::Swap {
                object: place.map(str::to_owned).to_vec(),
                old: key.clone(),
                new: key.clone(),
                value: old.unwrap_or_default(),
                raw: (self.written)(&entry),
            });
            self.edits.push(ObjectEdit::Swap {
                object,
                old: key.clone(),
                new: key,
                value: grown.value,
                raw: None,
            });
        }
        Ok(())
    }

    /// Adds the Secrets with which attache's image is pulled, except those that the pod names itself.
    fn add_pull_secrets(&mut self, settings: &InjectionSettings) {
        let own: Vec<&str> = self
            .template
            .get("spec")
            .into_iter()
            .flat_map(|spec| items(spec, "imagePullSecrets"))
            .filter_map(|secret| text(secret, "name"))
            .collect();
        let secrets: Vec<Value> = settings
            .image_pull_secrets
            .iter()
            .filter(|name| !own.contains(&name.as_str()))
            .map(|name| json!({"name": name}))
            .collect();
        self.add_items("imagePullSecrets", Vec::new(), secrets);
    }

    /// `HTTP_PROXY` and `NO_PROXY` in every container that runs while attache does.
    fn set_proxy(&mut self, settings: &InjectionSettings) {
        let proxy = format!("http://127.0.0.1:{OUTBOUND}");
        let wanted = [
            ("HTTP_PROXY", proxy.as_str()),
            ("http_proxy", proxy.as_str()),
            ("NO_PROXY", settings.no_proxy.as_str()),
            ("no_proxy", settings.no_proxy.as_str()),
        ];
        let kinds: &[&str] = match settings.mode {
            ContainerMode::Native => &["initContainers", "containers"],
            ContainerMode::Container => &["containers"],
        };
        let template = self.template;
        for kind in kinds {
            for (index, container) in
                template.get("spec").into_iter().flat_map(|spec| items(spec, kind)).enumerate()
            {
                let name = text(container, "name").unwrap_or_default();
                let own: Vec<&str> = items(container, "env").filter_map(|env| text(env, "name")).collect();
                let mut add = Vec::new();
                for (variable, value) in wanted {
                    if own.contains(&variable) {
                        self.warnings.push(format!("container `{name}` has its own {variable}: it stays"));
                    } else {
                        self.record.undo.push(Undo::remove(&["spec", kind, name, "env", variable]));
                        add.push(json!({"name": variable, "value": value}));
                    }
                }
                if add.is_empty() {
                    continue;
                }
                let place = ["spec", kind, &index.to_string()].map(str::to_owned);
                match container.get("env") {
                    Some(Value::Array(env)) if !env.is_empty() => {
                        let mut path = self.path(&[]);
                        path.extend(place);
                        path.push("env".to_owned());
                        self.edits.push(ObjectEdit::Insert { list: path, before: env.len(), items: add });
                    }
                    empty => {
                        let place: Vec<&str> = place.iter().map(String::as_str).collect();
                        self.note_empty_named(&place, &["spec", kind, name], "env", empty);
                        self.set(&place, "env", add.into());
                    }
                }
            }
        }
    }

    fn rewrite_probes(&mut self, settings: &InjectionSettings) -> Result<Option<String>, String> {
        let mut all = Map::new();
        let template = self.template;
        for kind in ["initContainers", "containers"] {
            for (index, container) in
                template.get("spec").into_iter().flat_map(|spec| items(spec, kind)).enumerate()
            {
                let name = text(container, "name").unwrap_or_default();
                for new in probes::rewrite(container, name, settings, &mut all, &mut self.warnings)? {
                    let index = index.to_string();
                    let own = ["spec", kind, &index].into_iter().chain(new.place.iter().copied());
                    let mut object = self.path(&own.collect::<Vec<_>>());
                    let mut entry = object.clone();
                    entry.push(new.handler.to_owned());
                    let named = ["spec", kind, name].into_iter().chain(new.place.iter().copied());
                    self.record.undo.push(Undo::Swap {
                        object: named.map(str::to_owned).collect(),
                        old: "httpGet".to_owned(),
                        new: new.handler.to_owned(),
                        value: new.asked,
                        raw: (self.written)(&entry),
                    });
                    self.edits.push(ObjectEdit::Swap {
                        object: std::mem::take(&mut object),
                        old: new.handler.to_owned(),
                        new: "httpGet".to_owned(),
                        value: new.value,
                        raw: None,
                    });
                }
            }
        }
        Ok((!all.is_empty()).then(|| json!({"port": APP_PROBES, "probes": all}).to_string()))
    }

    /// Adds named items at both ends of a list of the pod's spec.
    fn add_items(&mut self, key: &str, front: Vec<Value>, back: Vec<Value>) {
        if front.is_empty() && back.is_empty() {
            return;
        }
        for item in front.iter().chain(&back) {
            self.record.undo.push(Undo::remove(&["spec", key, text(item, "name").unwrap_or_default()]));
        }
        match self.template.get("spec").and_then(|spec| spec.get(key)) {
            Some(Value::Array(items)) if !items.is_empty() => {
                let path = self.path(&["spec", key]);
                for (before, items) in [(0, front), (items.len(), back)] {
                    if !items.is_empty() {
                        self.edits.push(ObjectEdit::Insert { list: path.clone(), before, items });
                    }
                }
            }
            empty => {
                self.note_empty(&["spec"], key, empty);
                self.set(&["spec"], key, [front, back].concat().into());
            }
        }
    }

    /// Sets a whole value where there is none, or only `null`, `{}` or `[]`.
    fn set(&mut self, object: &[&str], key: &str, value: Value) {
        let there = find(self.template, &object.iter().map(ToString::to_string).collect::<Vec<_>>())
            .is_some_and(|object| object.get(key).is_some());
        let (object, key) = (self.path(object), key.to_owned());
        self.edits.push(if there {
            ObjectEdit::Swap { object, old: key.clone(), new: key, value, raw: None }
        } else {
            ObjectEdit::Set { object, key, value }
        });
    }

    fn note_empty(&mut self, object: &[&str], key: &str, empty: Option<&Value>) {
        self.note_empty_named(object, object, key, empty);
    }

    /// Notes an empty value that must be restored after the injected parts are removed from it.
    fn note_empty_named(&mut self, object: &[&str], named: &[&str], key: &str, empty: Option<&Value>) {
        let Some(value) = empty else { return };
        let mut path = self.path(object);
        path.push(key.to_owned());
        let mut named: ObjectPath = named.iter().map(ToString::to_string).collect();
        named.push(key.to_owned());
        self.record.undo.push(Undo::Empty { path: named, value: value.clone(), raw: (self.written)(&path) });
    }

    fn path(&self, rest: &[&str]) -> ObjectPath {
        self.base.iter().cloned().chain(rest.iter().map(ToString::to_string)).collect()
    }
}
