//! Istio and the Gateway API: the objects of a cluster become the config of one workload's sidecar.
//!
//! It reads files of manifests, or the output of `kubectl get -o yaml`. The workload is the Deployment, StatefulSet,
//! DaemonSet, Job or Pod among the objects: its namespace and labels select the objects that apply to it. Objects about
//! traffic become routes and clusters of Envoy, as Istio makes them for its own proxies, and [`crate::envoy`] imports
//! these. Objects about access become `authorization` directly.

mod balance;
mod destination_rule;
mod duration;
mod gateway;
mod hosts;
mod idle;
mod issuer;
mod policy;
mod security;
mod services;
mod virtual_service;

use crate::plan::{Plan, PlannedRule, PlannedUpstream, VirtualHost};
use crate::remark::Remarks;
use crate::tree::{FileLine, Node, Unreadable};
use crate::value::YamlMap;
use crate::{File, envoy, tree};

/// The namespace whose policies apply to all namespaces.
const ROOT: &str = "istio-system";
/// The upstream of calls to unknown services.
const ANYWHERE: &str = "anywhere";

/// An object.
#[derive(Clone, Debug)]
pub(crate) struct ManifestObject {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) node: Node,
}

impl ManifestObject {
    pub(crate) fn spec(&self) -> &Node {
        self.node.down(&["spec"])
    }

    pub(crate) fn at(&self) -> &FileLine {
        &self.node.at
    }
}

/// The workload that gets the sidecar.
#[derive(Clone, Debug, Default)]
pub(crate) struct SelectedWorkload {
    pub(crate) namespace: String,
    /// Its labels. `None` if no workload is among the objects.
    pub(crate) labels: Option<Vec<(String, String)>>,
}

/// All objects of the import.
pub(crate) struct MeshObjects {
    pub(crate) objects: Vec<ManifestObject>,
    pub(crate) workload: SelectedWorkload,
}

impl MeshObjects {
    pub(crate) fn all<'m>(&'m self, kind: &'m str) -> impl Iterator<Item = &'m ManifestObject> + 'm {
        self.objects.iter().filter(move |object| object.kind == kind)
    }

    /// Whether a selector matches the workload. `None` if the workload's labels are not known.
    pub(crate) fn selects(&self, selector: &Node) -> Option<bool> {
        let wanted = labels(if selector.get("match_labels").is_some() {
            selector.down(&["match_labels"])
        } else {
            selector
        });
        // The import knows only conditions on labels.
        let known = |(key, value): &(String, Node)| {
            value.is_empty() || value.text().is_some() || crate::tree::snake(key) == "match_labels"
        };
        if !selector.entries().iter().all(known) {
            return None;
        }
        if wanted.is_empty() {
            return Some(true);
        }
        let own = self.workload.labels.as_ref()?;
        Some(wanted.iter().all(|label| own.contains(label)))
    }
}

pub(crate) fn labels(node: &Node) -> Vec<(String, String)> {
    node.entries().iter().filter_map(|(key, value)| Some((key.clone(), value.text()?.to_owned()))).collect()
}

pub(crate) fn import(files: &[File]) -> Result<Plan, Unreadable> {
    let mut objects = Vec::new();
    for file in files {
        for root in tree::parse(&file.text, &file.path.display().to_string())? {
            read(&root, &mut objects);
        }
    }
    if objects.is_empty() {
        let at = FileLine {
            file: files.first().map(|file| file.path.display().to_string()).unwrap_or_default().into(),
            line: 0,
        };
        return Err(Unreadable {
            at,
            what:
                "there is no object of Kubernetes in it: a mapping with `apiVersion` and `kind` is expected"
                    .to_owned(),
        });
    }
    let mut remarks = Remarks::default();
    let workload = workload(&objects, &mut remarks);
    let mesh = MeshObjects { objects, workload };
    let mut plan = outbound(&mesh, &mut remarks)?;
    let inbound = security::inbound(&mesh, &mut plan);
    plan.listeners.push(inbound);
    plan.upstreams.push(original(security::APP));
    let mut unknown = Vec::new();
    for object in mesh.objects.iter().filter(|object| !KNOWN.contains(&object.kind.as_str())) {
        let kind = &object.kind;
        remarks.unknown(object.at(), format_args!("the object `{kind}`"));
        if may_guard(object) && !unknown.contains(kind) {
            unknown.push(kind.clone());
        }
    }
    for (kind, why) in [
        (
            "EnvoyFilter",
            "an EnvoyFilter changes the proxy's own config: the import refuses everything that it may protect. Find out what it does.",
        ),
        (
            "WasmPlugin",
            "a Wasm module runs in the original proxy: the import refuses everything that it may protect. Find out what it does.",
        ),
    ]
    .into_iter()
    .chain(unknown.iter().map(|kind| (kind.as_str(), "this import doesn't know this object, which may refuse requests: it refuses everything that the object may protect. Find out what it does.")))
    {
        for object in mesh.all(kind) {
            if object.namespace != mesh.workload.namespace && object.namespace != ROOT {
                continue;
            }
            if mesh.selects(object.spec().down(&["workload_selector"])) == Some(false)
                || mesh.selects(object.spec().down(&["selector"])) == Some(false)
            {
                continue;
            }
            for listener in &mut plan.listeners {
                for rule in listener
                    .chains
                    .iter_mut()
                    .flat_map(|chain| &mut chain.sites)
                    .flat_map(|site| &mut site.rules)
                {
                    rule.refuse(object.at(), why);
                }
                listener.chains.retain(|chain| chain.opaque.is_none());
            }
        }
    }
    remarks.0.extend(std::mem::take(&mut plan.remarks).0);
    plan.remarks = remarks;
    unread(&mesh, &mut plan);
    Ok(plan)
}

/// Fields that only select what an object applies to. If nothing else of an object was read, it doesn't apply to this
/// workload.
const ABOUT: &[&str] = &[
    "export_to",
    "gateways",
    "host",
    "hosts",
    "parent_refs",
    "selector",
    "target_ref",
    "target_refs",
    "workload_selector",
];

/// Reports the fields that were not read of the objects that apply to this workload.
fn unread(mesh: &MeshObjects, plan: &mut Plan) {
    const KINDS: &[&str] = &[
        "AuthorizationPolicy",
        "DestinationRule",
        "GRPCRoute",
        "HTTPRoute",
        "PeerAuthentication",
        "RequestAuthentication",
        "ServiceEntry",
        "Sidecar",
        "VirtualService",
    ];
    let causes = plan.causes();
    for object in mesh.objects.iter().filter(|object| KINDS.contains(&object.kind.as_str())) {
        let applies =
            object.spec().entries().iter().any(|(key, value)| {
                !ABOUT.contains(&tree::snake(key).as_str()) && crate::unread::is_read(value)
            });
        if applies {
            let what = format!("the {} `{}`", object.kind, object.name);
            crate::unread::say(object.spec(), &what, idle::KEYS, &causes, &mut plan.remarks);
        }
    }
}

/// Whether an object of the mesh is of an unknown kind, so that it may decide who passes.
fn may_guard(object: &ManifestObject) -> bool {
    let version = object.node.str("api_version").unwrap_or_default();
    let group = version.split('/').next().unwrap_or_default();
    let of_gateways = [
        "BackendTLSPolicy",
        "BackendTrafficPolicy",
        "ClientTrafficPolicy",
        "EnvoyPatchPolicy",
        "EnvoyExtensionPolicy",
    ];
    group.ends_with("istio.io")
        && ["security.", "extensions.", "networking."].iter().any(|start| group.starts_with(start))
        || (object.kind.ends_with("Policy")
            && group.contains("gateway")
            && !of_gateways.contains(&object.kind.as_str()))
}

/// Kinds that are read, or that have no effect on requests.
const KNOWN: &[&str] = &[
    "VirtualService",
    "DestinationRule",
    "ServiceEntry",
    "Sidecar",
    "PeerAuthentication",
    "RequestAuthentication",
    "AuthorizationPolicy",
    "HTTPRoute",
    "GRPCRoute",
    "Service",
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "CronJob",
    "Pod",
    "ReplicaSet",
    "ServiceAccount",
    "ConfigMap",
    "Secret",
    "Namespace",
    "Gateway",
    "GatewayClass",
    "Ingress",
    "HorizontalPodAutoscaler",
    "PodDisruptionBudget",
    "Role",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
    "EnvoyFilter",
    "WasmPlugin",
    "Telemetry",
    "ProxyConfig",
    "WorkloadEntry",
    "WorkloadGroup",
    "ReferenceGrant",
    "NetworkPolicy",
    "Endpoints",
    "EndpointSlice",
    "PersistentVolumeClaim",
];

fn read(root: &Node, objects: &mut Vec<ManifestObject>) {
    if root.str("kind").is_some_and(|kind| kind.ends_with("List")) {
        root.list("items").iter().for_each(|item| read(item, objects));
        return;
    }
    let Some(kind) = root.str("kind").filter(|_| root.get("api_version").is_some()) else { return };
    let metadata = root.down(&["metadata"]);
    objects.push(ManifestObject {
        kind: kind.to_owned(),
        name: metadata.str("name").unwrap_or_default().to_owned(),
        namespace: metadata.str("namespace").unwrap_or("default").to_owned(),
        labels: labels(metadata.down(&["labels"])),
        node: root.clone(),
    });
}

/// The workload among the objects, or at least its namespace.
fn workload(objects: &[ManifestObject], remarks: &mut Remarks) -> SelectedWorkload {
    let kinds = ["Pod", "Deployment", "StatefulSet", "DaemonSet", "Job", "ReplicaSet"];
    let mut found = objects.iter().filter(|object| kinds.contains(&object.kind.as_str()));
    if let Some(object) = found.next() {
        if let Some(other) = found.next() {
            remarks.point(
                other.at(),
                format!("this config is for the sidecar of `{}`, the first workload in the files; `{}` needs its own config: import each workload alone with the objects.", object.name, other.name),
            );
        }
        let template = object.spec().down(&["template", "metadata", "labels"]);
        let labels = if object.kind == "Pod" { object.labels.clone() } else { labels(template) };
        return SelectedWorkload { namespace: object.namespace.clone(), labels: Some(labels) };
    }
    let namespace = objects
        .iter()
        .find(|object| object.namespace != ROOT)
        .map_or("default", |object| object.namespace.as_str());
    if let Some(first) = objects.first() {
        remarks.note(
            first.at(),
            format!("the files have no workload: this config is for a workload in `{namespace}` without labels. Give its Deployment or Pod, too."),
        );
    }
    SelectedWorkload { namespace: namespace.to_owned(), labels: None }
}

/// Envoy's word for the status of a redirect; `default` for a status that is missing or unknown.
pub(crate) fn redirect_code(status: Option<&str>, default: &'static str) -> &'static str {
    match status {
        Some("301") => "MOVED_PERMANENTLY",
        Some("302") => "FOUND",
        Some("303") => "SEE_OTHER",
        Some("307") => "TEMPORARY_REDIRECT",
        Some("308") => "PERMANENT_REDIRECT",
        _ => default,
    }
}

/// `exact`, `prefix` or `regex` in Envoy's form. `None` if any value matches.
pub(crate) fn string(value: &Node) -> Option<Node> {
    if value.entries().len() > 1 {
        return Some(value.map(vec![("unknown", value.clone())]));
    }
    for key in ["exact", "prefix"] {
        if let Some(text) = value.get(key) {
            return Some(value.map(vec![(key, text.clone())]));
        }
    }
    match value.get("regex") {
        Some(regex) => Some(value.map(vec![("safe_regex", value.map(vec![("regex", regex.clone())]))])),
        None if value.is_empty() => None,
        // The matcher is unknown, and the importer of routes reports it.
        None => Some(value.map(vec![("unknown", value.clone())])),
    }
}

fn original(name: &str) -> PlannedUpstream {
    let mut keys = YamlMap::default();
    keys.set("address", "original-destination");
    PlannedUpstream { name: name.to_owned(), keys, ..PlannedUpstream::default() }
}

/// The listener for the calls of the application.
fn outbound(mesh: &MeshObjects, remarks: &mut Remarks) -> Result<Plan, Unreadable> {
    let empty = Node::empty(FileLine::default());
    let mut clusters = services::Clusters::new(mesh);
    let mut sites: Vec<Node> = Vec::new();
    virtual_service::sites(mesh, &mut clusters, &mut sites, remarks);
    gateway::sites(mesh, &mut clusters, &mut sites, remarks);
    services::sites(mesh, &mut clusters, &mut sites, remarks);
    let text = |text: &str| empty.scalar(text);
    let manager = empty.map(vec![
        ("@type", text("type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager")),
        ("normalize_path", text("true")),
        // A name of a service may end with a dot.
        ("strip_trailing_host_dot", text("true")),
        // The mesh's proxies allow no other protocol.
        ("upgrade_configs", empty.seq(vec![empty.map(vec![("upgrade_type", text("websocket"))])])),
        ("route_config", empty.map(vec![("virtual_hosts", empty.seq(sites)), ("ignore_port_in_host_matching", text("true"))])),
        (
            "http_filters",
            empty.seq(vec![empty.map(vec![("name", text("envoy.filters.http.cors"))]), empty.map(vec![("name", text("envoy.filters.http.fault"))]), empty.map(vec![("name", text("envoy.filters.http.router"))])]),
        ),
    ]);
    let filter = empty.map(vec![
        ("name", text("envoy.filters.network.http_connection_manager")),
        ("typed_config", manager),
    ]);
    let listener = empty.map(vec![
        ("name", text("outbound")),
        (
            "address",
            empty.map(vec![(
                "socket_address",
                empty.map(vec![("address", text("127.0.0.1")), ("port_value", text("15001"))]),
            )]),
        ),
        ("use_original_dst", text("true")),
        ("filter_chains", empty.seq(vec![empty.map(vec![("filters", empty.seq(vec![filter]))])])),
    ]);
    let fixed =
        empty.map(vec![("listeners", empty.seq(vec![listener])), ("clusters", empty.seq(clusters.nodes))]);
    let mut plan = envoy::trees(vec![empty.map(vec![("static_resources", fixed)])])?;
    remarks.0.extend(clusters.remarks.0);
    let only = services::registry_only(mesh);
    for listener in &mut plan.listeners {
        listener.keys.0.retain(|(key, _)| key != "protocol");
        // The caller is the application itself, so no condition on the caller is needed.
        let mut rule = PlannedRule::default();
        rule.when.path = crate::path::PlannedPath::Any;
        if let Some(at) = &only {
            rule.at = at.clone();
            rule.keys.set("respond", 502_u64);
            rule.remarks.note(at, "calls to unknown services are refused (`REGISTRY_ONLY`).");
        } else {
            rule.keys.set("to", ANYWHERE);
            rule.targets.push(ANYWHERE.to_owned());
        }
        for chain in &mut listener.chains {
            if chain.sites.iter().all(|site| site.hosts.iter().all(|host| host != "*")) {
                chain.sites.push(VirtualHost {
                    hosts: vec!["*".to_owned()],
                    rules: vec![rule.clone()],
                    ..VirtualHost::default()
                });
            }
        }
    }
    if only.is_none() {
        plan.upstreams.push(original(ANYWHERE));
    }
    Ok(plan)
}
