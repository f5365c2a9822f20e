//! The names of attache's containers, volumes and variables in a pod, and the syntax of names.

/// attache's container.
pub(crate) const NAME: &str = "attache";
/// The init container that redirects connections.
pub(crate) const INTERCEPT: &str = "attache-intercept";
/// The volume of the config.
pub(super) const CONFIG_VOLUME: &str = "attache-config";
/// The volume of certificates and keys.
pub(super) const TLS_VOLUME: &str = "attache-tls";
/// The volume of the SPIFFE Workload API.
pub(super) const SPIFFE_VOLUME: &str = "attache-spiffe";
/// The volume of the service account's token.
pub(super) const TOKEN_VOLUME: &str = "attache-token";
/// The volume for a newer program.
pub(super) const UPGRADE_VOLUME: &str = "attache-upgrade";
/// Names that no other volume of the pod may have.
pub(crate) const OWN_VOLUMES: [&str; 5] =
    [CONFIG_VOLUME, TLS_VOLUME, SPIFFE_VOLUME, TOKEN_VOLUME, UPGRADE_VOLUME];
/// Variables that attache's container always has, or that say what was rewritten.
pub(crate) const OWN_VARIABLES: [&str; 9] = [
    UPGRADE_VARIABLE,
    "POD_NAME",
    "POD_NAMESPACE",
    "POD_IP",
    "POD_SERVICE_ACCOUNT",
    "NODE_NAME",
    "HOST_IP",
    PROBES_VARIABLE,
    SPIFFE_VARIABLE,
];
/// SPIFFE's own name for the variable with the address of the Workload API.
pub(super) const SPIFFE_VARIABLE: &str = "SPIFFE_ENDPOINT_SOCKET";
/// The program in its image.
pub(super) const PROGRAM: &str = "/attache";
/// Where the config is in the container.
pub(crate) const CONFIG: &str = "/etc/attache";
/// Where certificates and keys are in the container.
pub(crate) const CERTS: &str = "/certs";
/// Where the SPIFFE Workload API is in the container.
pub(crate) const SPIFFE: &str = "/spiffe-workload-api";
/// Where a program looks for the service account's token.
pub(crate) const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The folder of a newer program.
pub(crate) const UPGRADE: &str = "/upgrade";
/// Names that folder to `attache run` and `attache upgrade`.
pub(super) const UPGRADE_VARIABLE: &str = "ATTACHE_UPGRADE_DIR";
/// Tells attache what the app's probes were.
pub const PROBES_VARIABLE: &str = "ATTACHE_APP_PROBES";

/// A DNS subdomain name (RFC 1123), as Kubernetes names objects.
pub(super) fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(inner)
        && !text.starts_with(['-', '.'])
        && !text.ends_with(['-', '.'])
}
