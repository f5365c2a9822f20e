//! Whether a pod can have attache: clashes, and settings that would make the pod invalid or let calls bypass attache.

use std::collections::HashSet;

use serde_json::Value;

use super::{
    containers, mesh,
    names::{INTERCEPT, NAME, OWN_VOLUMES},
    settings::{
        APP_PROBES, ContainerMode, INBOUND, InjectionSettings, OUTBOUND, PREFIX, PROBES, TrafficMode,
        listener_at, parsed,
    },
};
use crate::object::{ObjectKind, items, text, whole};

/// `claims` are the names of the object's volume claim templates. They become volumes of its pods, and replace volumes
/// of the same name.
///
/// # Errors
/// Why the pod can't have attache.
pub(super) fn possible(
    kind: &ObjectKind,
    template: &Value,
    claims: &[&str],
    settings: &InjectionSettings,
    warnings: &mut Vec<String>,
) -> Result<(), String> {
    let Some(spec) = template.get("spec").filter(|spec| spec.is_object()) else {
        return Err("its pod has no spec".to_owned());
    };
    if items(spec, "containers").next().is_none() {
        return Err("its pod has no containers".to_owned());
    }
    if runs_on_windows(spec) {
        return Err("its pod runs on Windows".to_owned());
    }
    check_meshes(template, settings, warnings)?;
    check_network(spec, settings, warnings)?;
    check_end(kind, spec, settings, warnings)?;
    check_containers(spec, settings)?;
    warn_of_groups(spec, settings, warnings);
    check_volumes(spec, claims, settings)?;
    check_config(settings, warnings)
}

/// # Errors
/// The pod has the node's network, and its connections are to be redirected.
fn check_network(
    spec: &Value,
    settings: &InjectionSettings,
    warnings: &mut Vec<String>,
) -> Result<(), String> {
    if spec.get("hostNetwork").and_then(Value::as_bool) == Some(true) {
        if settings.traffic == TrafficMode::Transparent {
            return Err("it has hostNetwork: redirection would take the whole node's connections".to_owned());
        }
        warnings.push(format!(
            "it has hostNetwork: ports {OUTBOUND}, {INBOUND} and {PROBES} are taken on the node, so that one such pod fits on each"
        ));
    }
    Ok(())
}

/// # Errors
/// The pod ends by itself, and attache would keep it running.
fn check_end(
    kind: &ObjectKind,
    spec: &Value,
    settings: &InjectionSettings,
    warnings: &mut Vec<String>,
) -> Result<(), String> {
    let ends = matches!(kind.kind.as_str(), "Job" | "CronJob" | "JobSet" | "ScaledJob")
        || matches!(text(spec, "restartPolicy"), Some("Never" | "OnFailure"));
    if settings.mode == ContainerMode::Container && ends {
        return Err(
            "its pod ends when its containers have, and attache as a plain container would go on: a pod that ends needs mode native (Kubernetes 1.29)"
                .to_owned(),
        );
    }
    let grace = spec.get("terminationGracePeriodSeconds").and_then(whole).unwrap_or(30);
    if settings.mode == ContainerMode::Container && u64::from(settings.pre_stop) >= grace {
        warnings.push(format!(
            "its terminationGracePeriodSeconds {grace} is over before attache's preStop hook of {} s: calls that run then are cut. Raise it, or say {PREFIX}pre-stop",
            settings.pre_stop
        ));
    }
    Ok(())
}

/// # Errors
/// A container has no name, attache's name, one of attache's ports, or attache's user.
fn check_containers(spec: &Value, settings: &InjectionSettings) -> Result<(), String> {
    let own_ports: &[u16] = if settings.intercepts_inbound() {
        &[OUTBOUND, INBOUND, PROBES, APP_PROBES]
    } else {
        &[OUTBOUND, INBOUND, PROBES]
    };
    let mut names = HashSet::new();
    for kind in ["initContainers", "containers", "ephemeralContainers"] {
        for (index, container) in items(spec, kind).enumerate() {
            let name = text(container, "name")
                .ok_or_else(|| format!("the container {index} of its {kind} has no name"))?;
            // The record identifies containers by name, so two containers of one name could be mixed up.
            if !names.insert(name) {
                return Err(format!("two of its containers are called `{name}`, which Kubernetes refuses"));
            }
            if name == NAME || name == INTERCEPT {
                return Err(format!("it has a container `{name}` that attache didn't put there"));
            }
            for port in items(container, "ports") {
                let number = port.get("containerPort").and_then(whole);
                let tcp = text(port, "protocol").is_none_or(|protocol| protocol == "TCP");
                if let Some(clash) = own_ports.iter().find(|own| tcp && number == Some(u64::from(**own))) {
                    return Err(format!("its container `{name}` has port {clash}, which is attache's"));
                }
            }
            check_user(spec, container, name, settings)?;
        }
    }
    Ok(())
}

/// Warns where a group of the pod is attache's: its programs may change to that group.
fn warn_of_groups(spec: &Value, settings: &InjectionSettings, warnings: &mut Vec<String>) {
    for groups in ["fsGroup", "supplementalGroups"] {
        let own = spec.pointer(&format!("/securityContext/{groups}"));
        let is_ours = |group: &Value| whole(group) == Some(settings.uid.into());
        let has =
            own.is_some_and(|own| is_ours(own) || own.as_array().is_some_and(|all| all.iter().any(is_ours)));
        if settings.traffic == TrafficMode::Transparent && has {
            warnings.push(format!(
                "its {groups} has attache's group {0}: a program of it that changes to that group isn't redirected. Give attache another with {PREFIX}uid",
                settings.uid
            ));
        }
    }
}

/// # Errors
/// The pod has a volume of attache's name, or lacks one that attache is to mount.
fn check_volumes(spec: &Value, claims: &[&str], settings: &InjectionSettings) -> Result<(), String> {
    let ours = containers::volumes(settings);
    let own_volumes = items(spec, "volumes").filter_map(|volume| text(volume, "name"));
    let own_volumes: Vec<&str> = own_volumes.chain(claims.iter().copied()).collect();
    for name in &own_volumes {
        let name = *name;
        if OWN_VOLUMES.contains(&name) || ours.iter().any(|own| text(own, "name") == Some(name)) {
            return Err(format!("it has a volume `{name}` that attache didn't put there"));
        }
    }
    for volume in &settings.volumes {
        let name = text(volume, "name").unwrap_or_default();
        if !own_volumes.contains(&name) && !ours.iter().any(|own| text(own, "name") == Some(name)) {
            return Err(format!(
                "{PREFIX}volumes mounts `{name}` without a source, and the pod has no such volume"
            ));
        }
    }
    Ok(())
}

/// In transparent mode, connections of attache's user or group aren't redirected. A container's own user and group take
/// precedence over the pod's.
fn check_user(
    spec: &Value,
    container: &Value,
    name: &str,
    settings: &InjectionSettings,
) -> Result<(), String> {
    if settings.traffic != TrafficMode::Transparent {
        return Ok(());
    }
    for (key, what) in [("runAsUser", "user"), ("runAsGroup", "group")] {
        let path = format!("/securityContext/{key}");
        let own = container.pointer(&path).filter(|own| !own.is_null()).or_else(|| spec.pointer(&path));
        if own.and_then(whole) == Some(settings.uid.into()) {
            return Err(format!(
                "its container `{name}` runs as {what} {0}, as attache does: its connections wouldn't be redirected. Give attache another with {PREFIX}uid",
                settings.uid
            ));
        }
    }
    Ok(())
}

/// True if the pod is for Windows, by its system or by its node selectors.
fn runs_on_windows(spec: &Value) -> bool {
    const LABELS: [&str; 2] = ["kubernetes.io/os", "beta.kubernetes.io/os"];
    let is_windows = |value: Option<&Value>| value.and_then(Value::as_str) == Some("windows");
    let selected = |key: &str| spec.get("nodeSelector").and_then(|selector| selector.get(key));
    if is_windows(spec.pointer("/os/name")) || LABELS.iter().any(|key| is_windows(selected(key))) {
        return true;
    }
    let affinity = "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let terms: Vec<&Value> = spec.pointer(affinity).and_then(Value::as_array).into_iter().flatten().collect();
    // For the scheduler one term of several is enough, so all terms must require Windows.
    let says = |term: &&Value| {
        items(term, "matchExpressions").any(|rule| {
            let values: Vec<&str> = items(rule, "values").filter_map(Value::as_str).collect();
            text(rule, "key").is_some_and(|key| LABELS.contains(&key))
                && match text(rule, "operator") {
                    Some("In") => values == ["windows"],
                    Some("NotIn") => values.contains(&"linux"),
                    _ => false,
                }
        })
    };
    !terms.is_empty() && terms.iter().all(says)
}

/// # Errors Another mesh's sidecar is in the pod or will be, and the two can't work together.
fn check_meshes(
    template: &Value,
    settings: &InjectionSettings,
    warnings: &mut Vec<String>,
) -> Result<(), String> {
    let Some((mesh, sign)) = mesh::found(template) else { return Ok(()) };
    let name = mesh.name;
    if settings.traffic == TrafficMode::Transparent {
        return Err(format!(
            "{name} is in its pod ({sign}): two that redirect a pod's connections send them in circles. Keep one out"
        ));
    }
    if mesh.has_our_ports {
        return Err(format!(
            "{name} is in its pod ({sign}), and listens on ports that are attache's. Keep one out"
        ));
    }
    warnings.push(format!("{name} is in its pod ({sign}): attache's calls pass through its proxy, too"));
    Ok(())
}

fn check_config(settings: &InjectionSettings, warnings: &mut Vec<String>) -> Result<(), String> {
    let Some(config) = &settings.config else {
        if settings.traffic == TrafficMode::Transparent && settings.config_map.is_none() {
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
    if settings.traffic == TrafficMode::Transparent {
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
