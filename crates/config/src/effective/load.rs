//! What protects from load, as the file would write it.

use serde_json::{Value, json};

use super::parts::name;
use crate::{
    model::{Config, DescriptorAction, GlobalRateLimit},
    text::show_duration,
};

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
