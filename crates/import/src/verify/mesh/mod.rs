//! No program runs objects of Istio and the Gateway API without a cluster. So their import is compared with this small
//! interpreter: it computes the result for one request from the objects, as their reference describes it. It shares no
//! code with the import except the YAML parser, and it decides about one request at a time, while the import makes
//! routes for all requests.
//!
//! It knows: hosts, matches, the order of rules (the first of a `VirtualService`, the most specific of the Gateway
//! API), destinations and subsets, weights, rewrites, redirects, fixed answers, faults for all requests, request
//! headers that are set or removed. It reports what it doesn't know, and those requests are left out: callers' labels,
//! faults for a share, delegates, policies about callers.

mod gateway;
mod virtual_service;

use std::cell::RefCell;

use regex::Regex;

use crate::tree::{self, Node};
use crate::value::{ConfigValue, YamlMap};
use crate::{File, istio};

use super::{SeenAnswer, probe::PlannedProbe, stub::Stubs};

/// The expected result of a request, by the objects.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expectation {
    /// One of these services answers.
    DeliveredRequest(DeliveredRequest),
    /// The proxy answers with this status, `Location` and body.
    Answered { status: u16, location: Option<String>, body: Option<String> },
    /// The interpreter doesn't know the result, for this reason.
    Unknown(&'static str),
}

/// A request as a service gets it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct DeliveredRequest {
    /// `NAME.NAMESPACE` or `NAME.NAMESPACE-SUBSET`.
    pub(crate) services: Vec<String>,
    /// The target with its query.
    pub(crate) target: String,
    pub(crate) host: Option<String>,
    /// Headers that are set (`Some`) or removed.
    pub(crate) headers: Vec<(String, Option<String>)>,
}

/// An object.
pub(crate) struct MeshObject {
    kind: String,
    name: String,
    namespace: String,
    node: Node,
}

impl MeshObject {
    fn spec(&self) -> &Node {
        self.node.down(&["spec"])
    }
}

/// All objects, and the namespace of the workload.
pub(crate) struct MeshModel {
    objects: Vec<MeshObject>,
    namespace: String,
}

/// The parts of a request.
pub(crate) struct ProbedRequest<'p> {
    probe: &'p PlannedProbe,
    host: String,
    path: &'p str,
    query: Vec<(&'p str, &'p str)>,
}

impl<'p> ProbedRequest<'p> {
    fn of(probe: &'p PlannedProbe) -> Self {
        let (path, query) = probe.target.split_once('?').unwrap_or((&probe.target, ""));
        let host = probe.host.split(':').next().unwrap_or_default().to_ascii_lowercase();
        let query = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self { probe, host, path, query: query.collect() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let found = self.probe.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// The target with another path.
    fn target(&self, path: &str) -> String {
        match self.probe.target.split_once('?') {
            Some((_, query)) => format!("{path}?{query}"),
            None => path.to_owned(),
        }
    }
}

/// `exact`, `prefix` or `regex` of a text.
fn matches(matcher: &Node, text: &str, ignoring_case: bool) -> bool {
    let fold = |text: &str| if ignoring_case { text.to_ascii_lowercase() } else { text.to_owned() };
    if let Some(exact) = matcher.get("exact").and_then(Node::text) {
        return fold(exact) == fold(text);
    }
    if let Some(prefix) = matcher.get("prefix").and_then(Node::text) {
        return fold(text).starts_with(&fold(prefix));
    }
    matcher.get("regex").and_then(Node::text).is_none_or(|regex| whole(regex, text))
}

/// Whether a regular expression matches the whole text.
fn whole(regex: &str, text: &str) -> bool {
    Regex::new(&format!("^(?:{regex})$")).is_ok_and(|regex| regex.is_match(text))
}

impl MeshModel {
    pub(crate) fn read(files: &[File]) -> Result<Self, String> {
        let mut objects = Vec::new();
        for file in files {
            let roots = tree::parse(&file.text, "given").map_err(|error| error.to_string())?;
            for root in &roots {
                let items = if root.str("kind").is_some_and(|kind| kind.ends_with("List")) {
                    root.list("items")
                } else {
                    std::slice::from_ref(root)
                };
                objects.extend(items.iter().map(|item| {
                    let about = item.down(&["metadata"]);
                    let text = |key: &str| about.str(key).map(ToOwned::to_owned);
                    MeshObject {
                        kind: item.str("kind").unwrap_or_default().to_owned(),
                        name: text("name").unwrap_or_default(),
                        namespace: text("namespace").unwrap_or_else(|| "default".to_owned()),
                        node: item.clone(),
                    }
                }));
            }
        }
        let workloads = ["Pod", "Deployment", "StatefulSet", "DaemonSet", "Job", "ReplicaSet"];
        let workload = objects.iter().find(|object| workloads.contains(&object.kind.as_str()));
        let other = objects.iter().find(|object| object.namespace != "istio-system");
        let namespace = workload.or(other).map_or("default", |object| object.namespace.as_str()).to_owned();
        Ok(Self { objects, namespace })
    }

    /// The full name of a caller's host, if it is a service of the cluster.
    fn full(&self, host: &str) -> String {
        let parts: Vec<&str> = host.split('.').collect();
        match parts.as_slice() {
            [name] => format!("{name}.{}.svc.cluster.local", self.namespace),
            [name, namespace] | [name, namespace, "svc"] if self.service(name, namespace) => {
                format!("{name}.{namespace}.svc.cluster.local")
            }
            _ => host.to_owned(),
        }
    }

    fn service(&self, name: &str, namespace: &str) -> bool {
        self.objects
            .iter()
            .any(|object| object.kind == "Service" && object.name == name && object.namespace == namespace)
    }

    /// The expected result of a request of the application.
    pub(crate) fn says(&self, probe: &PlannedProbe) -> Expectation {
        if self
            .objects
            .iter()
            .any(|object| matches!(object.kind.as_str(), "EnvoyFilter" | "WasmPlugin" | "Sidecar"))
        {
            return Expectation::Unknown("an EnvoyFilter, a WasmPlugin or a Sidecar is among the objects");
        }
        let request = ProbedRequest::of(probe);
        let host = self.full(&request.host);
        if let Some(said) = virtual_service::says(self, &request, &host) {
            return said;
        }
        if let Some(said) = gateway::says(self, &request, &host) {
            return said;
        }
        let mut parts = host.split('.');
        let (name, namespace) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if host.ends_with(".svc.cluster.local") && self.service(name, namespace) {
            let services = vec![format!("{name}.{namespace}")];
            return Expectation::DeliveredRequest(DeliveredRequest {
                services,
                target: probe.target.clone(),
                ..DeliveredRequest::default()
            });
        }
        Expectation::Unknown("hosts that no object names")
    }
}

/// The difference between the expected result and the import's answer. `None` if they are equal.
pub(crate) fn differs(said: &Expectation, own: &SeenAnswer, probe: &PlannedProbe) -> Option<String> {
    let both = |what: &str, a: &str, b: &str| Some(format!("{what}: {a} by the objects, {b} here"));
    match (said, &own.stub) {
        (Expectation::Unknown(_), _) => None,
        (Expectation::Answered { status, location, body }, None) => {
            if *status != own.status {
                return both("status", &status.to_string(), &own.summary());
            }
            if let Some(location) = location.as_ref().filter(|location| **location != own.header("location"))
            {
                return both("Location", location, &own.header("location"));
            }
            match body {
                Some(body) if probe.method != "HEAD" && *body != own.body => both("body", body, &own.body),
                _ => None,
            }
        }
        (Expectation::Answered { status, .. }, Some(_)) => {
            both("answer", &status.to_string(), &own.summary())
        }
        (Expectation::DeliveredRequest(sent), None) => {
            both("answer", &sent.services.join(" or "), &own.summary())
        }
        (Expectation::DeliveredRequest(sent), Some(seen)) => {
            // An upstream's name ends with the port where its service has several.
            let is = |service: &String| {
                seen.name == *service
                    || seen.name.strip_prefix(service.as_str()).is_some_and(|rest| {
                        rest.strip_prefix('-').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()))
                    })
            };
            if !sent.services.iter().any(is) {
                return both("service", &sent.services.join(" or "), &seen.name);
            }
            if sent.target != seen.target {
                return both("path", &sent.target, &seen.target);
            }
            // The stub reports its request in the body, which an answer to HEAD lacks.
            if probe.method == "HEAD" {
                return None;
            }
            let host = sent.host.as_ref().unwrap_or(&probe.host);
            if *host != seen.header("host") {
                return both("host", host, &seen.header("host"));
            }
            let wrong = sent
                .headers
                .iter()
                .find(|(name, value)| value.clone().unwrap_or_default() != seen.header(name));
            let (name, value) = wrong?;
            both(&format!("request header {name}"), value.as_deref().unwrap_or_default(), &seen.header(name))
        }
    }
}

/// The import's plan with stubs in place of every upstream, on free ports. The listener `inbound` is left out.
pub(crate) fn bench(files: &[File], stubs: &Stubs) -> Result<(crate::plan::Plan, Vec<u16>), String> {
    let mut plan = istio::import(files).map_err(|error| error.to_string())?;
    plan.listeners.retain(|listener| !listener.name.starts_with("inbound"));
    let mut ports = Vec::new();
    for listener in &mut plan.listeners {
        let port = super::port()?;
        listener.keys = YamlMap::default();
        listener.keys.set("bind", format!("127.0.0.1:{port}"));
        ports.push(port);
    }
    let wrong = RefCell::new(None);
    for upstream in &mut plan.upstreams {
        match stubs.port(&upstream.name) {
            Ok(port) => {
                let host = upstream.keys.get("host").cloned();
                upstream.keys = YamlMap::default();
                upstream.keys.set("address", ConfigValue::from(format!("http://127.0.0.1:{port}")));
                upstream.keys.put("host", host);
            }
            Err(error) => *wrong.borrow_mut() = Some(error),
        }
    }
    wrong.into_inner().map_or(Ok((plan, ports)), Err)
}
