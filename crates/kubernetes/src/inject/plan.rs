//! What one object gets, or why it gets nothing.
//!
//! [`decide`] is the one place that says so, for `attache inject` and for the webhook. Order: opt-out, what is there already, the
//! pod's own annotations, what clashes; then the edits, and the record that takes them back ([`super::record`]).

use serde_json::{Map, Value, json};

use super::{
    containers::{self, CONFIG_VOLUME, INTERCEPT, NAME, TLS_VOLUME},
    probes,
    record::{MARKER, Record, Undo},
    settings::{APP_PROBES, INBOUND, Mode, OUTBOUND, PREFIX, PROBES, Settings, Traffic, listener_at, parsed},
};
use crate::{
    edit::{Edit, Path, find},
    object,
};

/// What is decided about an object.
#[derive(Debug)]
pub(crate) enum Decision {
    /// It gets attache.
    Inject { edits: Vec<Edit>, warnings: Vec<String>, settings: Box<Settings> },
    /// It isn't meant to get it.
    Skip(String),
    /// It can't get it.
    Refuse(String),
    /// It has it.
    Present,
}

/// How an entry at a path of the object is written, where it is written in YAML.
pub(crate) type Written<'w> = &'w dyn Fn(&[String]) -> Option<String>;

/// Decides about one object.
pub(crate) fn decide(object: &Value, defaults: &Settings, written: Written<'_>) -> Decision {
    let Some(base) = object::template(object) else {
        return Decision::Skip("it has no pod".to_owned());
    };
    let template = match find(object, &base) {
        Some(template) if template.is_object() => template,
        _ => return Decision::Refuse(format!("it has no pod template at {}", base.join("."))),
    };
    for (place, metadata) in
        [("its", object.get("metadata")), ("its pod template's", template.get("metadata"))]
    {
        match opted_out(metadata) {
            Ok(false) => {}
            Ok(true) => return Decision::Skip(format!("{place} {PREFIX}inject says so")),
            Err(wrong) => return Decision::Refuse(wrong),
        }
    }
    let annotations = match template.pointer("/metadata/annotations") {
        Some(Value::Object(annotations)) => annotations.clone(),
        _ => Map::new(),
    };
    if annotations.contains_key(MARKER) {
        return Decision::Present;
    }
    let (settings, unknown) = match defaults.with(&annotations) {
        Ok(settings) => settings,
        Err(wrong) => return Decision::Refuse(wrong),
    };
    let mut warnings: Vec<String> =
        unknown.iter().map(|key| format!("the annotation `{key}` means nothing to attache")).collect();
    if let Err(reason) = possible(object, template, &settings, &mut warnings) {
        return Decision::Refuse(reason);
    }
    let plan = Plan { template, base, written, edits: Vec::new(), record: Record::default(), warnings };
    match plan.make(&settings, &annotations) {
        Ok((edits, warnings)) => Decision::Inject { edits, warnings, settings: Box::new(settings) },
        Err(reason) => Decision::Refuse(reason),
    }
}

/// `attache.dev/inject: "false"`, as annotation or label.
fn opted_out(metadata: Option<&Value>) -> Result<bool, String> {
    let key = format!("{PREFIX}inject");
    for kind in ["annotations", "labels"] {
        match metadata.and_then(|metadata| metadata.get(kind)?.get(&key)) {
            None | Some(Value::Bool(true)) => {}
            Some(Value::Bool(false)) => return Ok(true),
            Some(Value::String(text)) if matches!(text.as_str(), "false" | "no" | "disabled") => {
                return Ok(true);
            }
            Some(Value::String(text)) if matches!(text.as_str(), "true" | "yes" | "enabled") => {}
            Some(other) => return Err(format!("`{key}` is {other}, not \"true\" or \"false\"")),
        }
    }
    Ok(false)
}

fn list<'v>(spec: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> + use<'v> {
    spec.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str)
}

/// # Errors
/// Why the pod can't have attache.
fn possible(
    object: &Value,
    template: &Value,
    settings: &Settings,
    warnings: &mut Vec<String>,
) -> Result<(), String> {
    let Some(spec) = template.get("spec").filter(|spec| spec.is_object()) else {
        return Err("its pod has no spec".to_owned());
    };
    if list(spec, "containers").next().is_none() {
        return Err("its pod has no containers".to_owned());
    }
    let windows = ["/os/name", "/nodeSelector/kubernetes.io~1os"];
    if windows.iter().any(|path| spec.pointer(path).and_then(Value::as_str) == Some("windows")) {
        return Err("its pod runs on Windows".to_owned());
    }
    if spec.get("hostNetwork").and_then(Value::as_bool) == Some(true) {
        if settings.traffic == Traffic::Transparent {
            return Err("it has hostNetwork: redirection would take the whole node's connections".to_owned());
        }
        warnings.push(format!(
            "it has hostNetwork: ports {OUTBOUND}, {INBOUND} and {PROBES} are taken on the node, so that one such pod fits on each"
        ));
    }
    let ends = matches!(text(object, "kind"), Some("Job" | "CronJob"))
        || matches!(text(spec, "restartPolicy"), Some("Never" | "OnFailure"));
    if settings.mode == Mode::Container && ends {
        return Err(
            "its pod ends when its containers have, and attache as a plain container would go on: a pod that ends needs mode native (Kubernetes 1.29)"
                .to_owned(),
        );
    }
    let own_ports: &[u16] = if settings.intercepts_inbound() {
        &[OUTBOUND, INBOUND, PROBES, APP_PROBES]
    } else {
        &[OUTBOUND, INBOUND, PROBES]
    };
    for kind in ["initContainers", "containers", "ephemeralContainers"] {
        for (index, container) in list(spec, kind).enumerate() {
            let name = text(container, "name")
                .ok_or_else(|| format!("the container {index} of its {kind} has no name"))?;
            if name == NAME || name == INTERCEPT {
                return Err(format!("it has a container `{name}` that attache didn't put there"));
            }
            for port in list(container, "ports") {
                let number = port.get("containerPort").and_then(Value::as_u64);
                let tcp = text(port, "protocol").is_none_or(|protocol| protocol == "TCP");
                if let Some(clash) = own_ports.iter().find(|own| tcp && number == Some(u64::from(**own))) {
                    return Err(format!("its container `{name}` has port {clash}, which is attache's"));
                }
            }
            if settings.traffic == Traffic::Transparent
                && container.pointer("/securityContext/runAsUser").and_then(Value::as_u64)
                    == Some(settings.uid.into())
            {
                return Err(format!("its container `{name}` {}", same_user(settings)));
            }
        }
    }
    let user = spec.pointer("/securityContext/runAsUser").and_then(Value::as_u64);
    if settings.traffic == Traffic::Transparent && user == Some(settings.uid.into()) {
        return Err(format!("it {}", same_user(settings)));
    }
    for volume in list(spec, "volumes") {
        if let Some(name @ (CONFIG_VOLUME | TLS_VOLUME)) = text(volume, "name") {
            return Err(format!("it has a volume `{name}` that attache didn't put there"));
        }
    }
    check_config(settings, warnings)
}

fn same_user(settings: &Settings) -> String {
    format!(
        "runs as user {0}, as attache does: its connections wouldn't be redirected. Give attache another with {PREFIX}uid",
        settings.uid
    )
}

fn check_config(settings: &Settings, warnings: &mut Vec<String>) -> Result<(), String> {
    let Some(config) = &settings.config else {
        if settings.traffic == Traffic::Transparent && settings.config_map.is_none() {
            return Err(format!(
                "transparent traffic needs a config with `transparent: true`: name one with {PREFIX}config-map or {PREFIX}config"
            ));
        }
        return Ok(());
    };
    let Some(config) = parsed(config) else { return Ok(()) };
    let config = config?;
    if config.metrics.is_none_or(|address| address.port() != PROBES || address.ip().is_loopback()) {
        return Err(format!("its config moves `metrics` from 0.0.0.0:{PROBES}, where the kubelet asks"));
    }
    if settings.traffic == Traffic::Transparent {
        for port in [OUTBOUND].into_iter().chain(settings.inbound.then_some(INBOUND)) {
            if !listener_at(&config, port).is_some_and(|listener| port == INBOUND || listener.transparent) {
                return Err(match port {
                    INBOUND => format!(
                        "its config has no listener on {INBOUND}, to which calls would be redirected: add one, or say {PREFIX}inbound: \"false\""
                    ),
                    _ => format!("its config has no listener with `transparent: true` on {OUTBOUND}"),
                });
            }
        }
    } else if listener_at(&config, OUTBOUND).is_none() {
        warnings.push(format!("its config has no listener on {OUTBOUND}"));
    }
    Ok(())
}

struct Plan<'p> {
    template: &'p Value,
    base: Path,
    written: Written<'p>,
    edits: Vec<Edit>,
    record: Record,
    warnings: Vec<String>,
}

impl Plan<'_> {
    fn make(
        mut self,
        settings: &Settings,
        annotations: &Map<String, Value>,
    ) -> Result<(Vec<Edit>, Vec<String>), String> {
        let probes = if settings.intercepts_inbound() && settings.rewrite_probes {
            self.rewrite_probes(settings)?
        } else {
            if settings.intercepts_inbound() {
                self.warnings
                    .push("its probes are asked from outside, and intercepted as every call".to_owned());
            }
            None
        };
        if settings.traffic == Traffic::HttpProxy {
            self.set_proxy(settings);
        }
        let attache = containers::attache(settings, probes.as_deref());
        match settings.mode {
            Mode::Native => {
                let mut front = vec![attache];
                if settings.traffic == Traffic::Transparent {
                    front.push(containers::intercept(settings, probes.is_some()));
                }
                self.add_items("initContainers", front, Vec::new());
            }
            Mode::Container => {
                // Last: the init containers before it call as ever, since attache doesn't run yet.
                if settings.traffic == Traffic::Transparent {
                    let intercept = containers::intercept(settings, probes.is_some());
                    self.add_items("initContainers", Vec::new(), vec![intercept]);
                }
                self.add_items("containers", vec![attache], Vec::new());
            }
        }
        self.add_items("volumes", Vec::new(), containers::volumes(settings));
        self.annotate(settings, annotations);
        Ok((self.edits, self.warnings))
    }

    fn annotate(&mut self, settings: &Settings, annotations: &Map<String, Value>) {
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
        if settings.mode == Mode::Container && !annotations.contains_key(default) {
            // kubectl logs and exec mean the first container.
            let app = self.template.pointer("/spec/containers/0/name").cloned();
            add.extend(app.map(|app| (default.to_owned(), app)));
        }
        for (key, _) in &add {
            self.record.undo.push(Undo::remove(&["metadata", "annotations", key]));
        }
        // The record is part of what it records: all but itself is known by now.
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
                    self.edits.push(Edit::Set { object: object.clone(), key, value });
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

    /// `HTTP_PROXY` and `NO_PROXY` in every container that runs while attache does.
    fn set_proxy(&mut self, settings: &Settings) {
        let proxy = format!("http://127.0.0.1:{OUTBOUND}");
        let wanted = [
            ("HTTP_PROXY", proxy.as_str()),
            ("http_proxy", proxy.as_str()),
            ("NO_PROXY", settings.no_proxy.as_str()),
            ("no_proxy", settings.no_proxy.as_str()),
        ];
        let kinds: &[&str] = match settings.mode {
            Mode::Native => &["initContainers", "containers"],
            Mode::Container => &["containers"],
        };
        let template = self.template;
        for kind in kinds {
            for (index, container) in
                template.get("spec").into_iter().flat_map(|spec| list(spec, kind)).enumerate()
            {
                let name = text(container, "name").unwrap_or_default();
                let own: Vec<&str> = list(container, "env").filter_map(|env| text(env, "name")).collect();
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
                        self.edits.push(Edit::Insert { list: path, before: env.len(), items: add });
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

    fn rewrite_probes(&mut self, settings: &Settings) -> Result<Option<String>, String> {
        let mut all = Map::new();
        let template = self.template;
        for kind in ["initContainers", "containers"] {
            for (index, container) in
                template.get("spec").into_iter().flat_map(|spec| list(spec, kind)).enumerate()
            {
                let name = text(container, "name").unwrap_or_default();
                for hook in ["postStart", "preStop"] {
                    let handler = container.get("lifecycle").and_then(|lifecycle| lifecycle.get(hook));
                    if handler.is_some_and(|handler| handler.get("httpGet").is_some()) {
                        self.warnings.push(format!(
                            "the {hook} hook of container `{name}` is a call from the kubelet, and intercepted as every call"
                        ));
                    }
                }
                for new in probes::rewrite(container, name, settings, &mut all)? {
                    let mut object = self.path(&["spec", kind, &index.to_string(), new.probe]);
                    let old = container.pointer(&format!("/{}/{}", new.probe, new.handler)).cloned();
                    let mut entry = object.clone();
                    entry.push(new.handler.to_owned());
                    self.record.undo.push(Undo::Swap {
                        object: ["spec", kind, name, new.probe].map(str::to_owned).to_vec(),
                        old: "httpGet".to_owned(),
                        new: new.handler.to_owned(),
                        value: old.unwrap_or_default(),
                        raw: (self.written)(&entry),
                    });
                    self.edits.push(Edit::Swap {
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

    /// Named items at both ends of a list of the pod's spec.
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
                        self.edits.push(Edit::Insert { list: path.clone(), before, items });
                    }
                }
            }
            empty => {
                self.note_empty(&["spec"], key, empty);
                self.set(&["spec"], key, [front, back].concat().into());
            }
        }
    }

    /// A whole value where nothing is, or nothing but `null`, `{}` or `[]`.
    fn set(&mut self, object: &[&str], key: &str, value: Value) {
        let there = find(self.template, &object.iter().map(ToString::to_string).collect::<Vec<_>>())
            .is_some_and(|object| object.get(key).is_some());
        let (object, key) = (self.path(object), key.to_owned());
        self.edits.push(if there {
            Edit::Swap { object, old: key.clone(), new: key, value, raw: None }
        } else {
            Edit::Set { object, key, value }
        });
    }

    fn note_empty(&mut self, object: &[&str], key: &str, empty: Option<&Value>) {
        self.note_empty_named(object, object, key, empty);
    }

    /// What is to be there again when all that was put into it is gone.
    fn note_empty_named(&mut self, object: &[&str], named: &[&str], key: &str, empty: Option<&Value>) {
        let Some(value) = empty else { return };
        let mut path = self.path(object);
        path.push(key.to_owned());
        let mut named: Path = named.iter().map(ToString::to_string).collect();
        named.push(key.to_owned());
        self.record.undo.push(Undo::Empty { path: named, value: value.clone(), raw: (self.written)(&path) });
    }

    fn path(&self, rest: &[&str]) -> Path {
        self.base.iter().cloned().chain(rest.iter().map(ToString::to_string)).collect()
    }
}
