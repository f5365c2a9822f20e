//! A route's global rate limit: its service must exist, and each action must have exactly one key.

use super::Targets;
use crate::{
    diagnostic::Problems,
    model::{Descriptor, DescriptorAction, DescriptorKeys, GlobalRateLimit},
    section::ParsedSection,
    shapes::OneOrMany,
};

pub(crate) fn global_limit(
    raw: ParsedSection<GlobalRateLimit>,
    targets: &mut Targets,
    problems: &mut Problems,
) -> Option<Box<GlobalRateLimit>> {
    let ParsedSection { section: mut limit, rest } = raw;
    let (service, at) = rest.service.map(|service| (service.value.0, service.at))?;
    let id = targets.find(&service, at, problems);
    if id.is_some_and(|id| targets.is_opaque(id)) {
        problems.wrong(at, "the service takes opaque bytes", "it speaks gRPC: `h2c://` or `https://`");
    }
    let descriptors = rest.descriptors.map(OneOrMany::into_vec).unwrap_or_default();
    limit.descriptors = descriptors.into_iter().filter_map(descriptor).collect();
    if limit.descriptors.is_empty() {
        return None;
    }
    limit.service = id?;
    Some(Box::new(limit))
}

fn descriptor(raw: ParsedSection<Descriptor>) -> Option<Vec<DescriptorAction>> {
    let actions = raw.rest.actions.map(OneOrMany::into_vec).unwrap_or_default();
    let actions: Vec<_> = actions.into_iter().filter_map(action).collect();
    (!actions.is_empty()).then_some(actions)
}

/// The only one of its keys that is given.
fn action(keys: DescriptorKeys) -> Option<DescriptorAction> {
    let flags = [
        (keys.remote_address, DescriptorAction::RemoteAddress),
        (keys.destination_cluster, DescriptorAction::DestinationCluster),
        (keys.client_identity, DescriptorAction::ClientIdentity),
        (keys.route, DescriptorAction::Route),
        (keys.path, DescriptorAction::Path),
        (keys.method, DescriptorAction::Method),
    ];
    let flag = flags.into_iter().find_map(|(given, action)| given.then_some(action));
    let text = keys.generic_key.map(DescriptorAction::GenericKey);
    flag.or(text).or(keys.request_headers.map(DescriptorAction::RequestHeader))
}
