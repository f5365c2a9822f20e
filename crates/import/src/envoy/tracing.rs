//! Tracing by Zipkin and OpenTelemetry becomes the config's `tracing`.

use crate::remark::Remarks;
use crate::tree::Node;
use crate::value::{ConfigValue, YamlMap};

use super::{EnvoyImport, words};

const LOST: &str = "tracing is not carried over: `tracing: { otlp: http://COLLECTOR:4318, sample: 1% }` sends spans by OTLP, with W3C or B3 headers.";

/// `tracing` of a connection manager, with its own provider or that of the bootstrap.
pub(super) fn observed(tracing: &Node, remarks: &mut Remarks, cx: &mut EnvoyImport) {
    let provider = match (tracing.get("provider"), &cx.tracer) {
        (Some(own), _) => own.clone(),
        (None, Some(shared)) => shared.clone(),
        (None, None) => {
            tracing.skip();
            remarks.note(&tracing.at, "the original has no tracer, so it traced nothing.");
            return;
        }
    };
    let Some(mut map) = sent(&provider, cx) else {
        tracing.skip();
        remarks.soft(&tracing.at, LOST);
        return;
    };
    let share = |key: &str| tracing.get(key).and_then(words::share).unwrap_or(1.0);
    map.set("sample", words::percent(share("random_sampling").min(share("overall_sampling"))));
    if let Some(tags) = tracing.get("custom_tags") {
        tags.skip();
        remarks.soft(&tags.at, "spans have attache's own tags: `custom_tags` are left out.");
    }
    match cx.plan.top.get("tracing") {
        None => {
            remarks.note(&tracing.at, "spans have the names and attributes of OpenTelemetry's conventions.");
            cx.plan.top.set("tracing", map);
        }
        Some(ConfigValue::Map(known)) if *known == map => {}
        Some(_) => {
            remarks.soft(&tracing.at, "a config has one `tracing`: that of an earlier listener is used.");
        }
    }
}

/// Where spans go.
fn sent(provider: &Node, cx: &mut EnvoyImport) -> Option<YamlMap> {
    let config = words::config(provider);
    let mut map = YamlMap::default();
    let service = cx.service.clone();
    match words::extension(provider).as_str() {
        "zipkin" | "zipkin_config" => {
            let version = config.str("collector_endpoint_version").unwrap_or("HTTP_JSON");
            if !version.starts_with("HTTP_JSON") {
                return None;
            }
            let http = config.down(&["collector_service", "http_uri"]);
            let cluster = config.str("collector_cluster").or_else(|| http.str("cluster"))?;
            let path = config.str("collector_endpoint").unwrap_or("/api/v2/spans");
            map.set("zipkin", format!("{}{path}", address(cluster, cx)?));
            map.put("service", service);
            let both = config.str("trace_context_option").is_some_and(|word| word.contains("W3C"));
            let mut headers = vec!["b3multi".to_owned()];
            headers.extend(both.then(|| "tracecontext".to_owned()));
            map.set("propagation", headers);
        }
        "opentelemetry" | "open_telemetry_config" => {
            if let Some(grpc) = config.down(&["grpc_service", "envoy_grpc"]).str("cluster_name") {
                map.set("otlp", address(grpc, cx)?);
                map.set("protocol", "grpc");
            } else {
                let uri = config.down(&["http_service", "http_uri"]);
                let path = uri.str("uri")?;
                let path = path.split_once("://").map_or(path, |(_, rest)| rest);
                let path = path.find('/').map_or("", |index| &path[index..]);
                map.set(
                    "otlp",
                    format!("{}{}", address(uri.str("cluster")?, cx)?, path.trim_end_matches('/')),
                );
                map.set("protocol", "http/protobuf");
            }
            map.put("service", config.str("service_name").map(ToOwned::to_owned).or(service));
        }
        _ => return None,
    }
    Some(map)
}

/// The first address of a cluster. `None` if the cluster uses TLS: the import does not carry over how the collector's
/// certificate is verified.
fn address(cluster: &str, cx: &mut EnvoyImport) -> Option<String> {
    let node = cx.clusters.iter().find(|node| node.str("name") == Some(cluster))?;
    if node.get("transport_socket").is_some() || node.get("tls_context").is_some() {
        return None;
    }
    let endpoints = node.down(&["load_assignment"]).list("endpoints").iter();
    let first = endpoints.flat_map(|locality| locality.list("lb_endpoints")).next();
    let socket = match first {
        Some(endpoint) => endpoint.down(&["endpoint", "address", "socket_address"]),
        None => node.list("hosts").first()?.down(&["socket_address"]),
    };
    let (host, port) = (socket.str("address")?, socket.str("port_value")?);
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let url = format!("http://{host}:{port}");
    cx.collectors.push(cluster.to_owned());
    Some(url)
}
