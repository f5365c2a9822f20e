//! Overload protection: its steps in their order.

use crate::{
    diagnostic::Problems,
    model::Overload,
    shapes::{At, OrOff},
};

pub(crate) fn overload(raw: OrOff<At<Overload>>, problems: &mut Problems) -> Option<Overload> {
    let OrOff::On(given) = raw else { return None };
    if given.value.shed_requests > given.value.stop_accepting {
        problems.wrong(
            given.key("stop_accepting").or(given.key("shed_requests")).unwrap_or_default(),
            "`shed_requests` comes after `stop_accepting`",
            "requests are shed first: set it lower",
        );
    }
    Some(given.value)
}
