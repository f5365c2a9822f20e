//! Filters that decide which requests pass and can't be carried over, such as those that run code.

use crate::gate::Gate;
use crate::plan::PlannedListener;
use crate::remark::Remarks;
use crate::tree::{FileLine, Node};

use super::{rbac, words};

/// Guards of HTTP that can't be carried over, and what to do about each.
const CLOSED: &[(&str, &str)] = &[
    (
        words::DISCOVERED,
        "a filter gets its config from a control plane (`config_discovery`), and may be a guard. Give it a `typed_config`; import again.",
    ),
    (
        "lua",
        "a Lua script ran before this route, and may be a guard. Write it as `match`, `headers` or `rewrite`; then replace the refusal.",
    ),
    (
        "wasm",
        "a Wasm module ran before this route. Do its work in the application or behind it; then replace the refusal.",
    ),
    (
        "golang",
        "a Go plugin ran before this route. Do its work in the application; then replace the refusal.",
    ),
    (
        "dynamic_modules",
        "a module of code ran before this route. Do its work in the application; then replace the refusal.",
    ),
    (
        "ext_proc",
        "an external processor (`ext_proc`) could change or refuse requests here. Do its work in the application; then replace the refusal.",
    ),
    (
        "external_processor",
        "an external processor (`ext_proc`) could change or refuse requests here. Do its work in the application; then replace the refusal.",
    ),
    (
        "oauth2",
        "users had to log in with OAuth2 here. Put an authenticating proxy in front; then replace the refusal.",
    ),
    (
        "basic_auth",
        "basic authentication was required here. Let the application require it; then replace the refusal.",
    ),
    (
        "api_key_auth",
        "API keys were checked here. Let the application check them, or match the key's header; then replace the refusal.",
    ),
    (
        "csrf",
        "this filter checks `Origin` against CSRF. Let the application check it; then replace the refusal.",
    ),
    (
        "csrf_policy",
        "this filter checks `Origin` against CSRF. Let the application check it; then replace the refusal.",
    ),
    (
        "ip_tagging",
        "this filter sets tags by the client's address, and later conditions may read them. Write the conditions with `client`; then replace the refusal.",
    ),
    (
        "geoip",
        "this filter sets headers by the client's location, and later conditions may read them. Do this in the application; then replace the refusal.",
    ),
    (
        "credential_injector",
        "this filter adds a credential to requests. Use `credential` of the upstream, which reads it from a file; then replace the refusal.",
    ),
    (
        "gcp_authn",
        "this filter adds tokens of Google Cloud to requests. Use `credential: { bearer: { file: … } }`, which reads a token from a file; then replace the refusal.",
    ),
    (
        "aws_request_signing",
        "this filter signs requests for AWS, which attache can't do. Use a signing proxy; then replace the refusal.",
    ),
    ("aws_lambda", "this filter turns requests into calls of AWS Lambda, which attache can't do."),
    (
        "rate_limit_quota",
        "this filter asks a service for quotas. Use `global_rate_limit` with a service that speaks `envoy.service.ratelimit.v3`; then replace the refusal.",
    ),
    ("composite", "the request chose a filter here. Write each case as a route; then replace the refusal."),
    ("squash", "a debugger stopped requests here."),
];

/// The gate of an HTTP filter that can't be carried over. `None` if it isn't one of those.
pub(crate) fn closed(kind: &str, filter: &Node) -> Option<Gate> {
    let (_, why) = CLOSED.iter().find(|(name, _)| *name == kind)?;
    (!why.is_empty()).then(|| Gate::closed(&filter.at, *why))
}

/// Reads a network filter before the last one. Returns the reason if everything behind it must be refused.
pub(crate) fn network(
    filter: &Node,
    listener: &mut PlannedListener,
    remarks: &mut Remarks,
) -> Option<(FileLine, String)> {
    let kind = words::extension(filter);
    let config = words::config(filter);
    let at = &filter.at;
    match kind.as_str() {
        "mongo_proxy" | "mysql_proxy" | "my_s_q_l_proxy" | "postgres_proxy" | "zookeeper_proxy"
        | "zoo_keeper_proxy" | "kafka_broker" | "kafka_mesh" => {
            filter.skip();
            remarks.soft(
                at,
                format!("`{kind}` only collected statistics of its protocol; attache passes the bytes on without them."),
            );
            None
        }
        "connection_limit" => {
            match config.number("max_connections") {
                Some(most) => listener.keys.set("max_connections", most as u64),
                None => remarks.soft(at, "the connection limit has no number."),
            }
            None
        }
        "sni_cluster" | "sni_dynamic_forward_proxy" | "set_filter_state" | "match_delegate" => Some((
            at.clone(),
            format!(
                "the network filter `{kind}` chose where connections go; write an upstream for each name, and routes with `sni`"
            ),
        )),
        "local_ratelimit" => {
            remarks.point(
                at,
                "connections are not limited by rate; `max_connections` limits how many are open.",
            );
            None
        }
        "rbac" => rbac::network_filter(config, at, listener),
        _ => Some((
            at.clone(),
            format!("the network filter `{kind}`, which attache lacks, decided about these connections"),
        )),
    }
}
