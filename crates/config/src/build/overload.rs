//! Overload protection: its steps in their order.

use crate::{
    diagnostic::Problems,
    model::Overload,
    shapes::{OrOff, Spanned},
};

pub(crate) fn overload(raw: OrOff<Spanned<Overload>>, problems: &mut Problems) -> Option<Overload> {
    let OrOff::On(given) = raw else { return None };
    if given.value.shed_requests > given.value.stop_accepting {
        problems.wrong(
            given.key("stop_accepting").or(given.key("shed_requests")).unwrap_or_default(),
            "`shed_requests` is higher than `stop_accepting`",
            "requests are shed before the listener stops accepting: set it lower than `stop_accepting`",
        );
    }
    Some(given.value)
}
