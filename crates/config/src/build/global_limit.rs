//! A route's global rate limit: its service exists, and each action is one.

use super::Targets;
use crate::{
    diagnostic::Problems,
    model::{Descriptor, DescriptorAction, DescriptorKeys, GlobalRateLimit},
    section::Read,
    shapes::{At, OneOrMany},
};

pub(crate) fn global_limit(
    raw: Read<GlobalRateLimit>,
    targets: &mut Targets,
    problems: &mut Problems,
) -> Option<Box<GlobalRateLimit>> {
    let Read { section: mut limit, rest } = raw;
    let (service, at) = rest.service.map(|service| (service.value.0, service.at))?;
    let id = targets.find(&service, at, problems);
    if id.is_some_and(|id| targets.is_opaque(id)) {
        problems.wrong(at, "the service takes opaque bytes", "it speaks gRPC: `h2c://` or `https://`");
    }
    let descriptors = rest.descriptors.map(OneOrMany::into_vec).unwrap_or_default();
    limit.descriptors = descriptors.into_iter().filter_map(|raw| descriptor(raw.value, problems)).collect();
    if limit.descriptors.is_empty() {
        return None;
    }
    limit.service = id?;
    Some(Box::new(limit))
}

fn descriptor(raw: Read<Descriptor>, problems: &mut Problems) -> Option<Vec<DescriptorAction>> {
    let actions = raw.rest.actions.map(OneOrMany::into_vec).unwrap_or_default();
    let actions: Vec<_> = actions.into_iter().filter_map(|raw| action(raw, problems)).collect();
    (!actions.is_empty()).then_some(actions)
}

fn action(raw: At<DescriptorKeys>, problems: &mut Problems) -> Option<DescriptorAction> {
    let (given, keys) = raw.open();
    let mut named = [
        keys.remote_address.then_some(DescriptorAction::RemoteAddress),
        keys.destination_cluster.then_some(DescriptorAction::DestinationCluster),
        keys.client_identity.then_some(DescriptorAction::ClientIdentity),
        keys.route.then_some(DescriptorAction::Route),
        keys.path.then_some(DescriptorAction::Path),
        keys.method.then_some(DescriptorAction::Method),
        keys.generic_key.map(DescriptorAction::GenericKey),
        keys.request_headers.map(DescriptorAction::RequestHeader),
    ]
    .into_iter()
    .flatten();
    match (named.next(), named.next()) {
        (Some(action), None) => Some(action),
        (None, _) if !given.whole() => None,
        _ => {
            problems.wrong(
                given.at,
                "an action has exactly one key",
                "`remote_address: true`, `request_headers: { header_name: x-user }`, `generic_key: { descriptor_value: checkout }`, …",
            );
            None
        }
    }
}
