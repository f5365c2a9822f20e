//! `overload:`

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, Txt};
use crate::{
    model,
    text::{File, HeaderText, Ratio, Size, show_ratio},
};

fn overload() -> model::Overload {
    model::Overload::default()
}

/// What is done when the container's memory or the file descriptors run out. Each share is of the limit; an action ends when 5 points less
/// are in use.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`overload`")]
pub(crate) struct Overload {
    /// Memory that may be used. By default the container's own limit (cgroup v2 or v1); without one, memory is not looked at.
    #[schemars(extend("examples" = ["256MiB"]))]
    pub(crate) memory_limit: Option<Txt<Size>>,
    /// The folder of the control group whose memory counts. By default that of the process, or the next above it that has a limit.
    #[schemars(extend("examples" = ["/sys/fs/cgroup"]))]
    pub(crate) cgroup: Option<Txt<File>>,
    /// Connections are closed after their answer, and idle ones at once, those to upstreams as well.
    #[schemars(extend("default" = show_ratio(overload().disable_keepalive)))]
    pub(crate) disable_keepalive: Option<Txt<Ratio>>,
    /// New requests are answered 503 `overloaded`: the least urgent first, and all of them at `stop_accepting`.
    #[schemars(extend("default" = show_ratio(overload().shed_requests)))]
    pub(crate) shed_requests: Option<At<Txt<Ratio>>>,
    /// No connection is accepted; those that come wait in the kernel's queue.
    #[schemars(extend("default" = show_ratio(overload().stop_accepting)))]
    pub(crate) stop_accepting: Option<At<Txt<Ratio>>>,
    /// The header in which a request says how urgent it is: `u=0` (first) to `u=7` (last) as in RFC 9218, or the number alone. Without it, 3.
    #[schemars(extend("default" = overload().priority_header.as_str()))]
    pub(crate) priority_header: Option<Txt<HeaderText>>,
}
