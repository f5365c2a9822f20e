//! What protects from load, as the file would write it.

use serde_json::{Value, json};

use super::route::name;
use crate::{
    model::{AdaptiveConcurrency, Config, DescriptorAction, GlobalRateLimit, Overload, Queue},
    text::{show_duration, show_ratio, show_size},
};

pub(super) fn adaptive_concurrency(adaptive: &AdaptiveConcurrency) -> Value {
    let min_rtt = &adaptive.min_rtt;
    json!({
        "sample_aggregate_percentile": show_ratio(adaptive.sample_aggregate_percentile),
        "max_concurrency_limit": adaptive.max_concurrency_limit,
        "concurrency_update_interval": show_duration(adaptive.concurrency_update_interval),
        "min_rtt": {
            "interval": show_duration(min_rtt.interval),
            "jitter": show_ratio(min_rtt.jitter),
            "request_count": min_rtt.request_count,
            "min_concurrency": min_rtt.min_concurrency,
            "buffer": show_ratio(min_rtt.buffer),
            "fixed_value": min_rtt.fixed_value.map(show_duration),
        },
    })
}

pub(super) fn queue(queue: &Queue) -> Value {
    json!({
        "max": queue.max,
        "target": show_duration(queue.target),
        "interval": show_duration(queue.interval),
        "priority_header": queue.priority_header.as_str(),
    })
}

pub(super) fn overload(overload: &Overload) -> Value {
    json!({
        "memory_limit": overload.memory_limit.map(|limit| show_size(limit as u64)),
        "cgroup": overload.cgroup.as_ref().map(|path| path.display().to_string()),
        "disable_keepalive": show_ratio(overload.disable_keepalive),
        "shed_requests": show_ratio(overload.shed_requests),
        "stop_accepting": show_ratio(overload.stop_accepting),
        "priority_header": overload.priority_header.as_str(),
    })
}

pub(super) fn global_rate_limit(limit: &GlobalRateLimit, config: &Config) -> Value {
    let descriptor = |actions: &Vec<DescriptorAction>| json!({ "actions": actions.iter().map(action).collect::<Vec<_>>() });
    json!({
        "service": name(limit.service, config),
        "domain": &*limit.domain,
        "timeout": show_duration(limit.timeout),
        "failure_mode": limit.failure_mode,
        "hits_addend": limit.hits_addend,
        "descriptors": limit.descriptors.iter().map(descriptor).collect::<Vec<_>>(),
    })
}

fn action(action: &DescriptorAction) -> Value {
    match action {
        DescriptorAction::RemoteAddress => json!({ "remote_address": true }),
        DescriptorAction::DestinationCluster => json!({ "destination_cluster": true }),
        DescriptorAction::ClientIdentity => json!({ "client_identity": true }),
        DescriptorAction::Route => json!({ "route": true }),
        DescriptorAction::Path => json!({ "path": true }),
        DescriptorAction::Method => json!({ "method": true }),
        DescriptorAction::GenericKey { key, value } => {
            json!({ "generic_key": { "descriptor_key": &**key, "descriptor_value": &**value } })
        }
        DescriptorAction::RequestHeader { header, key, skip_if_absent } => json!({ "request_headers": {
            "header_name": header.as_str(),
            "descriptor_key": &**key,
            "skip_if_absent": skip_if_absent,
        } }),
    }
}
