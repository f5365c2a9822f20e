//! The app's probes where calls to it are intercepted.
//!
//! The kubelet asks from outside of the pod and has no certificate: redirected to attache's inbound port it would be refused. To
//! exclude the probes' ports would leave the app's own port open to everybody, since probes mostly ask that. So a
//! probe is asked of attache instead, at [`APP_PROBES`], which asks the app inside the pod what the kubelet would have asked.
//! What the probe was is handed over in a variable, and timings stay the kubelet's.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::settings::{APP_PROBES, PREFIX, Settings};

const PROBES: [(&str, &str); 3] =
    [("livenessProbe", "liveness"), ("readinessProbe", "readiness"), ("startupProbe", "startup")];

/// Bytes of the name of a gRPC service whose health is asked.
pub const LONGEST_SERVICE: usize = 120;

/// A probe that gets a new question.
pub(crate) struct Rewritten {
    /// `livenessProbe` …
    pub(crate) probe: &'static str,
    /// `httpGet`, `tcpSocket` or `grpc`.
    pub(crate) handler: &'static str,
    /// The new `httpGet`.
    pub(crate) value: Value,
}

/// The probes of a container that are asked over the network; `all` gets what each asked.
///
/// # Errors
/// A named port that the container doesn't have, or a question that attache can't ask.
pub(crate) fn rewrite(
    container: &Value,
    name: &str,
    settings: &Settings,
    all: &mut Map<String, Value>,
) -> Result<Vec<Rewritten>, String> {
    let mut rewritten = Vec::new();
    for (probe, kind) in PROBES {
        let Some(asked) = container.get(probe) else { continue };
        for handler in ["httpGet", "tcpSocket", "grpc"] {
            let Some(Value::Object(question)) = asked.get(handler) else { continue };
            let path = format!("/app-probe/{name}/{kind}");
            let mut question = question.clone();
            let port = port(container, question.get("port")).ok_or_else(|| {
                format!("the {probe} of container `{name}` asks a port that the container doesn't name")
            })?;
            if settings.reached_directly(port) {
                continue;
            }
            let https = question.get("scheme").and_then(Value::as_str) == Some("HTTPS");
            let long =
                question.get("service").and_then(Value::as_str).is_some_and(|s| s.len() > LONGEST_SERVICE);
            let named = question
                .get("host")
                .and_then(Value::as_str)
                .is_some_and(|host| host.parse::<IpAddr>().is_err());
            for (is, what) in
                [(https, "HTTPS"), (long, "a service with a long name"), (named, "a host by its name")]
            {
                if is {
                    return Err(format!(
                        "the {probe} of container `{name}` asks {what}, which attache can't ask in its place: let the kubelet reach port {port} with {PREFIX}exclude-inbound-ports"
                    ));
                }
            }
            question.insert("port".to_owned(), port.into());
            let seconds = asked.get("timeoutSeconds").and_then(Value::as_u64).unwrap_or(1);
            all.insert(path.clone(), json!({handler: question, "timeoutSeconds": seconds}));
            rewritten.push(Rewritten { probe, handler, value: json!({"path": path, "port": APP_PROBES}) });
        }
    }
    Ok(rewritten)
}

/// The number of a port that is given by number or by name.
fn port(container: &Value, port: Option<&Value>) -> Option<u16> {
    match port? {
        Value::Number(number) => number.as_u64().and_then(|number| number.try_into().ok()),
        Value::String(text) => text.parse().ok().or_else(|| {
            let named = |port: &&Value| port.get("name").and_then(Value::as_str) == Some(text);
            let port = container.get("ports")?.as_array()?.iter().find(named)?;
            port.get("containerPort")?.as_u64()?.try_into().ok()
        }),
        _ => None,
    }
}
