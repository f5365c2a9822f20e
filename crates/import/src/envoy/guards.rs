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
        "OAuth2 logged users in here. Put an authenticating proxy in front; then replace the refusal.",
    ),
    (
        "basic_auth",
        "basic authentication stood here. Let the application ask for it; then replace the refusal.",
    ),
    (
        "api_key_auth",
        "API keys were checked here. Let the application check them, or match the key's header; then replace the refusal.",
    ),
    ("csrf", "a CSRF check of `Origin` stood here. Let the application check it; then replace the refusal."),
    (
        "csrf_policy",
        "a CSRF check of `Origin` stood here. Let the application check it; then replace the refusal.",
    ),
    (
        "ip_tagging",
        "tags by client address were set here, which later conditions may read. Then replace the refusal.",
    ),
    (
        "geoip",
        "headers by the client's place were set here, which later conditions may read. Then replace the refusal.",
    ),
    (
        "credential_injector",
        "a credential was put into requests here: `credential` of the upstream gives them a secret from a file; then replace the refusal.",
    ),
    (
        "gcp_authn",
        "tokens of Google Cloud were put into requests here. `credential: { bearer: { file: … } }` sends one from a file; then replace the refusal.",
    ),
    (
        "aws_request_signing",
        "requests were signed for AWS here, which attache can't: use a signing proxy; then replace the refusal.",
    ),
    ("aws_lambda", "requests were made calls of AWS Lambda here, which attache can't."),
    (
        "rate_limit_quota",
        "quotas of a service were kept here: `global_rate_limit` asks one that speaks `envoy.service.ratelimit.v3`; then replace the refusal.",
    ),
    (
        "composite",
        "a filter was chosen by the request here; write each case as a route; then replace the refusal.",
    ),
    ("squash", "a debugger held requests here."),
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
                format!("`{kind}` only counted what it saw of its protocol; the bytes pass as before."),
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
            format!("the network filter `{kind}` decided about these connections, and is absent"),
        )),
    }
}
