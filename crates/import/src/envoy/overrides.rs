//! The settings of a route, its virtual host or its route configuration for a filter (`typed_per_filter_config`).

use crate::tree::Node;

use super::{rbac, words};

/// The settings of a route for a filter.
pub(super) enum RouteSettings<'n> {
    /// There are none.
    Unset,
    /// The filter is off.
    Off,
    /// The filter is on, with this config. Without one, it has its own config.
    On(Option<&'n Node>),
}

impl<'n> RouteSettings<'n> {
    /// The most specific level that names the filter. `FilterConfig` holds a config of the filter one level deeper.
    pub(super) fn of(filter: &str, kind: &str, levels: &[&'n Node]) -> Self {
        let Some(found) = levels.iter().find_map(|level| named(filter, level)) else { return Self::Unset };
        let wrapped = found.str("@type").is_some_and(|url| url.ends_with(".FilterConfig"));
        // Without a config it only enables the filter.
        let config = if wrapped { found.get("config").filter(|own| !own.is_empty()) } else { Some(found) };
        let off = |own: &Node| own.is("disabled");
        if off(found) || config.is_some_and(|own| off(own) || kind == "rbac" && rbac::is_off(own)) {
            return Self::Off;
        }
        Self::On(config)
    }
}

/// The settings under this filter's name. Envoy's own names have an old and a new spelling, which are equal.
fn named<'n>(filter: &str, level: &'n Node) -> Option<&'n Node> {
    let mut all =
        ["typed_per_filter_config", "per_filter_config"].iter().flat_map(|key| level.down(&[key]).entries());
    let given = |name: &str| name.strip_prefix("envoy.").map(|_| words::kind_of(name));
    all.find(|(name, _)| *name == filter || given(name).is_some() && given(name) == given(filter))
        .map(|(_, config)| config)
}
