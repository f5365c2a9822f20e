//! Service, ServiceEntry and DestinationRule become clusters: the destinations of calls.
//!
//! A destination is a host, a port and perhaps a subset. Hosts of the cluster are called by mutual TLS, as the mesh
//! does, unless a DestinationRule says otherwise: a call that was encrypted is never sent in plaintext.

use crate::remark::Remarks;
use crate::tree::{FileLine, Node};

use super::balance::balance;
use super::{ManifestObject, MeshObjects, hosts};

/// The folder of the certificates, where issuers of sidecars' certificates put them.
pub(crate) const TLS: &str = "/etc/attache/tls";

/// A name that never resolves.
const UNRESOLVABLE_HOST: &str = "nobody.invalid";

/// The clusters that routes go to.
pub(crate) struct Clusters<'m> {
    pub(super) mesh: &'m MeshObjects,
    pub(crate) nodes: Vec<Node>,
    pub(crate) remarks: Remarks,
    domains: std::cell::RefCell<Vec<String>>,
}

/// A port of a service.
pub(super) struct ServicePort {
    number: String,
    protocol: String,
    target: String,
}

impl<'m> Clusters<'m> {
    pub(crate) fn new(mesh: &'m MeshObjects) -> Self {
        Self { mesh, nodes: Vec::new(), remarks: Remarks::default(), domains: std::cell::RefCell::default() }
    }

    /// Marks a host as used. True if it was marked before.
    pub(crate) fn taken(&self, host: &str) -> bool {
        let mut all = self.domains.borrow_mut();
        let known = all.iter().any(|other| other == host);
        if !known {
            all.push(host.to_owned());
        }
        known
    }

    /// Whether the Sidecar lets the workload call a host.
    pub(crate) fn visible(&self, host: &str, namespace: &str) -> bool {
        let Some(sidecar) = sidecar(self.mesh) else { return true };
        let egress = sidecar.spec().list("egress");
        if egress.is_empty() {
            return true;
        }
        let own = &self.mesh.workload.namespace;
        let of = hosts::service(host).map_or(namespace, |(_, namespace)| namespace);
        egress.iter().flat_map(|egress| egress.list("hosts")).filter_map(Node::text).any(|pattern| {
            let (space, name) = pattern.split_once('/').unwrap_or(("*", pattern));
            let space = match space {
                "*" => true,
                "." => of == own,
                "~" => false,
                other => other == of,
            };
            space && hosts::takes(name, host)
        })
    }

    /// The cluster of a destination, made where it isn't there yet.
    pub(crate) fn of(&mut self, destination: &Node, namespace: &str) -> String {
        let host = hosts::whole(destination.str("host").unwrap_or_default(), namespace);
        let subset = destination.str("subset").map(ToOwned::to_owned);
        let ports = ports(self.mesh, &host);
        let number = destination.down(&["port"]).str("number").map(ToOwned::to_owned);
        let number = number.or_else(|| ports.first().map(|port| port.number.clone()));
        if number.is_none() {
            self.remarks.point(
                &destination.at,
                format!("the port of `{host}` is unknown, because its Service is not in the files: the import writes 80. Give the Service, or set the port."),
            );
        } else if ports.len() > 1 && destination.down(&["port"]).str("number").is_none() {
            self.remarks.point(
                &destination.at,
                format!("`{host}` has several ports: all calls go to the first port, and not to the port that was called. Give the destination a port."),
            );
        }
        self.cluster(
            &host,
            &number.unwrap_or_else(|| "80".to_owned()),
            subset.as_deref(),
            &ports,
            &destination.at,
        )
    }

    fn cluster(
        &mut self,
        host: &str,
        number: &str,
        subset: Option<&str>,
        ports: &[ServicePort],
        at: &FileLine,
    ) -> String {
        let short = hosts::service(host)
            .map_or_else(|| host.to_owned(), |(name, namespace)| format!("{name}.{namespace}"));
        let mut name = match subset {
            Some(subset) => format!("{short}-{subset}"),
            None => short,
        };
        if ports.len() > 1 || ports.is_empty() && number != "80" {
            name = format!("{name}-{number}");
        }
        if self.nodes.iter().any(|node| node.str("name") == Some(&name)) {
            return name;
        }
        let empty = Node::empty(at.clone());
        let text = |text: &str| empty.scalar(text);
        let rule = self.rule(host).cloned();
        let port = ports.iter().find(|port| port.number == number);
        let mut called = host.to_owned();
        if let Some(subset) = subset {
            called = self.subset(host, subset, rule.as_ref(), at);
        }
        let mut node = empty.map(vec![
            ("name", text(&name)),
            ("type", text("STRICT_DNS")),
            ("connect_timeout", text("10s")),
        ]);
        let wanted = wanted(subset, rule.as_ref());
        let endpoints =
            if called == UNRESOLVABLE_HOST { Vec::new() } else { endpoints(self.mesh, host, port, &wanted) };
        let addresses = if endpoints.is_empty() {
            vec![(called.clone(), port.map_or(number, |port| port.target.as_str()).to_owned())]
        } else {
            endpoints
        };
        let list = addresses.iter().map(|(host, port)| {
            let socket = empty.map(vec![("address", text(host)), ("port_value", text(port))]);
            empty.map(vec![(
                "endpoint",
                empty.map(vec![("address", empty.map(vec![("socket_address", socket)]))]),
            )])
        });
        let list = empty.seq(list.collect());
        let list = empty.seq(vec![empty.map(vec![("lb_endpoints", list)])]);
        node.set("load_assignment", empty.map(vec![("cluster_name", text(&name)), ("endpoints", list)]));
        if host.contains('*') {
            self.remarks.point(at, format!("`{host}` is not the name of one host: requests with such a Host have no destination. List the hosts."));
        }
        let policy = self.policy(rule.as_ref(), number, subset);
        balance(&policy, &mut node, &mut self.remarks);
        let grpc = port.is_some_and(|port| matches!(port.protocol.as_str(), "grpc" | "http2" | "grpc-web"));
        let h2 = policy.down(&["connection_pool", "http"]).str("h2_upgrade_policy") == Some("UPGRADE");
        if grpc || h2 {
            node.set("http2_protocol_options", empty.map(vec![("max_concurrent_streams", text("1000"))]));
        }
        self.tls(&policy, host, at, &mut node);
        if let Some((service, _)) = hosts::service(host)
            && self.service(host).is_none_or(|service| service.spec().str("cluster_i_p") != Some("None"))
        {
            self.remarks.soft(
                at,
                format!("attache calls `{service}` by its cluster address, so the kernel balances. With a headless Service (`clusterIP: None`) attache balances."),
            );
        }
        self.nodes.push(node);
        name
    }

    fn service(&self, host: &str) -> Option<&'m ManifestObject> {
        let (name, namespace) = hosts::service(host)?;
        self.mesh
            .objects
            .iter()
            .find(|object| object.kind == "Service" && object.name == name && object.namespace == namespace)
    }

    /// The name of a Service that has only the endpoints of a subset, or the name that such a Service should get.
    fn subset(&mut self, host: &str, subset: &str, rule: Option<&ManifestObject>, at: &FileLine) -> String {
        let wanted = wanted(Some(subset), rule);
        let Some((name, namespace)) = hosts::service(host) else {
            if !wanted.is_empty() && labelled(self.mesh, host, &wanted) {
                return host.to_owned();
            }
            if labelled(self.mesh, host, &[]) {
                self.remarks.note(at, format!("no endpoint of `{host}` has the labels of its subset `{subset}`: these calls fail, as before."));
                return UNRESOLVABLE_HOST.to_owned();
            }
            self.remarks.point(
                at,
                format!("the subset `{subset}` of `{host}` is now the whole service: attache has no subsets by labels of pods."),
            );
            return host.to_owned();
        };
        let mut labels = self
            .service(host)
            .map(|service| super::labels(service.spec().down(&["selector"])))
            .unwrap_or_default();
        for label in &wanted {
            if !labels.contains(label) {
                labels.push(label.clone());
            }
        }
        let same = |object: &&ManifestObject| {
            let own = super::labels(object.spec().down(&["selector"]));
            object.kind == "Service"
                && object.namespace == namespace
                && own.len() == labels.len()
                && own.iter().all(|label| labels.contains(label))
        };
        if let Some(service) = self.mesh.objects.iter().find(same).filter(|_| !wanted.is_empty()) {
            return format!("{}.{namespace}.svc.cluster.local", service.name);
        }
        let all: Vec<String> = labels.iter().map(|(key, value)| format!("{key}: {value}")).collect();
        self.remarks.point(
            at,
            format!(
                "attache has no subsets by labels of pods: create a Service `{name}-{subset}` in `{namespace}` with `selector: {{ {} }}`. Until then these calls fail.",
                all.join(", ")
            ),
        );
        format!("{name}-{subset}.{namespace}.svc.cluster.local")
    }
}

/// The Sidecar of the workload: the one that selects it, else that of its namespace, else that of the mesh.
fn sidecar(mesh: &MeshObjects) -> Option<&ManifestObject> {
    let of = |namespace: &str, selected: bool| {
        mesh.objects.iter().find(|object| {
            let selector = object.spec().down(&["workload_selector", "labels"]);
            object.kind == "Sidecar"
                && object.namespace == namespace
                && if selected {
                    !selector.is_empty() && mesh.selects(selector) == Some(true)
                } else {
                    selector.is_empty()
                }
        })
    };
    of(&mesh.workload.namespace, true)
        .or_else(|| of(&mesh.workload.namespace, false))
        .or_else(|| of(super::ROOT, false))
}

/// The place of a Sidecar's `ingress`, which is not carried over.
pub(crate) fn ingress(mesh: &MeshObjects) -> Option<FileLine> {
    sidecar(mesh)?.spec().get("ingress").map(|ingress| ingress.at.clone())
}

/// The only port of a host. `None` if its Service is unknown or has several ports.
pub(crate) fn only_port(mesh: &MeshObjects, host: &str) -> Option<String> {
    match ports(mesh, host).as_slice() {
        [only] => Some(only.number.clone()),
        _ => None,
    }
}

/// The place that says that calls to unknown services are refused. `None` if they are not.
pub(crate) fn registry_only(mesh: &MeshObjects) -> Option<FileLine> {
    let policy = sidecar(mesh)?.spec().down(&["outbound_traffic_policy"]);
    (policy.str("mode") == Some("REGISTRY_ONLY")).then(|| policy.at.clone())
}

fn entry<'m>(mesh: &'m MeshObjects, host: &str) -> Option<&'m ManifestObject> {
    mesh.objects.iter().find(|object| {
        object.kind == "ServiceEntry"
            && object
                .spec()
                .list("hosts")
                .iter()
                .filter_map(Node::text)
                .any(|own| own.eq_ignore_ascii_case(host))
    })
}

pub(super) fn ports(mesh: &MeshObjects, host: &str) -> Vec<ServicePort> {
    let service = hosts::service(host).and_then(|(name, namespace)| {
        mesh.objects
            .iter()
            .find(|object| object.kind == "Service" && object.name == name && object.namespace == namespace)
    });
    let Some(object) = service.or_else(|| entry(mesh, host)) else { return Vec::new() };
    let all = object.spec().list("ports").iter().filter_map(|port| {
        let number = port.str("port").or_else(|| port.str("number"))?.to_owned();
        let word = port
            .str("app_protocol")
            .or_else(|| port.str("name").filter(|_| object.kind == "Service"))
            .or_else(|| port.str("protocol"))
            .unwrap_or_default();
        let protocol = word.to_ascii_lowercase();
        let protocol = protocol.rsplit('/').next().unwrap_or_default().to_owned();
        let protocol = if ["grpc-web", "http2", "grpc"].contains(&protocol.as_str()) {
            protocol
        } else {
            protocol.split('-').next().unwrap_or_default().to_owned()
        };
        let target = if object.kind == "ServiceEntry" {
            port.str("target_port").unwrap_or(&number).to_owned()
        } else {
            number.clone()
        };
        Some(ServicePort { number, protocol, target })
    });
    all.collect()
}

/// The labels of a subset.
fn wanted(subset: Option<&str>, rule: Option<&ManifestObject>) -> Vec<(String, String)> {
    let found =
        rule.and_then(|rule| rule.spec().list("subsets").iter().find(|one| one.str("name") == subset));
    found.map(|found| super::labels(found.down(&["labels"]))).unwrap_or_default()
}

fn has(endpoint: &Node, labels: &[(String, String)]) -> bool {
    let own = super::labels(endpoint.down(&["labels"]));
    labels.iter().all(|label| own.contains(label))
}

/// Whether a ServiceEntry names endpoints of this host with these labels.
fn labelled(mesh: &MeshObjects, host: &str, labels: &[(String, String)]) -> bool {
    let object = entry(mesh, host);
    object.is_some_and(|object| object.spec().list("endpoints").iter().any(|endpoint| has(endpoint, labels)))
}

/// The endpoints with these labels that a ServiceEntry names.
fn endpoints(
    mesh: &MeshObjects,
    host: &str,
    port: Option<&ServicePort>,
    labels: &[(String, String)],
) -> Vec<(String, String)> {
    let Some(object) = entry(mesh, host) else { return Vec::new() };
    let listed = object.spec().list("endpoints").iter().filter(|endpoint| has(endpoint, labels));
    let all = listed.filter_map(|endpoint| {
        let number = endpoint
            .down(&["ports"])
            .entries()
            .first()
            .and_then(|(_, value)| value.text())
            .or_else(|| port.map(|port| port.target.as_str()))?;
        Some((endpoint.str("address")?.to_owned(), number.to_owned()))
    });
    all.collect()
}

/// Virtual hosts for Services and ServiceEntries that no route names: calls go to them by their names.
pub(crate) fn sites(
    mesh: &MeshObjects,
    clusters: &mut Clusters<'_>,
    sites: &mut Vec<Node>,
    remarks: &mut Remarks,
) {
    for object in &mesh.objects {
        let spec = object.spec();
        let all: Vec<String> = match object.kind.as_str() {
            "Service" if spec.str("type") != Some("ExternalName") => {
                vec![format!("{}.{}.svc.cluster.local", object.name, object.namespace)]
            }
            "ServiceEntry" => {
                spec.list("hosts").iter().filter_map(Node::text).map(str::to_ascii_lowercase).collect()
            }
            _ => continue,
        };
        for host in all {
            if !clusters.visible(&host, &object.namespace)
                || host.starts_with('*') && object.kind == "ServiceEntry"
            {
                if host.starts_with('*') {
                    remarks.note(object.at(), format!("attache calls `{host}` at the address to which the client connected, like every host without a known service."));
                }
                continue;
            }
            let ports = ports(mesh, &host);
            let opaque = |port: &ServicePort| {
                matches!(
                    port.protocol.as_str(),
                    "tcp" | "tls" | "https" | "mongo" | "mysql" | "redis" | "udp" | "postgres" | "kafka"
                )
            };
            let Some(port) = ports.iter().find(|port| !opaque(port)) else { continue };
            let names: Vec<String> = hosts::spellings(&host, &mesh.workload.namespace)
                .into_iter()
                .filter(|name| !clusters.taken(name))
                .collect();
            if names.is_empty() {
                continue;
            }
            let web: Vec<&ServicePort> = ports.iter().filter(|port| !opaque(port)).collect();
            let at = &object.node;
            let mut domains = Vec::new();
            for name in &names {
                if web.len() > 1 {
                    // Each port is an upstream of its own.
                    break;
                }
                domains.push(at.scalar(name));
            }
            let site = |domains: Vec<Node>, cluster: &str, name: &str| {
                let route = at.map(vec![
                    ("match", at.map(vec![("prefix", at.scalar("/"))])),
                    ("route", at.map(vec![("cluster", at.scalar(cluster)), ("timeout", at.scalar("0s"))])),
                ]);
                at.map(vec![
                    ("name", at.scalar(name)),
                    ("domains", at.seq(domains)),
                    ("routes", at.seq(vec![route])),
                ])
            };
            if web.len() > 1 {
                remarks.point(
                    object.at(),
                    format!("`{host}` has several ports for HTTP: calls by its name go to {}, with every port in `Host`. Match `host: NAME:PORT` for the others.", port.number),
                );
                domains = names.iter().map(|name| at.scalar(name)).collect();
            }
            let number = port.number.clone();
            let cluster = clusters.cluster(&host, &number, None, &ports, object.at());
            sites.push(site(domains, &cluster, &object.name));
        }
    }
}
