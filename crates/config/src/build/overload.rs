//! Overload protection: its steps in their order.

use super::fill;
use crate::{
    diagnostic::Problems,
    model::Overload,
    raw::{self, OrOff},
};

pub(crate) fn overload(raw: Option<OrOff<raw::Overload>>, problems: &mut Problems) -> Option<Overload> {
    let mut overload = Overload::default();
    let raw = match raw {
        None => return Some(overload),
        Some(OrOff::Off(_)) => return None,
        Some(OrOff::On(raw)) => raw,
    };
    let (shed, stop) = (raw.shed_requests.as_ref().map(|x| x.at), raw.stop_accepting.as_ref().map(|x| x.at));
    fill!(overload, raw, disable_keepalive, shed_requests, stop_accepting);
    overload.memory_limit = raw.memory_limit.map(|limit| limit.0.0);
    overload.cgroup = raw.cgroup.map(|path| path.0.0);
    if let Some(header) = raw.priority_header {
        overload.priority_header = header.0.0;
    }
    let at = stop.or(shed).unwrap_or_default();
    if overload.shed_requests > overload.stop_accepting {
        problems.wrong(
            at,
            "`shed_requests` comes after `stop_accepting`",
            "requests are shed first: set it lower",
        );
    }
    Some(overload)
}
