//! Sidecars of other meshes that are already in the pod, or announced for it.
//!
//! If two proxies redirect a pod's connections, the connections go in circles, and most meshes listen on the same ports
//! as attache (Istio on 15001, 15006, 15020, 15090). The names of containers show a sidecar that is in the pod. The
//! pod's labels and annotations show one that will be added, and so does the CNI plugin that redirects in place of an
//! init container. A label of the namespace is not visible here. Sources: the names that each project documents for its
//! injector.

use serde_json::Value;

/// A mesh, and how a pod shows that it is in it.
pub(crate) struct KnownMesh {
    pub(crate) name: &'static str,
    containers: &'static [&'static str],
    /// Annotations and labels, with the values that announce a sidecar; without values, any value does.
    marks: &'static [(&'static str, &'static [&'static str])],
    /// An annotation or label that keeps the sidecar out, even if another one announces it.
    out: &'static [(&'static str, &'static [&'static str])],
    /// Its plugin's name in `k8s.v1.cni.cncf.io/networks`.
    cni: Option<&'static str>,
    /// It listens in the pod on ports of attache.
    pub(crate) has_our_ports: bool,
}

const ON: &[&str] = &["true", "enabled", "yes"];
const OFF: &[&str] = &["false", "disabled", "no"];

const MESHES: &[KnownMesh] = &[
    KnownMesh {
        name: "Istio",
        containers: &["istio-proxy", "istio-init", "istio-validation"],
        marks: &[
            ("sidecar.istio.io/status", &[]),
            ("sidecar.istio.io/inject", ON),
            ("istio.io/rev", &[]),
            ("istio.io/dataplane-mode", &["ambient"]),
            ("ambient.istio.io/redirection", &["enabled"]),
        ],
        out: &[("sidecar.istio.io/inject", OFF), ("istio.io/dataplane-mode", &["none"])],
        cni: Some("istio-cni"),
        has_our_ports: true,
    },
    KnownMesh {
        name: "Linkerd",
        containers: &["linkerd-proxy", "linkerd-init", "linkerd-network-validator"],
        marks: &[
            ("linkerd.io/inject", &["enabled", "ingress"]),
            ("linkerd.io/proxy-version", &[]),
            ("linkerd.io/control-plane-ns", &[]),
        ],
        out: &[("linkerd.io/inject", &["disabled"])],
        cni: Some("linkerd-cni"),
        has_our_ports: false,
    },
    KnownMesh {
        name: "Consul",
        containers: &["consul-dataplane", "consul-connect-inject-init", "consul-mesh-init"],
        marks: &[
            ("consul.hashicorp.com/connect-inject", ON),
            ("consul.hashicorp.com/connect-inject-status", &["injected"]),
            ("consul.hashicorp.com/mesh-inject-status", &["injected"]),
            ("consul.hashicorp.com/redirect-traffic-config", &[]),
        ],
        out: &[("consul.hashicorp.com/connect-inject", OFF)],
        cni: Some("consul-cni"),
        has_our_ports: true,
    },
    KnownMesh {
        name: "Kuma",
        containers: &["kuma-sidecar", "kuma-init", "kuma-validation"],
        marks: &[("kuma.io/sidecar-injection", ON), ("kuma.io/sidecar-injected", ON)],
        out: &[("kuma.io/sidecar-injection", OFF)],
        cni: Some("kuma-cni"),
        has_our_ports: true,
    },
    KnownMesh {
        name: "Open Service Mesh",
        containers: &["osm-init", "osm-healthcheck"],
        marks: &[("openservicemesh.io/sidecar-injection", ON), ("osm-proxy-uuid", &[])],
        out: &[("openservicemesh.io/sidecar-injection", OFF)],
        cni: None,
        has_our_ports: true,
    },
    KnownMesh {
        name: "AWS App Mesh",
        containers: &["proxyinit", "aws-appmesh-proxy-route-manager"],
        marks: &[
            ("appmesh.k8s.aws/sidecarInjectorWebhook", ON),
            ("appmesh.k8s.aws/virtualNode", &[]),
            ("appmesh.k8s.aws/appmeshCNI", ON),
        ],
        out: &[("appmesh.k8s.aws/sidecarInjectorWebhook", OFF)],
        cni: None,
        has_our_ports: true,
    },
    KnownMesh {
        name: "NGINX Service Mesh",
        containers: &["nginx-mesh-sidecar", "nginx-mesh-init"],
        marks: &[("injector.nsm.nginx.com/auto-inject", ON)],
        out: &[("injector.nsm.nginx.com/auto-inject", OFF)],
        cni: None,
        has_our_ports: false,
    },
];

/// The annotation by which Multus and others name a pod's networks.
const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";

/// The mesh of a pod (template), and the sign of it.
pub(crate) fn found(template: &Value) -> Option<(&'static KnownMesh, String)> {
    MESHES.iter().find_map(|mesh| Some((mesh, mesh.sign(template)?)))
}

impl KnownMesh {
    fn sign(&self, template: &Value) -> Option<String> {
        for kind in ["containers", "initContainers", "ephemeralContainers"] {
            let containers = template.pointer(&format!("/spec/{kind}")).and_then(Value::as_array);
            for container in containers.into_iter().flatten() {
                let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
                if self.containers.contains(&name) {
                    return Some(format!("the container `{name}`"));
                }
            }
        }
        let said = |(key, values): &(&'static str, &'static [&'static str])| {
            ["annotations", "labels"].into_iter().find_map(|kind| {
                let value = template.get("metadata")?.get(kind)?.get(key)?;
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let hit =
                    if values.is_empty() { !value.is_empty() } else { values.contains(&value.as_str()) };
                hit.then(|| format!("`{key}: {value}`"))
            })
        };
        if self.out.iter().any(|mark| said(mark).is_some()) {
            return None;
        }
        self.marks.iter().find_map(said).or_else(|| {
            let networks = template.get("metadata")?.get("annotations")?.get(NETWORKS)?.as_str()?;
            let named = |network: &str| {
                let name = network.rsplit('/').next().unwrap_or_default();
                name.split('@').next().map(str::trim) == self.cni
            };
            // Names separated by commas, or JSON.
            let json = self.cni.is_some_and(|cni| networks.contains(&format!("\"{cni}\"")));
            (json || networks.split(',').any(named)).then(|| format!("`{NETWORKS}: {networks}`"))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_mesh_is_known_by_its_containers_and_by_what_announces_it() {
        for (pod, name) in [
            (json!({"spec": {"containers": [{"name": "a"}, {"name": "istio-proxy"}]}}), "Istio"),
            (json!({"spec": {"initContainers": [{"name": "linkerd-proxy"}]}}), "Linkerd"),
            (json!({"metadata": {"labels": {"sidecar.istio.io/inject": "true"}}}), "Istio"),
            (json!({"metadata": {"labels": {"istio.io/rev": "1-24"}}}), "Istio"),
            (json!({"metadata": {"annotations": {"linkerd.io/inject": "enabled"}}}), "Linkerd"),
            (
                json!({"metadata": {"annotations": {"k8s.v1.cni.cncf.io/networks": "a, default/istio-cni"}}}),
                "Istio",
            ),
            (
                json!({"metadata": {"annotations": {"k8s.v1.cni.cncf.io/networks": "[{\"name\": \"linkerd-cni\"}]"}}}),
                "Linkerd",
            ),
            (json!({"metadata": {"annotations": {"kuma.io/sidecar-injection": true}}}), "Kuma"),
        ] {
            assert_eq!(found(&pod).map(|(mesh, _)| mesh.name), Some(name), "{pod}");
        }
    }

    #[test]
    fn a_pod_that_opts_out_of_a_mesh_is_not_in_it() {
        for pod in [
            json!({}),
            json!({"spec": {"containers": [{"name": "envoy"}]}}),
            json!({"metadata": {"labels": {"sidecar.istio.io/inject": "false", "istio.io/rev": "1-24"}}}),
            json!({"metadata": {"annotations": {"linkerd.io/inject": "disabled"}}}),
            json!({"metadata": {"annotations": {"k8s.v1.cni.cncf.io/networks": "macvlan-conf"}}}),
        ] {
            assert!(found(&pod).is_none(), "{pod}");
        }
    }
}
