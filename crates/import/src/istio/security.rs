//! Calls to the workload: PeerAuthentication, RequestAuthentication and AuthorizationPolicy become `tls` and
//! `authorization` of the listener `inbound`.
//!
//! DENY decides before ALLOW. With an ALLOW policy, a request that no ALLOW policy allows is denied. A policy without rules matches
//! nothing, and one with an empty rule matches everything. Policies of the root namespace apply to all workloads. If it isn't
//! known whether a policy applies to this workload, everything is refused.

use crate::access::{self, AccessEffect, ImportedAccess};
use crate::plan::{FilterChain, Plan, PlannedListener, PlannedRule, VirtualHost};
use crate::remark::Remarks;
use crate::tree::{FileLine, Node};
use crate::value::{ConfigValue, YamlMap};

use super::services::TLS;
use super::{ManifestObject, MeshObjects, ROOT, issuer, policy};

/// The upstream that is the application.
pub(crate) const APP: &str = "app";

/// Whether callers must use mutual TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MtlsMode {
    Off,
    Permissive,
    Strict,
}

/// The listener for calls to the workload.
pub(crate) fn inbound(mesh: &MeshObjects, plan: &mut Plan) -> PlannedListener {
    let mut out = PlannedListener { name: "inbound".to_owned(), ..PlannedListener::default() };
    out.keys.set("bind", "0.0.0.0:15006");
    out.keys.set("transparent", true);
    // The mesh's proxies allow no other protocol.
    let mut http = out.keys.child("http");
    http.set("upgrades", "websocket");
    http.set("extended_connect", false);
    http.set("methods", "known");
    drop(http);
    let mut remarks = Remarks::default();
    let mut rule = PlannedRule::default();
    rule.when.path = crate::path::PlannedPath::Any;
    rule.keys.set("to", APP);
    rule.targets.push(APP.to_owned());
    if let Some(at) = super::services::ingress(mesh) {
        remarks.point(&at, "the Sidecar's `ingress` is not carried over: a call goes to its original port, on the pod's own address.");
    }
    let mut authorization = YamlMap::default();
    let mut closed: Option<(FileLine, String)> = None;
    let mut peers = peers(mesh, &mut remarks, &mut closed);
    tokens(mesh, plan, &mut authorization, &mut remarks, &mut closed);
    let rules = policies(mesh, authorization.get("jwt").is_some(), &mut remarks, &mut closed);
    peers.meet(&rules, &mut remarks, &mut closed);
    if peers.mode != MtlsMode::Off {
        out.keys.set("tls", peers.tls());
        remarks.soft(&peers.at, format!("the mesh's certificates came from its control plane: {TLS} must have tls.crt, tls.key and ca.crt, or take `spiffe: true`."));
    }
    let rules_by_namespace = rules.asks("identity");
    authorize(rules, &peers.ports, &mut authorization);
    if rules_by_namespace {
        remarks.note(
            &peers.at,
            "namespaces and service accounts are those of the trust domain `cluster.local`.",
        );
    }
    if let Some((at, why)) = closed {
        rule.refuse(&at, why);
        authorization = YamlMap::default();
    }
    if !authorization.is_empty() {
        // Tokens that are not required and that no rule reads are verified by the route.
        let of_route = authorization.0.iter().all(|(key, _)| key == "jwt");
        let keys = if of_route { &mut rule.keys } else { &mut out.keys };
        keys.set("authorization", authorization);
    }
    out.remarks = remarks;
    out.chains.push(FilterChain {
        sites: vec![VirtualHost { hosts: vec!["*".to_owned()], rules: vec![rule], ..VirtualHost::default() }],
        ..FilterChain::default()
    });
    out
}

/// The demands of PeerAuthentication on callers.
struct PeerDemand {
    mode: MtlsMode,
    /// Ports with another mode, and whether it is stricter.
    ports: Vec<(String, bool)>,
    /// The place of the mode.
    at: FileLine,
}

impl PeerDemand {
    /// Makes the mode as strict as the policies need it.
    fn meet(&mut self, rules: &PolicyRules, remarks: &mut Remarks, closed: &mut Option<(FileLine, String)>) {
        let by_name = rules.deny.iter().any(|(_, rule)| rule.needs("identity"))
            || rules.allow.iter().flatten().any(|(_, rule)| rule.excludes("identity"));
        if by_name && self.mode != MtlsMode::Strict {
            let what = "a policy refuses clients by their identity, and clients without TLS have none: plaintext is refused.";
            remarks.point(&self.at, what);
            self.mode = MtlsMode::Strict;
            self.ports.clear();
        }
        if self.mode == MtlsMode::Off && rules.asks("identity") {
            closed.get_or_insert((self.at.clone(), "policies need the client's identity, and mutual TLS is off (`DISABLE`): no client is allowed. Switch it on.".to_owned()));
        }
    }

    /// The keys of the listener's `tls`.
    fn tls(&self) -> YamlMap {
        let mut tls = YamlMap::default();
        tls.set("certificate", format!("{TLS}/tls.crt"));
        tls.set("key", format!("{TLS}/tls.key"));
        tls.set("client_ca", format!("{TLS}/ca.crt"));
        if self.mode == MtlsMode::Permissive {
            tls.set("mode", "permissive");
        }
        tls
    }
}

/// Adds the rules of all policies, and those of ports with another mode of mutual TLS.
fn authorize(rules: PolicyRules, ports: &[(String, bool)], authorization: &mut YamlMap) {
    let mut deny = rules.deny;
    for (port, strict) in ports {
        // Without TLS there is no identity.
        let nobody =
            access::not(&vec![ImportedAccess::list("identity", vec!["*".to_owned()])]).unwrap_or_default();
        let which = vec![ImportedAccess::list("port", vec![port.clone()])];
        let which = if *strict { Some(which) } else { access::not(&which) };
        if let Some(all) = which.and_then(|which| access::both(&nobody, &which)) {
            deny.extend(all.into_iter().map(|rule| (format!("mtls-{port}"), rule)));
        }
    }
    let mut shut = false;
    for said in [Some(access::deny(&deny)), rules.allow.as_deref().map(access::allow)].into_iter().flatten() {
        match said {
            AccessEffect::Open => {}
            AccessEffect::Shut => shut = true,
            AccessEffect::Keys(keys) => {
                access::merge(authorization, &keys);
            }
        }
    }
    if shut {
        // One policy denies everything, and DENY decides before ALLOW.
        authorization.0.retain(|(key, _)| key == "jwt");
        authorization.set("allow", ConfigValue::List(Vec::new()));
    }
}

/// Objects of a kind that apply to the workload. Sets `closed` if that isn't known.
fn about<'m>(
    mesh: &'m MeshObjects,
    kind: &'static str,
    closed: &mut Option<(FileLine, String)>,
) -> Vec<&'m ManifestObject> {
    let mut out = Vec::new();
    for object in mesh.all(kind) {
        if object.namespace != mesh.workload.namespace && object.namespace != ROOT {
            continue;
        }
        if object.spec().get("target_ref").is_some() || object.spec().get("target_refs").is_some() {
            // `targetRefs` are for gateways and waypoints, not for sidecars: Istio ignores such objects for a sidecar,
            // too.
            continue;
        }
        match mesh.selects(object.spec().down(&["selector"])) {
            Some(true) => out.push(object),
            Some(false) => {}
            None => {
                let why = format!(
                    "`{}` is for the workloads that its `selector` names, and no workload is among the objects. Give its Deployment or Pod beside them.",
                    object.name
                );
                closed.get_or_insert((object.at().clone(), why));
            }
        }
    }
    out
}

/// Closes the listener where an object has a key that the import doesn't know: it may narrow what the object allows.
fn unknown(object: &ManifestObject, node: &Node, known: &[&str], closed: &mut Option<(FileLine, String)>) {
    let other = node
        .entries()
        .iter()
        .find(|(key, value)| !value.is_empty() && !known.contains(&crate::tree::snake(key).as_str()));
    if let Some((key, value)) = other {
        let at = if value.at.line == 0 { object.at() } else { &value.at };
        let why = format!(
            "this import doesn't know `{key}` of `{}`. Find out what it does; then replace the refusal.",
            object.name
        );
        closed.get_or_insert((at.clone(), why));
    }
}

fn peers(mesh: &MeshObjects, remarks: &mut Remarks, closed: &mut Option<(FileLine, String)>) -> PeerDemand {
    let all = about(mesh, "PeerAuthentication", closed);
    let selected = |object: &&&ManifestObject| !object.spec().down(&["selector"]).is_empty();
    let own = |object: &&&ManifestObject| object.namespace == mesh.workload.namespace;
    let mode_of = |node: &Node| match node.str("mode") {
        Some("STRICT") => Some(MtlsMode::Strict),
        Some("PERMISSIVE") => Some(MtlsMode::Permissive),
        Some("DISABLE") => Some(MtlsMode::Off),
        _ => None,
    };
    // The workload's own object, then its namespace's, then the mesh's. An unset mode is inherited from the next level.
    let levels = [
        all.iter().filter(own).find(selected),
        all.iter().filter(own).find(|object| !selected(object)),
        all.iter().find(|object| object.namespace == ROOT && !selected(object)),
    ];
    let mut at = mesh.objects.first().map(|object| object.at().clone()).unwrap_or_default();
    let mut mode = None;
    for object in levels.iter().flatten() {
        mode = mode.or_else(|| {
            let found = mode_of(object.spec().down(&["mtls"]));
            if found.is_some() {
                at = object.at().clone();
            }
            found
        });
    }
    for object in &all {
        unknown(object, object.spec(), &["selector", "mtls", "port_level_mtls"], closed);
        unknown(object, object.spec().down(&["mtls"]), &["mode"], closed);
    }
    let base = mode.unwrap_or(MtlsMode::Permissive);
    let mut others = Vec::new();
    if let Some(object) = levels[0] {
        for (port, node) in object.spec().down(&["port_level_mtls"]).entries() {
            match mode_of(node) {
                Some(mode) if mode != base => others.push((port.clone(), mode, node.at.clone())),
                _ => {}
            }
        }
    }
    let mut out = Vec::new();
    let mut whole = base;
    match base {
        MtlsMode::Permissive | MtlsMode::Off => {
            for (port, mode, at) in others {
                match mode {
                    MtlsMode::Strict => {
                        whole = MtlsMode::Permissive;
                        out.push((port, true));
                    }
                    MtlsMode::Permissive => whole = MtlsMode::Permissive,
                    MtlsMode::Off => {
                        remarks.note(&at, format!("port {port} accepts TLS from clients that use it."));
                    }
                }
            }
        }
        MtlsMode::Strict => match others.as_slice() {
            [] => {}
            [(port, ..)] => {
                whole = MtlsMode::Permissive;
                out.push((port.clone(), false));
            }
            [(_, _, at), ..] => remarks.point(
                at,
                "some ports accept plaintext and others don't: here all of them refuse plaintext.",
            ),
        },
    }
    PeerDemand { mode: whole, ports: out, at }
}

/// Issuers of tokens. A request without a token goes on; a bad one is 401.
fn tokens(
    mesh: &MeshObjects,
    plan: &mut Plan,
    authorization: &mut YamlMap,
    remarks: &mut Remarks,
    closed: &mut Option<(FileLine, String)>,
) {
    let mut issuers: Vec<String> = Vec::new();
    for object in about(mesh, "RequestAuthentication", closed) {
        unknown(object, object.spec(), &["selector", "jwt_rules"], closed);
        for rule in object.spec().list("jwt_rules") {
            match issuer::issuer(rule, plan, remarks) {
                Ok(name) => issuers.push(name),
                Err(why) => {
                    closed.get_or_insert((
                        rule.at.clone(),
                        format!("attache can't verify the tokens that this object requires: {why}. Write it as `jwt`; then replace the refusal."),
                    ));
                }
            }
        }
    }
    if !issuers.is_empty() {
        let mut jwt = YamlMap::default();
        jwt.set("issuers", issuers);
        jwt.set("required", false);
        authorization.set("jwt", jwt);
    }
}

/// The rules of all policies.
#[derive(Default)]
struct PolicyRules {
    deny: Vec<(String, ImportedAccess)>,
    /// The rules of all ALLOW policies. `None` if there is no ALLOW policy.
    allow: Option<Vec<(String, ImportedAccess)>>,
}

impl PolicyRules {
    fn asks(&self, key: &str) -> bool {
        self.deny.iter().chain(self.allow.iter().flatten()).any(|(_, rule)| rule.asks(key))
    }
}

fn policies(
    mesh: &MeshObjects,
    tokens: bool,
    remarks: &mut Remarks,
    closed: &mut Option<(FileLine, String)>,
) -> PolicyRules {
    let mut out = PolicyRules::default();
    for object in about(mesh, "AuthorizationPolicy", closed) {
        let spec = object.spec();
        unknown(object, spec, &["selector", "action", "rules", "provider"], closed);
        let action = spec.str("action").unwrap_or("ALLOW");
        if object.node.down(&["metadata", "annotations"]).is("istio.io/dry-run") {
            remarks.soft(object.at(), format!("`{}` is a dry run, and left out: `dry_run: true` makes one of the whole `authorization`.", object.name));
            continue;
        }
        match action {
            "AUDIT" => {
                remarks.soft(
                    object.at(),
                    format!("`{}` only marks requests for an audit, and is left out.", object.name),
                );
                continue;
            }
            "CUSTOM" => {
                let why = format!(
                    "`{}` uses a service that only the mesh's config has. Write it as `authorizers` and `external`; then replace the refusal.",
                    object.name
                );
                closed.get_or_insert((object.at().clone(), why));
                continue;
            }
            "ALLOW" | "DENY" => {}
            other => {
                closed.get_or_insert((
                    object.at().clone(),
                    format!("this import doesn't know the action `{other}` of `{}`.", object.name),
                ));
                continue;
            }
        }
        let mut rules: Vec<(String, ImportedAccess)> = Vec::new();
        for rule in spec.list("rules") {
            match policy::rule(rule, &object.namespace, tokens) {
                Ok(all) => rules.extend(all.into_iter().map(|one| (object.name.clone(), one))),
                Err(why) => {
                    let what = format!("a rule of `{}` can't be carried over: {why}.", object.name);
                    if action == "DENY" {
                        closed.get_or_insert((rule.at.clone(), what));
                    } else {
                        remarks.point(&rule.at, format!("{what} The requests that it allowed are denied."));
                    }
                }
            }
        }
        if action == "DENY" {
            out.deny.extend(rules);
        } else {
            out.allow.get_or_insert_default().extend(rules);
        }
    }
    out
}
