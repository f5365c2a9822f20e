//! The containers and volumes that a pod gets.

use serde_json::{Map, Value, json};

use super::{
    extra,
    names::{
        CERTS, CONFIG, CONFIG_VOLUME, INTERCEPT, NAME, PROBES_VARIABLE, PROGRAM, SPIFFE, SPIFFE_VARIABLE,
        SPIFFE_VOLUME, TLS_VOLUME, TOKEN, TOKEN_VOLUME, UPGRADE, UPGRADE_VARIABLE, UPGRADE_VOLUME,
    },
    settings::{APP_PROBES, ContainerMode, INBOUND, InjectionSettings, OUTBOUND, PROBES, socket},
};

/// attache's container; `probes` are the app's probes that attache answers, as JSON.
pub(crate) fn attache(settings: &InjectionSettings, probes: Option<&str>) -> Value {
    let mut container = Map::new();
    let mut set = |key: &str, value: Value| {
        container.insert(key.to_owned(), value);
    };
    set("name", NAME.into());
    set("image", settings.image.as_str().into());
    if let Some(policy) = &settings.image_pull_policy {
        set("imagePullPolicy", policy.as_str().into());
    }
    if settings.mode == ContainerMode::Native {
        set("restartPolicy", "Always".into());
    }
    set("args", args(settings).into());
    set("env", environment(settings, probes).into());
    set("ports", ports(probes.is_some()).into());
    let get = |path: &str| json!({"path": path, "port": PROBES});
    set("startupProbe", json!({"httpGet": get("/readyz"), "periodSeconds": 1, "failureThreshold": 60}));
    set("livenessProbe", json!({"httpGet": get("/healthz"), "periodSeconds": 10}));
    set("readinessProbe", json!({"httpGet": get("/readyz"), "periodSeconds": 5}));

    if settings.mode == ContainerMode::Container {
        set("lifecycle", lifecycle(settings).into());
    }

    if let Some(resources) = resources(settings) {
        set("resources", resources);
    }
    set(
        "securityContext",
        json!({
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "runAsUser": settings.uid,
            "runAsGroup": settings.uid,
            "seccompProfile": {"type": "RuntimeDefault"},
        }),
    );

    let mounts = mounts(settings);
    if !mounts.is_empty() {
        set("volumeMounts", mounts.into());
    }
    container.into()
}

/// The config comes from a ConfigMap, or from the pod's annotation.
fn is_configured(settings: &InjectionSettings) -> bool {
    settings.config_map.is_some() || settings.config.is_some()
}

fn args(settings: &InjectionSettings) -> Vec<String> {
    let mut args = vec!["run".to_owned()];
    if is_configured(settings) {
        args.extend(["--config".to_owned(), format!("{CONFIG}/attache.yaml")]);
    }
    if settings.log != "info" {
        args.extend(["--log".to_owned(), settings.log.clone()]);
    }
    args
}

fn environment(settings: &InjectionSettings, probes: Option<&str>) -> Vec<Value> {
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let mut env = vec![
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("POD_IP", "status.podIP"),
        field("POD_SERVICE_ACCOUNT", "spec.serviceAccountName"),
        field("NODE_NAME", "spec.nodeName"),
        field("HOST_IP", "status.hostIP"),
    ];
    if let Some(probes) = probes {
        env.push(json!({"name": PROBES_VARIABLE, "value": probes}));
    }
    if let Some((_, name)) = settings.spiffe_socket.as_deref().and_then(socket) {
        env.push(json!({"name": SPIFFE_VARIABLE, "value": format!("unix://{SPIFFE}/{name}")}));
    }
    if settings.upgrade {
        env.push(json!({"name": UPGRADE_VARIABLE, "value": UPGRADE}));
    }
    env.extend(settings.env.iter().cloned());
    env
}

/// `probes`: attache answers those of the app.
fn ports(probes: bool) -> Vec<Value> {
    let port = |name: &str, port: u16| json!({"name": name, "containerPort": port});
    let mut ports =
        vec![port("attache-out", OUTBOUND), port("attache-in", INBOUND), port("attache-metrics", PROBES)];
    if probes {
        ports.push(port("attache-probes", APP_PROBES));
    }
    ports
}

fn lifecycle(settings: &InjectionSettings) -> Map<String, Value> {
    // The kubelet starts the next container after the postStart hook, and stops this container after the preStop
    // hook.
    let hook = |args: Value| json!({"exec": {"command": args}});
    let mut lifecycle = Map::new();
    lifecycle.insert("postStart".to_owned(), hook(json!([PROGRAM, "wait-ready", "--timeout", "60s"])));
    if settings.pre_stop > 0 {
        let duration = format!("{}s", settings.pre_stop);
        lifecycle.insert("preStop".to_owned(), hook(json!([PROGRAM, "sleep", duration])));
    }
    lifecycle
}

fn mounts(settings: &InjectionSettings) -> Vec<Value> {
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path, "readOnly": true});
    let mut mounts = Vec::new();
    if is_configured(settings) {
        mounts.push(mount(CONFIG_VOLUME, CONFIG));
    }
    if settings.tls_secret.is_some() {
        mounts.push(mount(TLS_VOLUME, CERTS));
    }
    if settings.spiffe_socket.as_deref().and_then(socket).is_some() {
        mounts.push(mount(SPIFFE_VOLUME, SPIFFE));
    }
    if settings.service_account_token {
        mounts.push(mount(TOKEN_VOLUME, TOKEN));
    }
    if settings.upgrade {
        mounts.push(json!({"name": UPGRADE_VOLUME, "mountPath": UPGRADE}));
    }
    mounts.extend(settings.volumes.iter().map(|volume| extra::split(volume).1));
    mounts
}

/// The init container that redirects the pod's connections.
pub(crate) fn intercept(settings: &InjectionSettings, probes: bool) -> Value {
    let uid = settings.uid.to_string();
    let mut args =
        vec!["intercept".to_owned(), "--proxy-uid".to_owned(), uid.clone(), "--proxy-gid".to_owned(), uid];
    args.extend(["--outbound-port".to_owned(), OUTBOUND.to_string()]);
    let mut option = |name: &str, value: String| {
        if !value.is_empty() {
            args.extend([name.to_owned(), value]);
        }
    };
    option("--exclude-outbound-ports", settings.exclude_outbound_ports.clone());
    option("--exclude-outbound-cidrs", settings.exclude_outbound_cidrs.clone());
    if settings.inbound {
        option("--inbound-port", INBOUND.to_string());
        let mut ports = vec![PROBES.to_string()];
        if probes {
            ports.push(APP_PROBES.to_string());
        }
        if !settings.exclude_inbound_ports.is_empty() {
            ports.push(settings.exclude_inbound_ports.clone());
        }
        option("--exclude-inbound-ports", ports.join(","));
    } else {
        args.push("--no-inbound".to_owned());
    }
    let mut container = json!({"name": INTERCEPT, "image": settings.image});
    if let (Some(policy), Some(entries)) = (&settings.image_pull_policy, container.as_object_mut()) {
        entries.insert("imagePullPolicy".to_owned(), policy.as_str().into());
    }
    if let Some(entries) = container.as_object_mut() {
        entries.insert("args".to_owned(), args.into());
        if let Some(resources) = resources(settings) {
            entries.insert("resources".to_owned(), resources);
        }
        entries.insert(
            "securityContext".to_owned(),
            json!({
                "allowPrivilegeEscalation": false,
                "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
                "readOnlyRootFilesystem": true,
                "runAsNonRoot": false,
                "runAsUser": 0,
                "runAsGroup": 0,
                "seccompProfile": {"type": "RuntimeDefault"},
            }),
        );
    }
    container
}

fn resources(settings: &InjectionSettings) -> Option<Value> {
    let part = |cpu: &Option<String>, memory: &Option<String>| {
        let mut part = Map::new();
        for (name, quantity) in [("cpu", cpu), ("memory", memory)] {
            if let Some(quantity) = quantity {
                part.insert(name.to_owned(), quantity.as_str().into());
            }
        }
        part
    };
    let mut resources = Map::new();
    for (name, part) in [
        ("requests", part(&settings.cpu_request, &settings.memory_request)),
        ("limits", part(&settings.cpu_limit, &settings.memory_limit)),
    ] {
        if !part.is_empty() {
            resources.insert(name.to_owned(), part.into());
        }
    }
    (!resources.is_empty()).then(|| resources.into())
}

/// The volumes that the pod gets.
pub(crate) fn volumes(settings: &InjectionSettings) -> Vec<Value> {
    let mut volumes = Vec::new();
    if let Some((name, key)) = &settings.config_map {
        let items = json!([{"key": key, "path": "attache.yaml"}]);
        volumes.push(json!({"name": CONFIG_VOLUME, "configMap": {"name": name, "items": items}}));
    } else if settings.config.is_some() {
        let field = json!({"fieldPath": "metadata.annotations['attache.dev/config']"});
        let items = json!([{"path": "attache.yaml", "fieldRef": field}]);
        volumes.push(json!({"name": CONFIG_VOLUME, "downwardAPI": {"items": items}}));
    }
    if let Some(secret) = &settings.tls_secret {
        volumes.push(json!({"name": TLS_VOLUME, "secret": {"secretName": secret}}));
    }
    match settings.spiffe_socket.as_deref().and_then(socket) {
        Some((Some(folder), _)) => {
            let source = json!({"path": folder, "type": "Directory"});
            volumes.push(json!({"name": SPIFFE_VOLUME, "hostPath": source}));
        }
        Some((None, _)) => {
            volumes
                .push(json!({"name": SPIFFE_VOLUME, "csi": {"driver": "csi.spiffe.io", "readOnly": true}}));
        }
        None => {}
    }
    if settings.service_account_token {
        // The same volume as the API server's own, without the namespace. The kubelet renews the token before its hour
        // is over.
        let sources = json!([
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        ]);
        volumes.push(json!({"name": TOKEN_VOLUME, "projected": {"sources": sources}}));
    }
    if settings.upgrade {
        // There is room for two programs: the running one and its successor.
        volumes.push(json!({"name": UPGRADE_VOLUME, "emptyDir": {"sizeLimit": "256Mi"}}));
    }
    for volume in &settings.volumes {
        let (source, _) = extra::split(volume);
        // A volume without a source is one of the pod's own volumes.
        if source.as_object().is_some_and(|source| source.len() > 1) {
            volumes.push(source);
        }
    }
    volumes
}
