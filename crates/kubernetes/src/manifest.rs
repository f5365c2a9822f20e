//! The objects that register the webhook at an API server, with comments that explain every choice.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::emit::Style;

/// Where the webhook runs, and which authority signs its certificate.
#[derive(Clone, Debug)]
pub struct WebhookManifest {
    /// Its Service.
    pub service: String,
    /// Its namespace.
    pub namespace: String,
    /// The authority of its certificate.
    pub trust: WebhookTrust,
    /// While the webhook is not available, no pod can be created (`Fail`); otherwise pods are created without attache
    /// (`Ignore`).
    pub fail: bool,
    /// Every namespace except those that opt out; otherwise only those that opt in.
    pub every_namespace: bool,
}

/// The authority of the webhook's certificate.
#[derive(Clone, Debug)]
pub enum WebhookTrust {
    /// A certificate authority, PEM.
    Bundle(String),
    /// cert-manager adds the authority: `NAMESPACE/NAME` of its Certificate.
    CertManager(String),
}

impl WebhookManifest {
    fn webhook(&self, name: &str, namespaces: Value, pods: Value, client: &Value) -> Value {
        let system = ["kube-system", "kube-node-lease", self.namespace.as_str()];
        let not_system = json!({"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": system});
        json!({
            "name": name,
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": if self.fail { "Fail" } else { "Ignore" },
            "reinvocationPolicy": "IfNeeded",
            "timeoutSeconds": 5,
            "rules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"],
                "scope": "Namespaced",
            }],
            "namespaceSelector": {"matchExpressions": [not_system, namespaces]},
            "objectSelector": {"matchExpressions": [pods]},
            "clientConfig": client,
        })
    }

    /// The `MutatingWebhookConfiguration`, as YAML.
    pub fn configuration(&self) -> String {
        let mut metadata = json!({"name": "attache"});
        let mut client = json!({
            "service": {"name": self.service, "namespace": self.namespace, "path": "/mutate", "port": 443},
        });
        match &self.trust {
            WebhookTrust::Bundle(pem) => client["caBundle"] = STANDARD.encode(pem).into(),
            WebhookTrust::CertManager(certificate) => {
                metadata["annotations"] = json!({"cert-manager.io/inject-ca-from": certificate});
            }
        }
        let label = |operator: &str, values: &[&str]| {
            let mut rule = json!({"key": "attache.dev/inject", "operator": operator});
            if !values.is_empty() {
                rule["values"] = values.into();
            }
            rule
        };
        let (yes, no) = (["true", "enabled"], ["false", "disabled"]);
        let chosen = if self.every_namespace { label("NotIn", &no) } else { label("In", &yes) };
        let mut webhooks = vec![self.webhook("inject.attache.dev", chosen, label("NotIn", &no), &client)];
        if !self.every_namespace {
            let (namespaces, pods) = (label("DoesNotExist", &[]), label("In", &yes));
            webhooks.push(self.webhook("pod.inject.attache.dev", namespaces, pods, &client));
        }
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": metadata,
            "webhooks": webhooks,
        });
        let namespaces = if self.every_namespace {
            "# Every namespace but those labelled attache.dev/inject=false, and never those of the cluster itself or of the webhook:\n# it must be able to start when the webhook doesn't run."
        } else {
            "# Only namespaces labelled attache.dev/inject=true, and pods with that label in namespaces without it (the second entry); never those\n# of the cluster itself or of the webhook:\n# it must be able to start when the webhook doesn't run."
        };
        let failure = if self.fail {
            "# failurePolicy Fail: while the webhook can't be asked, no pod is created in those namespaces. Ignore would create them\n# without attache, silently."
        } else {
            "# failurePolicy Ignore: while the webhook can't be asked, pods are created without attache, silently. Fail would create\n# none in those namespaces."
        };
        let style = Style::default();
        format!(
            "{namespaces}\n# A pod opts out with the label attache.dev/inject=false (then the webhook isn't even asked) or an annotation of that name.\n{failure}\n{}",
            style.document(&configuration)
        )
    }
}
