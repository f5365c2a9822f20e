//! DestinationRule: the settings for calls to a host (TLS, pools, ejection and balancing) in Envoy's form.

use crate::tree::{FileLine, Node};

use super::services::{Clusters, TLS};
use super::{ManifestObject, hosts};

impl<'m> Clusters<'m> {
    /// The DestinationRule of a host: the caller's own namespace first, then the service's, then that of the mesh.
    pub(super) fn rule(&self, host: &str) -> Option<&'m ManifestObject> {
        let own = &self.mesh.workload.namespace;
        let of = hosts::service(host).map_or(own.as_str(), |(_, namespace)| namespace);
        [own.as_str(), of, super::ROOT].into_iter().find_map(|space| {
            self.mesh
                .objects
                .iter()
                .filter(|object| object.kind == "DestinationRule" && object.namespace == space)
                .filter(|object| self.mesh.selects(object.spec().down(&["workload_selector"])) != Some(false))
                .filter(|object| {
                    hosts::takes(
                        &hosts::whole(object.spec().str("host").unwrap_or_default(), &object.namespace),
                        host,
                    )
                })
                .max_by_key(|object| object.spec().str("host").map(|host| (!host.contains('*'), host.len())))
        })
    }

    /// `trafficPolicy`, key by key: the port's value overrides the subset's, which overrides the rule's.
    pub(super) fn policy(&mut self, rule: Option<&ManifestObject>, port: &str, subset: Option<&str>) -> Node {
        let mut out = Node::empty(FileLine::default());
        let Some(rule) = rule else { return out };
        let spec = rule.spec();
        let of_subset =
            subset.and_then(|subset| spec.list("subsets").iter().find(|one| one.str("name") == Some(subset)));
        for policy in [spec.get("traffic_policy"), of_subset.and_then(|subset| subset.get("traffic_policy"))]
            .into_iter()
            .flatten()
        {
            out.at = policy.at.clone();
            let mut levels = vec![policy];
            levels.extend(
                policy
                    .list("port_level_settings")
                    .iter()
                    .filter(|one| one.down(&["port"]).str("number") == Some(port)),
            );
            for level in levels {
                for (key, value) in level.entries() {
                    out.set(&crate::tree::snake(key), value.clone());
                }
            }
            self.remarks.rest(
                policy,
                "`trafficPolicy`",
                &["load_balancer", "connection_pool", "outlier_detection", "tls", "port_level_settings"],
                &[
                    ("tunnel", crate::remark::Impact::Point, "attache doesn't tunnel these calls."),
                    (
                        "proxy_protocol",
                        crate::remark::Impact::Point,
                        "write `proxy_protocol` of the upstream.",
                    ),
                    (
                        "retry_budget",
                        crate::remark::Impact::Soft,
                        "attache has its own retry budget: `retry.budget`.",
                    ),
                ],
            );
        }
        out
    }

    /// TLS of a cluster.
    pub(super) fn tls(&mut self, policy: &Node, host: &str, at: &FileLine, node: &mut Node) {
        let tls = policy.down(&["tls"]);
        let at_node = if tls.is_empty() { &*node } else { tls }.clone();
        let text = |text: &str| at_node.scalar(text);
        let mode = tls.str("mode").unwrap_or(if hosts::service(host).is_some() && tls.is_empty() {
            "AUTO"
        } else {
            "DISABLE"
        });
        let mut common = at_node.map(Vec::new());
        let mut sni = None;
        match mode {
            "DISABLE" => return,
            "AUTO" | "ISTIO_MUTUAL" => self.mesh_tls(host, at, &at_node, &mut common),
            "SIMPLE" | "MUTUAL" => {
                self.own_tls(tls, mode == "MUTUAL", &at_node, &mut common);
                sni = tls
                    .str("sni")
                    .map(ToOwned::to_owned)
                    .or_else(|| hosts::service(host).is_none().then(|| host.to_owned()));
            }
            other => {
                self.remarks.point(
                    &tls.at,
                    format!(
                        "this import doesn't know the TLS mode `{other}`: it writes TLS without a client certificate."
                    ),
                );
            }
        }
        let mut context = at_node.map(vec![
            (
                "@type",
                text("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
            ),
            ("common_tls_context", common),
        ]);
        context.put("sni", sni.map(|sni| text(&sni)));
        node.set(
            "transport_socket",
            at_node.map(vec![("name", text("envoy.transport_sockets.tls")), ("typed_config", context)]),
        );
    }

    /// Mutual TLS with the certificates of the mesh.
    fn mesh_tls(&mut self, host: &str, at: &FileLine, at_node: &Node, common: &mut Node) {
        let namespace = hosts::service(host).map(|(_, namespace)| namespace);
        common.set(
            "tls_certificates",
            certificates(at_node, &format!("{TLS}/tls.crt"), &format!("{TLS}/tls.key")),
        );
        let mut validation = at_node.map(vec![("trusted_ca", file(at_node, &format!("{TLS}/ca.crt")))]);
        let prefix = match namespace {
            Some(namespace) => format!("spiffe://cluster.local/ns/{namespace}/"),
            None => "spiffe://cluster.local/".to_owned(),
        };
        let matcher = at_node.map(vec![("prefix", at_node.scalar(&prefix))]);
        validation
            .set("match_typed_subject_alt_names", at_node.seq(vec![at_node.map(vec![("matcher", matcher)])]));
        common.set("validation_context", validation);
        self.remarks.soft(
            at,
            format!(
                "the mesh gave certificates: put tls.crt, tls.key and ca.crt into {TLS}, or take `spiffe: true`; `http://` calls without TLS."
            ),
        );
    }

    /// TLS with the files that the policy names.
    fn own_tls(&mut self, tls: &Node, mutual: bool, at_node: &Node, common: &mut Node) {
        if tls.get("credential_name").is_some() {
            self.remarks.point(
                &tls.at,
                "certificates of a Secret (`credentialName`) are not read: mount it, and give the files.",
            );
        }
        if mutual {
            match (tls.str("client_certificate"), tls.str("private_key")) {
                (Some(certificate), Some(key)) => {
                    common.set("tls_certificates", certificates(at_node, certificate, key));
                }
                _ => self.remarks.point(&tls.at, "the certificate of this client is not in a file: give `tls.certificate` and `tls.key`. Until then the peer refuses."),
            }
        }
        let mut validation = at_node.map(Vec::new());
        match tls.str("ca_certificates") {
            Some("system") | None => {
                validation.set("system_root_certs", at_node.map(vec![("any", at_node.scalar("true"))]));
            }
            Some(ca) => validation.set("trusted_ca", file(at_node, ca)),
        }
        let names = tls.list("subject_alt_names").iter().filter_map(Node::text);
        let names: Vec<Node> = names
            .map(|name| at_node.map(vec![("matcher", at_node.map(vec![("exact", at_node.scalar(name))]))]))
            .collect();
        if !names.is_empty() {
            validation.set("match_typed_subject_alt_names", at_node.seq(names));
        }
        common.set("validation_context", validation);
        if tls.is("insecure_skip_verify") {
            self.remarks
                .soft(&tls.at, "the peer's certificate is verified here (`insecureSkipVerify` is absent).");
        }
    }
}

/// A file, as Envoy names one.
fn file(at: &Node, name: &str) -> Node {
    at.map(vec![("filename", at.scalar(name))])
}

/// The list of one certificate with its key.
fn certificates(at: &Node, certificate: &str, key: &str) -> Node {
    at.seq(vec![at.map(vec![("certificate_chain", file(at, certificate)), ("private_key", file(at, key))])])
}
