//! The place in the config of a problem that is found outside of the config, for example in a file that it names.

use std::path::Path;

use crate::{
    Diagnostics,
    diagnostic::{Place, Problems, Severity},
    yaml::{self, YamlKind, YamlNode},
};

/// A problem, and its place as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocatedProblem {
    /// Keys from the top of the config to the part with the problem; an item of a list is named by its number. If the
    /// file doesn't give all of these keys, the last one that it gives is the place.
    pub keys: Vec<String>,
    /// A value within that part, as the config writes it.
    pub value: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: String,
}

/// The findings with file, line and column, in the order of the file; `None` where there are none.
pub fn locate(findings: Vec<LocatedProblem>, text: &str, file: Option<&Path>) -> Option<Diagnostics> {
    if findings.is_empty() {
        return None;
    }
    // The text was read before without a problem.
    let tree = yaml::parse(text, &mut Problems::default());
    let mut problems = Problems::default();
    for finding in findings {
        // Finding the place takes a search, and a full list would not show the result.
        let tree = tree.as_ref().filter(|_| !problems.is_full(Severity::Error));
        let place = tree.map_or_else(Place::default, |tree| place(tree, &finding));
        problems.wrong(place, finding.message, finding.help);
    }
    Some(problems.finish(text, file).into())
}

fn place(tree: &YamlNode, finding: &LocatedProblem) -> Place {
    let (mut node, mut place) = (tree, Place::default());
    for key in &finding.keys {
        let next = match &node.kind {
            YamlKind::Mapping(entries) => {
                entries.iter().find(|entry| entry.key == *key).map(|entry| (entry.place, &entry.value))
            }
            YamlKind::Sequence(items) => {
                key.parse().ok().and_then(|at: usize| items.get(at)).map(|item| (item.place, item))
            }
            YamlKind::Scalar(_) | YamlKind::Broken => None,
        };
        let Some((at, value)) = next else { break };
        (node, place) = (value, at);
    }
    let within = finding.value.as_ref().and_then(|value| scalar(node, value));
    within.unwrap_or(place)
}

/// The first scalar of this text.
fn scalar(node: &YamlNode, value: &str) -> Option<Place> {
    match &node.kind {
        YamlKind::Scalar(scalar) if scalar.text == value => Some(node.place),
        YamlKind::Scalar(_) | YamlKind::Broken => None,
        YamlKind::Sequence(items) => items.iter().find_map(|item| scalar(item, value)),
        YamlKind::Mapping(entries) => entries.iter().find_map(|entry| scalar(&entry.value, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_stands_at_its_value_or_else_at_the_deepest_key_that_there_is() {
        let text =
            "listeners:\n  in:\n    tls: { certificate: a.crt, key: a.key }\n    routes:\n      - to: o\n";
        let finding = |keys: &[&str], value: Option<&str>| LocatedProblem {
            keys: keys.iter().map(ToString::to_string).collect(),
            value: value.map(Into::into),
            message: format!("{keys:?} {value:?}"),
            help: String::new(),
        };
        let all = vec![
            finding(&["listeners", "in", "tls"], Some("a.key")),
            finding(&["listeners", "in", "tls"], Some("/elsewhere")),
            finding(&["listeners", "in", "routes", "0", "credential"], None),
            finding(&["nothing"], None),
        ];
        let found = locate(all, text, None).unwrap();
        let places: Vec<_> = found.iter().map(|one| (one.place.line, one.place.column)).collect();
        assert_eq!(places, [(0, 0), (3, 5), (3, 37), (5, 9)]);
        assert!(locate(Vec::new(), text, None).is_none());
    }
}
