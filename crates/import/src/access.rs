//! Access rules of other proxies become rules of attache's `authorization`.
//!
//! A rule is a conjunction: every key must hold, one value of each list must match, and nothing in `not` may match. A condition with
//! `and`, `or` and `not` at any depth becomes a list of such rules (a disjunction of conjunctions), or can't be expressed.

use crate::value::{ConfigValue, YamlMap};

/// The largest number of rules that one policy may become.
const MAX_RULES: usize = 64;

/// One side of a rule: what must hold, or what must not.
#[derive(Clone, Debug, Default, PartialEq)]
struct RuleSide {
    /// Keys with a list of values, of which one must hold.
    lists: Vec<(&'static str, Vec<String>)>,
    /// Headers and claims, by the key that they stand under.
    named: Vec<(&'static str, String, Vec<String>)>,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ImportedAccess {
    when: RuleSide,
    not: RuleSide,
}

/// Rules of which at least one must hold.
pub(crate) type AnyOf = Vec<ImportedAccess>;

impl ImportedAccess {
    /// A condition on a key with values, of which one must hold.
    pub(crate) fn list(key: &'static str, values: Vec<String>) -> Self {
        let when = RuleSide { lists: vec![(key, values)], named: Vec::new() };
        Self { when, not: RuleSide::default() }
    }

    /// A condition on a header or claim.
    pub(crate) fn named(key: &'static str, name: impl Into<String>, values: Vec<String>) -> Self {
        let when = RuleSide { lists: Vec::new(), named: vec![(key, name.into(), values)] };
        Self { when, not: RuleSide::default() }
    }

    /// The rule has no condition, so it always holds.
    pub(crate) fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// The rule has a condition on this key, whether it must hold or must not hold.
    pub(crate) fn asks(&self, key: &str) -> bool {
        self.needs(key) || self.excludes(key)
    }

    /// The rule has a condition on this key that must hold.
    pub(crate) fn needs(&self, key: &str) -> bool {
        self.when.has(key)
    }

    /// The rule has a condition on this key that must not hold.
    pub(crate) fn excludes(&self, key: &str) -> bool {
        self.not.has(key)
    }

    /// The rule in attache's keys.
    pub(crate) fn map(&self, name: Option<&str>) -> YamlMap {
        let mut map = YamlMap::default();
        map.put("name", name);
        self.when.write(&mut map);
        let mut not = YamlMap::default();
        self.not.write(&mut not);
        if !not.is_empty() {
            map.set("not", not);
        }
        map
    }

    /// The negation of the rule: rules of which at least one must hold.
    fn negated(&self) -> AnyOf {
        let mut out = Vec::new();
        for single in self.when.singles() {
            out.push(Self { when: RuleSide::default(), not: single });
        }
        for single in self.not.singles() {
            out.push(Self { when: single, not: RuleSide::default() });
        }
        out
    }

    /// The rule that holds if both hold. `Some(None)`: no request meets both. `None`: one rule can't express both.
    #[allow(clippy::option_option)]
    fn and(&self, other: &Self) -> Option<Option<Self>> {
        let mut out = self.clone();
        for (key, values) in &other.when.lists {
            match out.when.lists.iter_mut().find(|(known, _)| known == key) {
                None => out.when.lists.push((key, values.clone())),
                Some((_, known)) => {
                    if !narrow(known, values)? {
                        return Some(None);
                    }
                }
            }
        }
        for (key, name, values) in &other.when.named {
            match out.when.named.iter_mut().find(|(known, own, _)| known == key && own == name) {
                None => out.when.named.push((key, name.clone(), values.clone())),
                Some((_, _, known)) => {
                    // Several values of a header or claim may hold at once.
                    if known != values {
                        return None;
                    }
                }
            }
        }
        for (key, values) in &other.not.lists {
            match out.not.lists.iter_mut().find(|(known, _)| known == key) {
                None => out.not.lists.push((key, values.clone())),
                Some((_, known)) => add(known, values),
            }
        }
        for (key, name, values) in &other.not.named {
            match out.not.named.iter_mut().find(|(known, own, _)| known == key && own == name) {
                None => out.not.named.push((key, name.clone(), values.clone())),
                Some((_, _, known)) => add(known, values),
            }
        }
        Some(Some(out))
    }
}

fn add(known: &mut Vec<String>, values: &[String]) {
    for value in values {
        if !known.contains(value) {
            known.push(value.clone());
        }
    }
}

/// Keeps the values that both lists have. `None` if patterns would have to be compared; false if no value is left.
fn narrow(known: &mut Vec<String>, values: &[String]) -> Option<bool> {
    if known == values {
        return Some(true);
    }
    let exact = |list: &[String]| list.iter().all(|value| !value.contains(['*', '~', '/', '!', '{']));
    if !exact(known) || !exact(values) {
        return None;
    }
    known.retain(|value| values.contains(value));
    Some(!known.is_empty())
}

impl RuleSide {
    fn has(&self, key: &str) -> bool {
        self.lists.iter().any(|(known, _)| *known == key)
            || self.named.iter().any(|(known, ..)| *known == key)
    }

    fn singles(&self) -> Vec<Self> {
        let lists = self.lists.iter().map(|list| Self { lists: vec![list.clone()], named: Vec::new() });
        let named = self.named.iter().map(|named| Self { lists: Vec::new(), named: vec![named.clone()] });
        lists.chain(named).collect()
    }

    fn write(&self, map: &mut YamlMap) {
        for (key, values) in &self.lists {
            if *key == "port" {
                let ports: Vec<ConfigValue> =
                    values.iter().map(|port| ConfigValue::Raw(port.clone())).collect();
                map.set(key, ConfigValue::List(ports));
            } else {
                map.set(key, values.clone());
            }
        }
        for (key, name, values) in &self.named {
            map.child(key).set(name, values.clone());
        }
    }
}

/// Rules that always hold.
pub(crate) fn everything() -> AnyOf {
    vec![ImportedAccess::default()]
}

/// Rules that hold if both hold. `None` if they can't be expressed.
pub(crate) fn both(a: &AnyOf, b: &AnyOf) -> Option<AnyOf> {
    let mut out: AnyOf = Vec::new();
    for a in a {
        for b in b {
            if let Some(rule) = a.and(b)?
                && !out.contains(&rule)
            {
                out.push(rule);
            }
        }
    }
    (out.len() <= MAX_RULES).then_some(out)
}

/// Rules that hold if at least one of both holds. `None` if there are too many.
pub(crate) fn either(a: AnyOf, b: AnyOf) -> Option<AnyOf> {
    let mut out = a;
    for rule in b {
        if !out.contains(&rule) {
            out.push(rule);
        }
    }
    if out.iter().any(ImportedAccess::is_everything) {
        return Some(everything());
    }
    (out.len() <= MAX_RULES).then_some(out)
}

/// Rules that hold if none of these holds. `None` if they can't be expressed.
pub(crate) fn not(any: &AnyOf) -> Option<AnyOf> {
    let mut out = everything();
    for rule in any {
        out = both(&out, &rule.negated())?;
    }
    Some(out)
}

/// What a list of rules means for `authorization`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AccessEffect {
    /// The rules let every client pass: no key is needed.
    Open,
    /// The rules let no client pass.
    Shut,
    /// The keys of `authorization`.
    Keys(YamlMap),
}

/// Makes `allow` of rules with their names.
pub(crate) fn allow(rules: &[(String, ImportedAccess)]) -> AccessEffect {
    if rules.iter().any(|(_, rule)| rule.is_everything()) {
        return AccessEffect::Open;
    }
    let mut keys = YamlMap::default();
    keys.set("allow", written(rules));
    AccessEffect::Keys(keys)
}

/// Makes `deny` of rules with their names.
pub(crate) fn deny(rules: &[(String, ImportedAccess)]) -> AccessEffect {
    if rules.is_empty() {
        return AccessEffect::Open;
    }
    if rules.iter().any(|(_, rule)| rule.is_everything()) {
        return AccessEffect::Shut;
    }
    let mut keys = YamlMap::default();
    keys.set("deny", written(rules));
    AccessEffect::Keys(keys)
}

fn written(rules: &[(String, ImportedAccess)]) -> ConfigValue {
    let mut names: Vec<String> = Vec::new();
    let mut items = Vec::new();
    for (name, rule) in rules {
        let base = crate::plan::name(name);
        let mut name = base.clone();
        let mut n = 2;
        while names.contains(&name) {
            name = format!("{base}-{n}");
            n += 1;
        }
        items.push(ConfigValue::Map(rule.map(Some(&name))));
        names.push(name);
    }
    ConfigValue::List(items)
}

/// Adds keys to an `authorization`. False if it can't have both: two lists of `allow`, two kinds of tokens, two authorizers.
pub(crate) fn merge(into: &mut YamlMap, more: &YamlMap) -> bool {
    for (key, value) in &more.0 {
        match (into.get(key), value) {
            (None, _) => into.set(key, value.clone()),
            (Some(known), value) if known == value => {}
            (Some(ConfigValue::List(known)), ConfigValue::List(items)) if key == "deny" => {
                let all = named_apart(known.iter().chain(items));
                into.set(key, ConfigValue::List(all));
            }
            _ => return false,
        }
    }
    true
}

/// The rules with a unique name each.
fn named_apart<'v>(rules: impl Iterator<Item = &'v ConfigValue>) -> Vec<ConfigValue> {
    let mut out: Vec<ConfigValue> = Vec::new();
    let name_of = |value: &ConfigValue| match value {
        ConfigValue::Map(map) => map.get("name").cloned(),
        _ => None,
    };
    for rule in rules {
        let mut rule = rule.clone();
        let mut n = 2;
        while let Some(ConfigValue::Text(name)) = name_of(&rule) {
            if out.iter().all(|other| name_of(other) != Some(ConfigValue::Text(name.clone()))) {
                break;
            }
            let base = name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('-').to_owned();
            if let ConfigValue::Map(map) = &mut rule {
                map.set("name", format!("{base}-{n}"));
            }
            n += 1;
        }
        out.push(rule);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> AnyOf {
        vec![ImportedAccess::list("path", vec![text.to_owned()])]
    }

    fn client(text: &str) -> AnyOf {
        vec![ImportedAccess::list("client", vec![text.to_owned()])]
    }

    #[test]
    fn not_and_is_or_of_nots() {
        let both = both(&path("/a"), &client("10.0.0.0/8")).unwrap_or_default();
        assert_eq!(both.len(), 1);
        let not = not(&both).unwrap_or_default();
        assert_eq!(not.len(), 2);
        assert!(not[0].excludes("path") && !not[0].excludes("client"), "{not:?}");
        assert!(not[1].excludes("client") && !not[1].needs("path"), "{not:?}");
    }

    #[test]
    fn not_or_is_and_of_nots() {
        let or = either(path("/a"), path("/b")).unwrap_or_default();
        let not = not(&or).unwrap_or_default();
        assert_eq!(
            not,
            vec![ImportedAccess {
                when: RuleSide::default(),
                not: RuleSide { lists: vec![("path", vec!["/a".into(), "/b".into()])], named: Vec::new() }
            }]
        );
        assert_eq!(super::not(&not).unwrap_or_default().len(), 1);
    }

    #[test]
    fn everything_takes_the_place_of_all_others_and_its_opposite_is_nothing() {
        assert_eq!(either(path("/a"), everything()), Some(everything()));
        assert_eq!(not(&everything()), Some(Vec::new()));
        assert_eq!(not(&Vec::new()), Some(everything()));
        assert_eq!(allow(&[("all".to_owned(), ImportedAccess::default())]), AccessEffect::Open);
        assert_eq!(deny(&[("all".to_owned(), ImportedAccess::default())]), AccessEffect::Shut);
    }

    #[test]
    fn two_patterns_of_one_key_are_not_guessed_to_be_one() {
        assert_eq!(both(&path("/a/*"), &path("/a/b")), None);
        let ports = |ports: &[&str]| {
            vec![ImportedAccess::list("port", ports.iter().map(ToString::to_string).collect())]
        };
        assert_eq!(both(&ports(&["80", "81"]), &ports(&["81"])), Some(ports(&["81"])));
        assert_eq!(both(&ports(&["80"]), &ports(&["81"])), Some(Vec::new()));
    }

    #[test]
    fn rules_of_several_sources_keep_names_of_their_own() {
        let AccessEffect::Keys(mut one) = deny(&[("a".to_owned(), path("/a").remove(0))]) else { return };
        let AccessEffect::Keys(two) = deny(&[("a".to_owned(), path("/b").remove(0))]) else { return };
        assert!(merge(&mut one, &two));
        let Some(ConfigValue::List(items)) = one.get("deny") else { return };
        assert_eq!(items.len(), 2);
        assert_ne!(items[0], items[1]);
        let AccessEffect::Keys(three) = allow(&[("x".to_owned(), path("/c").remove(0))]) else { return };
        assert!(merge(&mut one, &three));
        let AccessEffect::Keys(four) = allow(&[("y".to_owned(), path("/d").remove(0))]) else { return };
        assert!(!merge(&mut one, &four));
    }
}
