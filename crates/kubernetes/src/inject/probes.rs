//! The app's probes and hooks, if calls to the app are intercepted.
//!
//! The kubelet calls from outside of the pod and has no certificate: redirected to attache's inbound port it would be
//! refused. Excluding the probes' ports from interception would open the app's own port to everybody, since most probes
//! use that port. So the kubelet probes attache instead, at [`APP_PROBES`], and attache sends the original probe to the
//! app inside the pod. A lifecycle hook that is an HTTP call is changed in the same way. A variable of attache's
//! container has the original probes; the kubelet's timings stay unchanged.
//!
//! A probe with a `host` isn't for the pod: the kubelet sends it from the node to that host, without attache, and this
//! stays so.

use serde_json::{Map, Value, json};

use super::settings::{APP_PROBES, InjectionSettings};
use crate::object::whole;

const PROBES: [(&str, &str); 3] =
    [("livenessProbe", "liveness"), ("readinessProbe", "readiness"), ("startupProbe", "startup")];
const HOOKS: [&str; 2] = ["postStart", "preStop"];

/// A probe or hook that is replaced.
pub(crate) struct RewrittenProbe {
    /// Its path in the container: `livenessProbe`, or `lifecycle` and `preStop`.
    pub(crate) place: Vec<&'static str>,
    /// `httpGet`, `tcpSocket` or `grpc`.
    pub(crate) handler: &'static str,
    /// The original handler.
    pub(crate) asked: Value,
    /// The new `httpGet`.
    pub(crate) value: Value,
}

/// The probes and hooks of a container that use the network. Their original handlers are added to `all`.
///
/// # Errors
/// A named port that the container doesn't have.
pub(crate) fn rewrite(
    container: &Value,
    name: &str,
    settings: &InjectionSettings,
    all: &mut Map<String, Value>,
    warnings: &mut Vec<String>,
) -> Result<Vec<RewrittenProbe>, String> {
    let mut rewritten = Vec::new();
    let probes = PROBES.iter().flat_map(|(probe, kind)| {
        ["httpGet", "tcpSocket", "grpc"]
            .map(|handler| (vec![*probe], handler, format!("/app-probe/{name}/{kind}")))
    });
    let hooks =
        HOOKS.iter().map(|hook| (vec!["lifecycle", hook], "httpGet", format!("/app-hook/{name}/{hook}")));
    for (place, handler, path) in probes.chain(hooks) {
        let Some(asked) = container.pointer(&format!("/{}", place.join("/"))) else { continue };
        let Some(Value::Object(question)) = asked.get(handler) else { continue };
        let what = place.last().copied().unwrap_or_default();
        if let Some(host) = question.get("host").and_then(Value::as_str).filter(|host| !host.is_empty()) {
            warnings.push(format!(
                "the {what} of container `{name}` asks the host `{host}` from the node, and is left as it is"
            ));
            continue;
        }
        let mut question = question.clone();
        let port = port(container, question.get("port")).ok_or_else(|| {
            format!("the {what} of container `{name}` asks a port that the container doesn't name")
        })?;
        if settings.reached_directly(port) {
            continue;
        }
        let asked_before = Value::Object(question.clone());
        question.insert("port".to_owned(), port.into());
        let is_hook = place.len() > 1;
        let entry = if is_hook {
            json!({"hook": question})
        } else {
            let seconds = asked.get("timeoutSeconds").and_then(whole).unwrap_or(1);
            json!({handler: question, "timeoutSeconds": seconds})
        };
        all.insert(path.clone(), entry);
        let value = json!({"path": path, "port": APP_PROBES});
        rewritten.push(RewrittenProbe { place, handler, asked: asked_before, value });
    }
    Ok(rewritten)
}

/// The number of a port that is given by number or by name.
fn port(container: &Value, port: Option<&Value>) -> Option<u16> {
    match port? {
        number @ Value::Number(_) => whole(number).and_then(|number| number.try_into().ok()),
        Value::String(text) => text.parse().ok().or_else(|| {
            let named = |port: &&Value| port.get("name").and_then(Value::as_str) == Some(text);
            let port = container.get("ports")?.as_array()?.iter().find(named)?;
            whole(port.get("containerPort")?)?.try_into().ok()
        }),
        _ => None,
    }
}
