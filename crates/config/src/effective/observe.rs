//! Traces, as the file would write them.

use serde_json::{Map, Value, json};

use crate::{
    model::Tracing,
    shown::{HIDDEN, without_query},
    text::{show_duration, show_ratio},
};

pub(super) fn tracing(tracing: &Tracing) -> Value {
    let scheme = if tracing.tls.is_some() { "https" } else { "http" };
    let resource = tracing.resource.iter().map(|(key, value)| (key.to_string(), Value::from(&**value)));
    json!({
        "endpoint": format!("{scheme}://{}:{}{}", tracing.host, tracing.port, without_query(&tracing.path)),
        "protocol": tracing.protocol,
        "ca": tracing.tls.as_ref().map(|tls| &tls.trust),
        // Headers of exports carry keys.
        "headers": tracing.headers.iter().map(|(name, _)| (name.to_string(), Value::from(HIDDEN))).collect::<Map<_, _>>(),
        "sample": show_ratio(tracing.sample),
        "service": &*tracing.service,
        "resource": resource.collect::<Map<_, _>>(),
        "propagation": tracing.propagation,
        "timeout": show_duration(tracing.timeout),
        "queue": tracing.queue,
        "interval": show_duration(tracing.interval),
    })
}
