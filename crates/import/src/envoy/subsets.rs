//! Subsets of a cluster: endpoints by their metadata (`lb_subset_config`), and routes that use only some of them
//! (`metadata_match`).
//!
//! A selector names the keys that a route may use together. If no selector has a route's keys, or no endpoint has their
//! values, the fallback decides: no endpoint, every endpoint, or the default subset. The config has all endpoints and
//! their metadata, so the import can decide this. The result for a route is one of three: every endpoint, the endpoints
//! with certain labels, or none.

use crate::plan::PlannedRule;
use crate::tree::Node;
use crate::value::YamlMap;

use super::EnvoyImport;

/// Which endpoints of a cluster a route uses.
#[derive(Clone, Debug, PartialEq)]
enum SubsetChoice {
    All,
    /// Those with these labels. If the flag is true and there are none, any other.
    Labels(SubsetLabels, bool),
    Nobody,
}

type SubsetLabels = Vec<(String, String)>;

/// The metadata for load balancing. `None` if a value is a list or a mapping.
fn metadata(node: &Node) -> Option<SubsetLabels> {
    let own = node.down(&["filter_metadata", "envoy.lb"]);
    let mut labels: SubsetLabels = own
        .entries()
        .iter()
        .map(|(key, value)| Some((key.clone(), scalar(value)?)))
        .collect::<Option<_>>()?;
    labels.sort();
    Some(labels)
}

/// A text that looks like a number or boolean is another value than the number or boolean.
fn scalar(node: &Node) -> Option<String> {
    if !matches!(node.kind, crate::tree::NodeKind::Scalar(_)) {
        return None;
    }
    let text = node.text()?;
    let plain = !node.quoted && (text.parse::<f64>().is_ok() || matches!(text, "true" | "false"));
    Some(if plain { format!("{text} (no text)") } else { text.to_owned() })
}

/// The labels of an endpoint.
pub(super) fn labels(endpoint: &Node) -> YamlMap {
    let mut map = YamlMap::default();
    for (key, value) in metadata(endpoint.down(&["metadata"])).unwrap_or_default() {
        map.set(&key, value);
    }
    map
}

/// Whether a cluster has subsets.
pub(super) fn is_split(cluster: &Node) -> bool {
    !cluster.down(&["lb_subset_config"]).list("subset_selectors").is_empty()
}

fn choice(cluster: &Node, wanted: &SubsetLabels) -> Result<SubsetChoice, &'static str> {
    if !is_split(cluster) {
        return Ok(SubsetChoice::All);
    }
    let config = cluster.down(&["lb_subset_config"]);
    if config.is("list_as_any") {
        return Err("in the original a list in an endpoint's metadata matches each of its items");
    }
    let endpoints: Vec<SubsetLabels> = cluster
        .down(&["load_assignment"])
        .list("endpoints")
        .iter()
        .flat_map(|locality| locality.list("lb_endpoints"))
        .map(|endpoint| metadata(endpoint.down(&["metadata"])))
        .collect::<Option<_>>()
        .ok_or("an endpoint's metadata is a list or a mapping")?;
    let there =
        |wanted: &SubsetLabels| endpoints.iter().any(|own| wanted.iter().all(|label| own.contains(label)));
    let selector = config.list("subset_selectors").iter().find(|selector| {
        let keys: Vec<&str> = selector.list("keys").iter().filter_map(Node::text).collect();
        !wanted.is_empty()
            && keys.len() == wanted.len()
            && wanted.iter().all(|(key, _)| keys.contains(&key.as_str()))
    });
    let word = |node: &Node| node.str("fallback_policy").map(str::to_ascii_uppercase);
    let (own, of_all) = (selector.and_then(word), word(config));
    let own = own.filter(|word| word != "NOT_DEFINED" && word != "0");
    let policy = own.or(of_all).unwrap_or_else(|| "NO_FALLBACK".to_owned());
    let any = matches!(policy.as_str(), "ANY_ENDPOINT");
    if selector.is_some() && there(wanted) {
        return Ok(SubsetChoice::Labels(wanted.clone(), any));
    }
    match policy.as_str() {
        "NO_FALLBACK" => Ok(SubsetChoice::Nobody),
        "ANY_ENDPOINT" => Ok(SubsetChoice::All),
        "DEFAULT_SUBSET" => {
            let default = config
                .down(&["default_subset"])
                .entries()
                .iter()
                .map(|(key, value)| Some((key.clone(), scalar(value)?)));
            let mut default: SubsetLabels =
                default.collect::<Option<_>>().ok_or("the default subset has a list or a mapping")?;
            default.sort();
            Ok(match (default.is_empty(), there(&default)) {
                (true, _) => SubsetChoice::All,
                (false, true) => SubsetChoice::Labels(default, false),
                (false, false) => SubsetChoice::Nobody,
            })
        }
        "KEYS_SUBSET" => {
            let keys: Vec<&str> = selector
                .map(|selector| selector.list("fallback_keys_subset").iter().filter_map(Node::text).collect())
                .unwrap_or_default();
            let fewer: SubsetLabels =
                wanted.iter().filter(|(key, _)| keys.contains(&key.as_str())).cloned().collect();
            if fewer.len() < wanted.len() { choice(cluster, &fewer) } else { Ok(SubsetChoice::Nobody) }
        }
        _ => Err("this import doesn't know its fallback"),
    }
}

/// The metadata that an action asks for. `own` is a part of a split, which overrides the whole action.
fn wanted(action: &Node, own: Option<&Node>) -> Result<SubsetLabels, &'static str> {
    let of = |node: &Node| metadata(node.down(&["metadata_match"])).ok_or("it asks for a list or a mapping");
    let mut all = of(action)?;
    if let Some(own) = own {
        for (key, value) in of(own)? {
            all.retain(|(known, _)| *known != key);
            all.push((key, value));
        }
        all.sort();
    }
    Ok(all)
}

/// Applies the metadata that an action asks for: as a key of the rule, or as separate clusters for the parts of a
/// split. `None` if the rule now answers by itself.
pub(super) fn chosen(action: &Node, rule: &mut PlannedRule, cx: &mut EnvoyImport) -> Option<Node> {
    let mut out = action.clone();
    let found = match action.str("cluster") {
        Some(name) => one(name, action, None, cx).map(|choice| vec![choice]),
        None => action
            .down(&["weighted_clusters"])
            .list("clusters")
            .iter()
            .filter_map(|part| part.str("name").map(|name| one(name, action, Some(part), cx)))
            .collect(),
    };
    let choices = match found {
        Ok(choices) => choices,
        Err(why) => {
            rule.refuse(&action.at, format!("this route is refused, because the import can't translate the subset of its cluster: {why}. Write it as `labels` and `subset`."));
            return None;
        }
    };
    match choices.as_slice() {
        [] => {}
        [SubsetChoice::Nobody] => {
            // No endpoint can ever have this metadata, so the rule gives Envoy's answer for a cluster without
            // endpoints.
            rule.remarks.note(&action.at, "no endpoint of the cluster has the metadata that this route requires: every request is answered 503, as by the original.");
            rule.answer(503);
            return None;
        }
        [first, others @ ..]
            if others.iter().all(|other| other == first) && !matches!(first, SubsetChoice::Nobody) =>
        {
            if let SubsetChoice::Labels(labels, any) = first {
                let mut subset = YamlMap::default();
                subset.set("labels", mapping(labels));
                if *any {
                    subset.set("fallback", "any");
                }
                rule.keys.set("subset", subset);
            }
        }
        all if all.contains(&SubsetChoice::Nobody) => {
            rule.refuse(&action.at, "this route is refused: no endpoint has the metadata that one part of its split requires. Remove this part; then replace the refusal.");
            return None;
        }
        all => parted(&mut out, all, cx),
    }
    Some(out)
}

fn mapping(labels: &SubsetLabels) -> YamlMap {
    YamlMap(labels.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect())
}

fn one(
    name: &str,
    action: &Node,
    part: Option<&Node>,
    cx: &EnvoyImport,
) -> Result<SubsetChoice, &'static str> {
    let Some(cluster) = cx.clusters.iter().find(|cluster| cluster.str("name") == Some(name)) else {
        return Ok(SubsetChoice::All);
    };
    choice(cluster, &wanted(action, part)?)
}

/// If parts of a split use different endpoints of one cluster, each part gets a cluster with its endpoints only.
fn parted(action: &mut Node, choices: &[SubsetChoice], cx: &mut EnvoyImport) {
    let Some(crate::tree::NodeKind::List(parts)) = action
        .get_mut("weighted_clusters")
        .and_then(|split| split.get_mut("clusters"))
        .map(|list| &mut list.kind)
    else {
        return;
    };
    for (part, choice) in parts.iter_mut().filter(|part| part.str("name").is_some()).zip(choices) {
        let SubsetChoice::Labels(labels, _) = choice else { continue };
        let name = part.str("name").unwrap_or_default().to_owned();
        let words: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let own = format!("{name}[{}]", words.join(","));
        if cx.clusters.iter().all(|cluster| cluster.str("name") != Some(&own))
            && let Some(cluster) = cx.clusters.iter().find(|cluster| cluster.str("name") == Some(&name))
        {
            let mut cluster = cluster.clone();
            cluster.set("name", cluster.scalar(&own));
            cluster.remove("lb_subset_config");
            keep(&mut cluster, labels);
            cx.clusters.push(cluster);
        }
        part.set("name", part.scalar(&own));
    }
}

/// Removes all endpoints of a cluster without these labels.
fn keep(cluster: &mut Node, labels: &SubsetLabels) {
    let localities = cluster.get_mut("load_assignment").and_then(|all| all.get_mut("endpoints"));
    let Some(crate::tree::NodeKind::List(localities)) = localities.map(|list| &mut list.kind) else { return };
    for locality in localities {
        let Some(endpoints) = locality.get_mut("lb_endpoints") else { continue };
        if let crate::tree::NodeKind::List(endpoints) = &mut endpoints.kind {
            endpoints.retain(|endpoint| {
                let own = metadata(endpoint.down(&["metadata"])).unwrap_or_default();
                labels.iter().all(|label| own.contains(label))
            });
        }
    }
}

/// Whether requests may use all endpoints of a cluster.
pub(super) fn is_whole(cluster: &Node) -> bool {
    choice(cluster, &SubsetLabels::new()) == Ok(SubsetChoice::All)
}
