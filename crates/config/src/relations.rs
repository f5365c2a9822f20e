//! Which keys of a section may stand together. A section declares these rules (`rules { … }`), the checker applies them, and an editor
//! learns them from the schema.
//!
//! | rule | refuses | is reported at |
//! | --- | --- | --- |
//! | `any_of [a, b]` | a section that gives none of them | the section |
//! | `one_of [a, b]` | a section that gives none or several of them | the section |
//! | `excludes [a] [b]` | a section that gives `a` and `b` | `a` |
//! | `needs [a] [b, c]` | a section that gives `a`, and neither `b` nor `c` | `a` |
//!
//! A key whose value is `false` counts as not given. `{}` in a message stands for the key; a message without `{}` is about the
//! section, and is reported there. With `rules unless KEY "WORD"` a section that gives this value has no rules.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::describe::list;

/// The rules of a section.
#[derive(Serialize)]
pub(crate) struct SectionRules {
    /// If this key has this value, there are no rules.
    pub(crate) unless: &'static [(&'static str, &'static str)],
    pub(crate) rows: &'static [KeyRule<'static, &'static [&'static str]>],
}

#[derive(Serialize, Deserialize)]
pub(crate) struct KeyRule<'a, KeyList> {
    kind: RelationKind,
    keys: KeyList,
    others: KeyList,
    what: &'a str,
    help: &'a str,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum RelationKind {
    AnyOf,
    OneOf,
    Excludes,
    Needs,
}

/// A broken rule.
pub(crate) struct BrokenRule<'a> {
    /// Where it is reported; `None` is the section.
    pub(crate) key: Option<&'a str>,
    pub(crate) message: String,
    pub(crate) help: &'a str,
}

type KeyList = &'static [&'static str];

impl KeyRule<'static, KeyList> {
    pub(crate) const fn any_of(
        keys: KeyList,
        others: KeyList,
        what: &'static str,
        help: &'static str,
    ) -> Self {
        Self { kind: RelationKind::AnyOf, keys, others, what, help }
    }

    pub(crate) const fn one_of(
        keys: KeyList,
        others: KeyList,
        what: &'static str,
        help: &'static str,
    ) -> Self {
        Self { kind: RelationKind::OneOf, keys, others, what, help }
    }

    pub(crate) const fn excludes(
        keys: KeyList,
        others: KeyList,
        what: &'static str,
        help: &'static str,
    ) -> Self {
        Self { kind: RelationKind::Excludes, keys, others, what, help }
    }

    pub(crate) const fn needs(
        keys: KeyList,
        others: KeyList,
        what: &'static str,
        help: &'static str,
    ) -> Self {
        Self { kind: RelationKind::Needs, keys, others, what, help }
    }
}

impl<'a> KeyRule<'a, Vec<&'a str>> {
    /// The rules of a section's schema that are in force for these values.
    fn all(schema: &'a Value, values: &Map<String, Value>) -> Vec<Self> {
        let rules = schema.get("x-rules");
        let unless = rules.and_then(|rules| list(rules, "unless")).unwrap_or_default();
        if unless.iter().any(|one| one[0].as_str().and_then(|key| values.get(key)) == Some(&one[1])) {
            return Vec::new();
        }
        let rows = rules.and_then(|rules| list(rules, "rows")).unwrap_or_default();
        rows.iter().filter_map(|row| Self::deserialize(row).ok()).collect()
    }

    /// The same for an editor, which can't tell what a variable stands for.
    fn for_editors(&self) -> Value {
        let off = json!({ "anyOf": [{ "const": false }, { "type": "string", "pattern": r"\$\{" }] });
        let sure = |key: &&str| json!({ "required": [key], "properties": { *key: { "not": off.clone() } } });
        let sure = |keys: &[&str]| json!({ "anyOf": keys.iter().map(sure).collect::<Vec<_>>() });
        let any = |keys: &[&str]| json!({ "anyOf": keys.iter().map(|key| json!({ "required": [key] })).collect::<Vec<_>>() });
        match self.kind {
            RelationKind::AnyOf => any(&self.keys),
            RelationKind::OneOf => {
                let pairs = self.keys.iter().enumerate().skip(1).map(|(index, key)| {
                    let others = self.keys.get(..index).unwrap_or_default();
                    json!({ "if": sure(&[key]), "then": { "not": sure(others) } })
                });
                json!({ "allOf": pairs.chain([any(&self.keys)]).collect::<Vec<_>>() })
            }
            RelationKind::Excludes => {
                json!({ "if": sure(&self.keys), "then": { "not": sure(&self.others) } })
            }
            RelationKind::Needs => json!({ "if": sure(&self.keys), "then": any(&self.others) }),
        }
    }
}

/// The rules of a section that its keys break. `wrong` are the keys with a wrong value, which may count as given; the
/// keys that break a rule are added to them. `unsure`: there is an unknown key, which may be a misspelt required one.
pub(crate) fn broken<'a>(
    schema: &'a Value,
    values: &Map<String, Value>,
    wrong: &mut Vec<String>,
    unsure: bool,
) -> Vec<BrokenRule<'a>> {
    let given = |key: &str| values.get(key).is_some_and(|value| *value != Value::Bool(false));
    let mut found = Vec::new();
    let mut reported: Vec<&str> = Vec::new();
    for KeyRule { kind, keys, others, what, help } in KeyRule::all(schema, values) {
        let is_wrong = |key: &str| wrong.iter().any(|wrong| wrong == key);
        let count = keys.iter().filter(|key| given(key)).count();
        let broken: Vec<&str> = match kind {
            RelationKind::AnyOf if count > 0 => continue,
            RelationKind::OneOf if count == 1 => continue,
            RelationKind::AnyOf | RelationKind::OneOf
                if count == 0 && keys.iter().any(|key| is_wrong(key)) =>
            {
                continue;
            }
            RelationKind::AnyOf | RelationKind::OneOf if count == 0 && unsure => break,
            RelationKind::AnyOf | RelationKind::OneOf => keys,
            RelationKind::Excludes | RelationKind::Needs => {
                let has_other = others.iter().any(|key| given(key) || is_wrong(key));
                let breaks = |key: &&str| {
                    has_other == (kind == RelationKind::Excludes) && given(key) && !reported.contains(key)
                };
                keys.into_iter().filter(breaks).collect()
            }
        };
        let of_key = matches!(kind, RelationKind::Excludes | RelationKind::Needs) && what.contains("{}");
        let count_reported = if of_key { broken.len() } else { broken.len().min(1) };
        found.extend(broken.iter().take(count_reported).map(|key| BrokenRule {
            key: of_key.then_some(*key),
            message: what.replace("{}", key),
            help,
        }));
        wrong.extend(broken.iter().map(|key| (*key).to_owned()));
        reported.extend(broken);
        if count == 0 && matches!(kind, RelationKind::AnyOf | RelationKind::OneOf) {
            break;
        }
    }
    found
}

/// Adds the rules to the sections of a schema. `annotated` has them in our own keyword.
pub(crate) fn for_editors(schema: &mut Value, annotated: &Value) {
    let Some(sections) = schema.get_mut("$defs").and_then(Value::as_object_mut) else { return };
    for (name, section) in annotated.get("$defs").and_then(Value::as_object).into_iter().flatten() {
        let unless = section.get("x-rules").and_then(|rules| list(rules, "unless")).unwrap_or_default();
        for rule in KeyRule::all(section, &Map::new()) {
            let unless = unless.iter().map(|one| {
                let (key, word) = (one[0].as_str().unwrap_or_default(), one[1].as_str().unwrap_or_default());
                json!({ "required": [key], "properties": { key: { "pattern": format!(r"^{word}$|\$\{{") } } })
            });
            let rule = json!({ "anyOf": unless.chain([rule.for_editors()]).collect::<Vec<_>>() });
            let Some(section) = sections.get_mut(name).and_then(Value::as_object_mut) else { continue };
            if let Some(all) = section.entry("allOf").or_insert_with(|| json!([])).as_array_mut() {
                all.push(rule);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_about_keys_that_exist() {
        let mut rules = 0;
        for (name, section) in crate::schema::annotated()["$defs"].as_object().unwrap() {
            for rule in KeyRule::all(section, &Map::new()) {
                rules += 1;
                for key in rule.keys.iter().chain(&rule.others) {
                    assert!(section["properties"].get(*key).is_some(), "{name} has no key {key}");
                }
            }
        }
        assert!(rules > 20, "{rules}");
    }
}
