//! Imports Envoy's bootstrap, v3 or v2, with the files that it names.

mod applied;
mod authorizers;
mod browsers;
mod by_header;
mod chain;
mod changes;
mod cluster;
mod edits;
mod faults;
mod filters;
mod forward;
mod guards;
mod http;
mod idle;
mod limits;
mod listener;
mod matcher;
mod options;
mod overrides;
mod rbac;
mod replies;
mod resources;
mod route;
mod runtime;
mod scheme;
mod sessions;
mod subsets;
mod tls;
mod tokens;
mod tracing;
mod upstream;
mod used;
mod words;

use crate::plan::{Plan, UniqueNames};
use crate::remark::Impact;
use crate::tree::{Node, Unreadable};
use crate::value::YamlMap;
use crate::{File, tree, unread};

/// State that the parts of an import share.
pub(crate) struct EnvoyImport {
    pub(crate) plan: Plan,
    pub(crate) clusters: Vec<Node>,
    pub(crate) routes: Vec<Node>,
    pub(crate) secrets: Vec<Node>,
    pub(crate) names: UniqueNames,
    /// Names of listeners; a listener and a cluster may have the same name.
    pub(crate) listeners: UniqueNames,
    /// What each cluster is used for, and the upstream that is made of it.
    pub(crate) uses: Vec<(String, cluster::ClusterUse, String)>,
    /// The key of the consistent hash of an upstream, set by its routes.
    pub(crate) hashes: Vec<(String, String)>,
    /// Upstreams with a session cookie.
    pub(crate) sessions: Vec<String>,
    /// The tracer of connection managers that don't name one.
    pub(crate) tracer: Option<Node>,
    /// Clusters that spans are sent to.
    pub(crate) collectors: Vec<String>,
    /// The service's name in traces.
    pub(crate) service: Option<String>,
    pub(crate) folder: std::path::PathBuf,
    /// The documents that were read from files which the config names.
    pub(crate) found: std::cell::RefCell<Vec<Node>>,
    /// `upgrades` of the listener that is read.
    pub(crate) upgrades: Option<crate::value::ConfigValue>,
}

/// Keys of a bootstrap that are read here, or that have no meaning for requests.
const KNOWN: &[&str] = &[
    "static_resources",
    "dynamic_resources",
    "tracing",
    "admin",
    "node",
    "cluster_manager",
    "watchdog",
    "watchdogs",
    "flags_path",
    "use_tcp_for_dns_lookups",
    "bootstrap_extensions",
    "default_regex_engine",
    "header_prefix",
    "node_context_params",
    "inline_headers",
    "memory_allocator_manager",
    "default_config_source",
    "default_socket_interface",
    "perf_tracing_file_path",
    "xds_delegate_extension",
    "xds_config_tracker_extension",
    "enable_dispatcher_stats",
    "stats_flush_interval",
    "stats_server_version_override",
    "typed_dns_resolver_config",
    "dns_resolution_config",
    "stats_config",
    "application_log_config",
    "certificate_provider_instances",
    "deferred_stat_options",
    "grpc_async_client_manager_config",
    "listener_manager",
];

const REMARKS: &[(&str, Impact, &str)] = &[
    (
        "stats_sinks",
        Impact::Soft,
        "statistics are not pushed; Prometheus reads them at `/metrics` on port 15090.",
    ),
    (
        "overload_manager",
        Impact::Soft,
        "attache's own `overload` is on by default, by the container's memory limit; see docs/config.md.",
    ),
    (
        "layered_runtime",
        Impact::Soft,
        "values of the runtime without a `runtime_key` in the config are left out; attache has keys of the config instead.",
    ),
    (
        "runtime",
        Impact::Soft,
        "values of the runtime without a `runtime_key` in the config are left out; attache has keys of the config instead.",
    ),
    (
        "hds_config",
        Impact::Soft,
        "attache has no health discovery: it checks only the health of its own upstreams.",
    ),
    ("rate_limit_service", Impact::Soft, "`global_rate_limit` of a route names its service."),
    ("stats_flush_on_admin", Impact::Note, "attache's metrics are always current."),
];

pub(crate) fn import(files: &[File]) -> Result<Plan, Unreadable> {
    let mut roots = Vec::new();
    for file in files {
        roots.extend(tree::parse(&file.text, &file.path.display().to_string())?);
    }
    let folder = files.first().and_then(|file| file.path.parent()).map(Into::into).unwrap_or_default();
    let all = roots.clone();
    let (mut plan, found) = read(roots, folder)?;
    let causes = plan.causes();
    for root in all.iter().chain(&found) {
        unread::say(root, "the config", idle::KEYS, &causes, &mut plan.remarks);
    }
    Ok(plan)
}

/// Imports parsed documents.
pub(crate) fn trees(roots: Vec<Node>) -> Result<Plan, Unreadable> {
    Ok(read(roots, std::path::PathBuf::new())?.0)
}

/// The plan, and the documents that were read from files which the config names.
fn read(mut roots: Vec<Node>, folder: std::path::PathBuf) -> Result<(Plan, Vec<Node>), Unreadable> {
    let mut cx = EnvoyImport {
        plan: Plan::default(),
        clusters: Vec::new(),
        routes: Vec::new(),
        secrets: Vec::new(),
        names: UniqueNames::default(),
        listeners: UniqueNames::default(),
        uses: Vec::new(),
        hashes: Vec::new(),
        sessions: Vec::new(),
        tracer: None,
        collectors: Vec::new(),
        service: None,
        folder,
        found: std::cell::RefCell::default(),
        upgrades: None,
    };
    for (at, key) in runtime::apply(&mut roots) {
        cx.plan.remarks.point(
            &at,
            format!("`{key}` may get a value from a folder or a control plane of the runtime; the import uses the default of the config."),
        );
    }
    let mut listeners = Vec::new();
    for root in roots {
        bootstrap(&root, &mut listeners, &mut cx)?;
    }
    for listener in &listeners {
        listener::listener(listener, &mut cx);
    }
    cluster::clusters(&mut cx);
    Ok((cx.plan, cx.found.into_inner()))
}

fn bootstrap(root: &Node, listeners: &mut Vec<Node>, cx: &mut EnvoyImport) -> Result<(), Unreadable> {
    if root.entries().is_empty() {
        let what = "this is not a bootstrap: a mapping with `static_resources` is expected".to_owned();
        return Err(Unreadable { at: root.at.clone(), what });
    }
    // A bootstrap within a ConfigMap of Kubernetes.
    if root.str("kind") == Some("ConfigMap") {
        for (_, text) in root.down(&["data"]).entries() {
            for root in tree::parse(text.text().unwrap_or_default(), &text.at.file).unwrap_or_default() {
                if root.get("static_resources").is_some() || root.get("resources").is_some() {
                    bootstrap(&root, listeners, cx)?;
                }
            }
        }
        return Ok(());
    }
    // A file of discovery resources, given to the import next to the bootstrap.
    if root.get("resources").is_some() && root.get("static_resources").is_none() {
        for resource in root.list("resources") {
            match words::last(resource.str("@type").unwrap_or_default()) {
                "Listener" => listeners.push(resource.clone()),
                "Cluster" => cx.clusters.push(resource.clone()),
                "RouteConfiguration" => cx.routes.push(resource.clone()),
                "Secret" => cx.secrets.push(resource.clone()),
                _ => cx.plan.remarks.note(&resource.at, "no part of the config uses this resource."),
            }
        }
        return Ok(());
    }
    let fixed = root.down(&["static_resources"]);
    listeners.extend(fixed.list("listeners").iter().cloned());
    cx.clusters.extend(fixed.list("clusters").iter().cloned());
    cx.secrets.extend(fixed.list("secrets").iter().cloned());
    cx.plan.remarks.rest(fixed, "`static_resources`", &["listeners", "clusters", "secrets"], &[]);
    let dynamic = root.down(&["dynamic_resources"]);
    for (key, what) in [("lds_config", "listeners"), ("cds_config", "clusters")] {
        let Some(source) = dynamic.get(key) else { continue };
        match resources::of(source, cx) {
            Some(found) if key == "lds_config" => listeners.extend(found),
            Some(found) => cx.clusters.extend(found),
            None => cx.plan.remarks.point(
                &source.at,
                format!(
                    "{what} are on a control plane, or in a file that could not be read. Save them from `/config_dump`, and give the file as a further argument of the import."
                ),
            ),
        }
    }
    admin(root, cx);
    if let Some(tracer) = root.down(&["tracing"]).get("http") {
        tracer.skip();
        cx.tracer = Some(tracer.clone());
    }
    if let Some(service) = root.down(&["node"]).str("cluster") {
        cx.service = Some(service.to_owned());
    }
    cx.plan.remarks.rest(root, "the bootstrap", KNOWN, REMARKS);
    Ok(())
}

fn admin(root: &Node, cx: &mut EnvoyImport) {
    let Some(admin) = root.get("admin") else { return };
    let socket = admin.down(&["address", "socket_address"]);
    let (Some(address), Some(port)) = (socket.str("address"), socket.str("port_value")) else { return };
    if matches!(address, "127.0.0.1" | "::1" | "localhost") {
        let host = if address == "::1" { "[::1]" } else { "127.0.0.1" };
        cx.plan.top.set("admin", format!("{host}:{port}"));
    } else {
        cx.plan.top.set("admin", format!("127.0.0.1:{port}"));
        cx.plan.remarks.note(
            &admin.at,
            "the admin API listens on loopback only. Others scrape and probe port 15090 (`/metrics`, `/healthz`, `/readyz`).",
        );
    }
}

/// Sets a duration.
pub(crate) fn duration(map: &mut YamlMap, key: &str, node: Option<&Node>) {
    if let Some(time) = node.and_then(words::seconds) {
        map.set(key, words::duration(time));
    }
}
