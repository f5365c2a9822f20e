//! Runs the original config in an Envoy next to the import: on loopback, with stubs, and without TLS.

use std::path::Path;
use std::process::Command;

use crate::tree::{self, Node, NodeKind};
use crate::{File, envoy};

use super::{BothSides, Programs, stub::Stubs};

pub(crate) fn prepare(
    files: &[File],
    programs: &Programs,
    folder: &Path,
    stubs: &Stubs,
) -> Result<BothSides, String> {
    let mut left_out = Vec::new();
    let mut roots = Vec::new();
    for file in files {
        roots.extend(
            tree::parse(&file.text, &file.path.display().to_string()).map_err(|error| error.to_string())?,
        );
    }
    let [root] = roots.as_mut_slice() else {
        return Err("a comparison takes one bootstrap".to_owned());
    };
    clusters(root, stubs)?;
    listeners(root, &mut left_out);
    for key in [
        "stats_sinks",
        "admin",
        "tracing",
        "hds_config",
        "layered_runtime",
        "overload_manager",
        "node",
        "stats_config",
        "static_layer",
    ] {
        root.remove(key);
    }
    root.walk(&mut |node| {
        for key in ["tracing", "access_log", "upstream_log"] {
            if node.get(key).is_some_and(|value| !matches!(value.kind, NodeKind::Scalar(_))) {
                node.remove(key);
            }
        }
    });
    let mut theirs = root.clone();
    let mut ports = Vec::new();
    rebind(root, &mut ports)?;
    let mut original = Vec::new();
    rebind(&mut theirs, &mut original)?;
    let path = folder.join("envoy.json");
    super::write(&path, &tree::json(&theirs))?;
    let own = File {
        path: files.first().map(|file| file.path.clone()).unwrap_or_default(),
        text: tree::json(root),
    };
    let plan = envoy::import(&[own]).map_err(|error| error.to_string())?;
    let mut command = Command::new(&programs.original);
    command
        .args(["--disable-hot-restart", "--concurrency", "1", "--base-id-path"])
        .arg(folder.join("base-id"))
        .args(["-l", "warning", "-c"])
        .arg(&path);
    let bound: Vec<u16> =
        plan.listeners.iter().filter_map(|listener| super::bound(listener.keys.get("bind"))).collect();
    let ports = ports.into_iter().zip(original).filter(|(own, _)| bound.contains(own)).collect();
    Ok(BothSides { plan, ports, original: command, left_out })
}

fn value(at: &Node, entries: Vec<(&str, Node)>) -> Node {
    at.map(entries)
}

fn list(at: &Node, items: Vec<Node>) -> Node {
    at.seq(items)
}

fn socket(at: &Node, port: u16) -> Node {
    let inner =
        value(at, vec![("address", at.scalar("127.0.0.1")), ("port_value", at.scalar(&port.to_string()))]);
    value(at, vec![("socket_address", inner)])
}

/// Clusters that are called by gRPC only: authorization services, and clusters behind gRPC-Web.
fn grpc(root: &mut Node) -> Vec<String> {
    let (mut services, mut targets, mut web) = (Vec::new(), Vec::new(), false);
    root.walk(&mut |node| {
        services
            .extend(node.down(&["grpc_service", "envoy_grpc"]).str("cluster_name").map(ToOwned::to_owned));
        targets.extend(node.down(&["route"]).str("cluster").map(ToOwned::to_owned));
        web |= node.str("name").is_some_and(|name| name.ends_with("grpc_web"));
    });
    if web {
        services.append(&mut targets);
    }
    services
}

fn clusters(root: &mut Node, stubs: &Stubs) -> Result<(), String> {
    let grpc = grpc(root);
    let Some(all) = root.get_mut("static_resources").and_then(|fixed| fixed.get_mut("clusters")) else {
        return Ok(());
    };
    let NodeKind::List(all) = &mut all.kind else { return Ok(()) };
    for cluster in all {
        let name = cluster.str("name").unwrap_or_default().to_owned();
        let grpc = grpc.contains(&name);
        let port = stubs.port(&crate::plan::name(&name))?;
        for key in [
            "hosts",
            "transport_socket",
            "tls_context",
            "http2_protocol_options",
            "typed_extension_protocol_options",
            "health_checks",
            "cluster_type",
            "eds_cluster_config",
            "transport_socket_matches",
            "upstream_bind_config",
            "dns_resolvers",
            "typed_dns_resolver_config",
            "dns_resolution_config",
            "original_dst_lb_config",
            "upstream_connection_options",
            "outlier_detection",
            "http_protocol_options",
            "load_balancing_policy",
            "circuit_breakers",
        ] {
            // The stub speaks HTTP/2 only for gRPC.
            if !grpc || !["http2_protocol_options", "typed_extension_protocol_options"].contains(&key) {
                cluster.remove(key);
            }
        }
        if cluster
            .str("lb_policy")
            .is_some_and(|policy| policy.contains("PROVIDED") || policy.contains("ORIGINAL"))
        {
            cluster.remove("lb_policy");
        }
        let at = cluster.clone();
        cluster.set("type", at.scalar("STATIC"));
        if cluster.get("lb_subset_config").is_some() {
            endpoints_of_subsets(cluster, &name, stubs)?;
            continue;
        }
        let endpoint = value(&at, vec![("endpoint", value(&at, vec![("address", socket(&at, port))]))]);
        let endpoints = list(&at, vec![value(&at, vec![("lb_endpoints", list(&at, vec![endpoint]))])]);
        cluster.set(
            "load_assignment",
            value(&at, vec![("cluster_name", at.scalar(&name)), ("endpoints", endpoints)]),
        );
    }
    Ok(())
}

/// One stub for each set of labels, so that the answer shows which endpoint was chosen.
fn endpoints_of_subsets(cluster: &mut Node, name: &str, stubs: &Stubs) -> Result<(), String> {
    let localities = cluster.get_mut("load_assignment").and_then(|all| all.get_mut("endpoints"));
    let Some(NodeKind::List(localities)) = localities.map(|list| &mut list.kind) else { return Ok(()) };
    for locality in localities {
        let Some(NodeKind::List(endpoints)) = locality.get_mut("lb_endpoints").map(|list| &mut list.kind)
        else {
            continue;
        };
        for endpoint in endpoints {
            let labels = endpoint.down(&["metadata", "filter_metadata", "envoy.lb"]).entries();
            let mut own: Vec<String> = labels
                .iter()
                .map(|(key, value)| format!("{key}-{}", value.text().unwrap_or_default()))
                .collect();
            own.sort();
            let port = stubs.port(&crate::plan::name(&format!("{name}-{}", own.join("-"))))?;
            let address = value(endpoint, vec![("address", socket(endpoint, port))]);
            endpoint.set("endpoint", address);
        }
    }
    Ok(())
}

fn listeners(root: &mut Node, left_out: &mut Vec<String>) {
    let Some(all) = root.get_mut("static_resources").and_then(|fixed| fixed.get_mut("listeners")) else {
        return;
    };
    let NodeKind::List(all) = &mut all.kind else { return };
    all.retain_mut(|listener| {
        let name = listener.str("name").unwrap_or("without a name").to_owned();
        let udp = listener.down(&["address", "socket_address"]).str("protocol") == Some("UDP");
        let chains = listener.list("filter_chains").len();
        let unusual = ["use_original_dst", "bind_to_port", "internal_listener", "api_listener"]
            .iter()
            .any(|key| listener.get(key).is_some());
        if udp || chains != 1 || unusual || listener.get("default_filter_chain").is_some() {
            left_out.push(format!("listener {name}: it needs UDP, TLS or redirected connections"));
            return false;
        }
        for key in [
            "listener_filters",
            "additional_addresses",
            "use_proxy_proto",
            "socket_options",
            "enable_reuse_port",
        ] {
            listener.remove(key);
        }
        if let Some(NodeKind::List(chains)) = listener.get_mut("filter_chains").map(|chains| &mut chains.kind)
        {
            for chain in chains {
                if chain.get("transport_socket").is_some() || chain.get("tls_context").is_some() {
                    left_out.push(format!("listener {name}: without its TLS"));
                }
                for key in ["transport_socket", "tls_context", "filter_chain_match", "use_proxy_proto"] {
                    chain.remove(key);
                }
            }
        }
        true
    });
}

fn rebind(root: &mut Node, ports: &mut Vec<u16>) -> Result<(), String> {
    let Some(all) = root.get_mut("static_resources").and_then(|fixed| fixed.get_mut("listeners")) else {
        return Ok(());
    };
    let NodeKind::List(all) = &mut all.kind else { return Ok(()) };
    for listener in all {
        let port = super::port()?;
        let address = socket(listener, port);
        listener.set("address", address);
        ports.push(port);
    }
    Ok(())
}
