//! Traces, as the file would write them.

use serde_json::{Map, Value, json};

use crate::{
    model::{Collector, OtlpSignals, Tracing},
    shown::{HIDDEN, without_query},
    text::{show_duration, show_ratio},
};

pub(super) fn tracing(tracing: &Tracing) -> Value {
    let mut value = collector(&tracing.collector);
    value["sample"] = show_ratio(tracing.sample).into();
    value["propagation"] = json!(tracing.propagation);
    value["queue"] = tracing.queue.into();
    value["interval"] = show_duration(tracing.interval).into();
    value
}

pub(super) fn otlp(signals: &OtlpSignals) -> Value {
    let metrics = signals.metrics.as_ref().map(|metrics| {
        let mut value = collector(&metrics.collector);
        value["interval"] = show_duration(metrics.interval).into();
        value
    });
    let logs = signals.logs.as_ref().map(|logs| {
        let mut value = collector(&logs.collector);
        value["queue"] = logs.queue.into();
        value
    });
    json!({ "metrics": metrics, "logs": logs })
}

fn collector(collector: &Collector) -> Value {
    let scheme = if collector.tls.is_some() { "https" } else { "http" };
    let resource = collector.resource.iter().map(|(key, value)| (key.to_string(), Value::from(&**value)));
    json!({
        "endpoint": format!("{scheme}://{}:{}{}", collector.host, collector.port, without_query(&collector.path)),
        "protocol": collector.protocol,
        "compression": collector.compression,
        "ca": collector.tls.as_ref().map(|tls| &tls.trust),
        // Headers of exports carry keys.
        "headers": collector.headers.iter().map(|(name, _)| (name.to_string(), Value::from(HIDDEN))).collect::<Map<_, _>>(),
        "service": &*collector.service,
        "resource": resource.collect::<Map<_, _>>(),
        "timeout": show_duration(collector.timeout),
    })
}
