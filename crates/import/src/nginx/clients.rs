//! `allow` and `deny`: the first line that matches the client's address decides; other clients pass.

use super::{NginxImport, scope::LocationScope, tokens::Directive};
use crate::access::{self, AccessEffect, AnyOf, ImportedAccess};

/// The list of the innermost level that has one: nginx ignores the lists of the outer levels.
pub(super) fn list(scope: &LocationScope<'_>, cx: &NginxImport) -> Vec<Directive> {
    let rules = |all: &[Directive]| -> Vec<Directive> {
        all.iter().filter(|one| matches!(one.name(), "allow" | "deny")).cloned().collect()
    };
    let levels = scope.chain.iter().map(|block| block.inner()).chain([cx.http.as_slice()]);
    levels.map(rules).find(|all| !all.is_empty()).unwrap_or_default()
}

/// The list as `authorization`. `None` if attache can't express it.
pub(super) fn said(list: &[Directive]) -> Option<AccessEffect> {
    let (mut allowed, mut denied): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    let (mut allow, mut deny): (AnyOf, AnyOf) = (AnyOf::new(), AnyOf::new());
    for one in list {
        let allows = one.name() == "allow";
        if one.word(1) == "all" {
            let named = |rules: AnyOf| {
                rules.into_iter().map(|rule| ("addresses".to_owned(), rule)).collect::<Vec<_>>()
            };
            return Some(match allows {
                true => access::deny(&named(deny)),
                false if allow.is_empty() => AccessEffect::Shut,
                false => access::allow(&named(allow)),
            });
        }
        let network = network(one.word(1))?;
        let own = vec![ImportedAccess::list("client", vec![network.clone()])];
        let (before, into, seen) =
            if allows { (&denied, &mut allow, &mut allowed) } else { (&allowed, &mut deny, &mut denied) };
        let rule = if before.is_empty() {
            own
        } else {
            access::both(&own, &access::not(&vec![ImportedAccess::list("client", before.clone())])?)?
        };
        into.extend(rule);
        seen.push(network);
    }
    let named: Vec<_> = deny.into_iter().map(|rule| ("addresses".to_owned(), rule)).collect();
    Some(access::deny(&named))
}

fn network(text: &str) -> Option<String> {
    match text.split_once('/') {
        Some((address, length)) => crate::text::network(address, length.parse().ok()?),
        None => text.parse::<std::net::IpAddr>().ok().map(|address| address.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::PlannedListener;

    fn keys(text: &str) -> String {
        let list = super::super::tokens::parse(text, "nginx.conf").unwrap_or_default();
        match said(&list) {
            None => "untranslatable".to_owned(),
            Some(AccessEffect::Open) => "open".to_owned(),
            Some(AccessEffect::Shut) => "shut".to_owned(),
            Some(AccessEffect::Keys(keys)) => {
                let mut listener = PlannedListener::default();
                listener.keys.set("authorization", keys);
                format!("{:?}", listener.keys)
            }
        }
    }

    #[test]
    fn the_first_that_has_an_address_decides() {
        assert_eq!(keys("deny all;"), "shut");
        assert_eq!(keys("allow all; deny 10.0.0.1;"), "open");
        assert_eq!(keys("allow 10.0.0.1;"), "open");
        assert_eq!(keys("allow unix:; deny all;"), "untranslatable");
        let text = keys("deny 10.0.0.1; allow 10.1.2.3/8; deny all;");
        assert!(text.contains("allow") && text.contains("10.0.0.0/8") && text.contains("not"), "{text}");
        let text = keys("allow 10.0.0.1; deny 10.0.0.0/8;");
        assert!(text.contains("deny") && text.contains("not"), "{text}");
    }
}
