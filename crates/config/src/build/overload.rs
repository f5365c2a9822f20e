//! Overload protection: its steps in their order.

use crate::{
    diagnostic::Problems,
    model::Overload,
    raw::{At, OrOff},
};

pub(crate) fn overload(raw: Option<OrOff<At<Overload>>>, problems: &mut Problems) -> Option<Overload> {
    let given = match raw {
        None => return Some(Overload::default()),
        Some(OrOff::Off(_)) => return None,
        Some(OrOff::On(given)) => given,
    };
    if given.value.shed_requests > given.value.stop_accepting {
        problems.wrong(
            given.key("stop_accepting").or(given.key("shed_requests")).unwrap_or_default(),
            "`shed_requests` comes after `stop_accepting`",
            "requests are shed first: set it lower",
        );
    }
    Some(given.value)
}
