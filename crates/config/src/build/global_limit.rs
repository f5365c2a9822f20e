//! A route's global rate limit: its service exists, and each action is one.

use super::Targets;
use crate::{
    diagnostic::Problems,
    model::{DescriptorAction, FailureMode, GlobalRateLimit},
    raw::{self, At},
};

pub(crate) fn global_limit(
    raw: raw::GlobalRateLimit,
    targets: &mut Targets,
    problems: &mut Problems,
) -> Option<Box<GlobalRateLimit>> {
    let service = targets.find(&raw.service.value.0.0, raw.service.at, problems);
    if service.is_some_and(|service| targets.is_opaque(service)) {
        problems.wrong(
            raw.service.at,
            "the service takes opaque bytes",
            "it speaks gRPC: `h2c://` or `https://`",
        );
    }
    let descriptors: Vec<_> =
        raw.descriptors.into_vec().into_iter().filter_map(|d| descriptor(d, problems)).collect();
    if descriptors.is_empty() {
        return None;
    }
    let mut limit = GlobalRateLimit {
        service: service?,
        domain: raw.domain.0.0,
        timeout: GlobalRateLimit::TIMEOUT,
        failure_mode: FailureMode::default(),
        hits_addend: GlobalRateLimit::HITS_ADDEND,
        descriptors,
    };
    let (timeout, hits) = (raw.timeout, raw.hits_addend);
    if let Some(timeout) = timeout {
        limit.timeout = timeout.0.0;
    }
    limit.hits_addend = hits.unwrap_or(limit.hits_addend);
    limit.failure_mode = raw.failure_mode.unwrap_or_default();
    Some(Box::new(limit))
}

fn descriptor(raw: At<raw::Descriptor>, problems: &mut Problems) -> Option<Vec<DescriptorAction>> {
    let actions: Vec<_> =
        raw.value.actions.into_vec().into_iter().filter_map(|a| action(a, problems)).collect();
    (!actions.is_empty()).then_some(actions)
}

fn action(raw: At<raw::DescriptorAction>, problems: &mut Problems) -> Option<DescriptorAction> {
    let whole = raw.whole();
    let At { at, value: raw, .. } = raw;
    let word = |given: Option<bool>, action| given.filter(|given| *given).map(|_| action);
    let generic = raw.generic_key.map(|generic| DescriptorAction::GenericKey {
        key: generic.descriptor_key.map_or_else(|| "generic_key".into(), |key| key.0.0),
        value: generic.descriptor_value.0.0,
    });
    let header = raw.request_headers.map(|raw| {
        let header = raw.header_name.0.0;
        let key = raw.descriptor_key.map_or_else(|| header.as_str().into(), |key| key.0.0);
        DescriptorAction::RequestHeader { header, key, skip_if_absent: raw.skip_if_absent.unwrap_or(false) }
    });
    let mut given = [
        word(raw.remote_address, DescriptorAction::RemoteAddress),
        word(raw.destination_cluster, DescriptorAction::DestinationCluster),
        word(raw.client_identity, DescriptorAction::ClientIdentity),
        word(raw.route, DescriptorAction::Route),
        word(raw.path, DescriptorAction::Path),
        word(raw.method, DescriptorAction::Method),
        generic,
        header,
    ]
    .into_iter()
    .flatten();
    match (given.next(), given.next()) {
        (Some(action), None) => Some(action),
        (None, _) if !whole => None,
        _ => {
            problems.wrong(
                at,
                "an action is exactly one thing",
                "`remote_address: true`, `request_headers: { header_name: x-user }`, `generic_key: { descriptor_value: checkout }`, …",
            );
            None
        }
    }
}
