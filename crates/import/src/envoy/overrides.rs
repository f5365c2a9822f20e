//! What a route, its virtual host or its configuration says of a filter (`typed_per_filter_config`).

use crate::tree::Node;

use super::{rbac, words};

/// What a route says of a filter.
pub(super) enum Own<'n> {
    /// Nothing.
    Unsaid,
    /// It is off.
    Off,
    /// It is on, with this config, or with the filter's.
    On(Option<&'n Node>),
}

impl<'n> Own<'n> {
    /// The most specific level that names the filter. `FilterConfig` holds a config of the filter one level deeper.
    pub(super) fn of(filter: &str, kind: &str, levels: &[&'n Node]) -> Self {
        let Some(found) = levels.iter().find_map(|level| named(filter, level)) else { return Self::Unsaid };
        let wrapped = found.str("@type").is_some_and(|url| url.ends_with(".FilterConfig"));
        // One that only says that the filter is on leaves it as it is.
        let config = if wrapped { found.get("config").filter(|own| !own.is_empty()) } else { Some(found) };
        let off = |own: &Node| own.is("disabled");
        if off(found) || config.is_some_and(|own| off(own) || kind == "rbac" && rbac::is_off(own)) {
            return Self::Off;
        }
        Self::On(config)
    }
}

/// Names of filters are compared as they are; those that Envoy itself gave them have an old and a new spelling.
fn named<'n>(filter: &str, level: &'n Node) -> Option<&'n Node> {
    let mut all =
        ["typed_per_filter_config", "per_filter_config"].iter().flat_map(|key| level.down(&[key]).entries());
    let given = |name: &str| name.strip_prefix("envoy.").map(|_| words::kind_of(name));
    all.find(|(name, _)| *name == filter || given(name).is_some() && given(name) == given(filter))
        .map(|(_, config)| config)
}
