//! Fields of a config that no importer has read. Each becomes a remark: no field is ignored silently.
//!
//! An importer reads a field by [`Node::text`] and similar functions, which mark the field as read. A field without a
//! mark at the end was ignored: it belongs to an extension that is newer than the import, its name is misspelt, or the
//! importer lacks it. A field below the cause of a remark about lost requests needs no remark of its own.

use crate::remark::{Impact, Remarks};
use crate::tree::{FileLine, Node, NodeKind, snake};

/// The consequence if a key's content was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnreadConsequence {
    /// No effect on requests.
    Nothing,
    /// A loss of this weight.
    Lost(Impact),
    /// An entry that was not read at all is for a part that the config doesn't have.
    Entries,
}

/// Keys with their own consequence. `parent.key` is a key only below that parent.
pub(crate) type IdleKeys = &'static [(&'static str, UnreadConsequence)];

/// Reports the fields of this tree that were not read.
pub(crate) fn say(root: &Node, what: &str, idle: IdleKeys, causes: &[FileLine], remarks: &mut Remarks) {
    let mut path = Vec::new();
    look(root, &mut path, &UnreadScope { what, idle, causes, within: false, weight: None }, remarks);
}

/// Facts about the nodes above a node.
#[derive(Clone, Copy)]
struct UnreadScope<'t> {
    what: &'t str,
    idle: IdleKeys,
    /// Causes of remarks about lost requests.
    causes: &'t [FileLine],
    /// Whether one of the nodes above is a cause.
    within: bool,
    /// The fields here are lost with this weight.
    weight: Option<Impact>,
}

fn look<'n>(node: &'n Node, path: &mut Vec<&'n str>, scope: &UnreadScope<'_>, remarks: &mut Remarks) {
    let scope =
        UnreadScope { within: scope.within || path.len() > 1 && scope.causes.contains(&node.at), ..*scope };
    match &node.kind {
        NodeKind::Scalar(_) => {}
        NodeKind::List(items) => {
            for item in items {
                if matches!(item.kind, NodeKind::Scalar(_)) && is_unread(item, "", scope.idle) {
                    lost(item, path, &scope, remarks);
                } else {
                    look(item, path, &scope, remarks);
                }
            }
        }
        NodeKind::Map(entries) => {
            for (key, value) in entries {
                let name = snake(key);
                let parent = path.last().map(|parent| snake(parent)).unwrap_or_default();
                let weight = match meaning(scope.idle, &parent, &name) {
                    _ if key.starts_with('@') => continue,
                    Some(UnreadConsequence::Nothing) => continue,
                    Some(UnreadConsequence::Lost(weight)) => Some(weight),
                    Some(UnreadConsequence::Entries) => {
                        path.push(key);
                        for (key, value) in value.entries().iter().filter(|(_, value)| is_read(value)) {
                            path.push(key);
                            look(value, path, &scope, remarks);
                            path.pop();
                        }
                        path.pop();
                        continue;
                    }
                    None => scope.weight,
                };
                let scope = UnreadScope { weight, ..scope };
                path.push(key);
                if is_unread(value, &name, scope.idle) {
                    lost(value, path, &scope, remarks);
                } else {
                    look(value, path, &scope, remarks);
                }
                path.pop();
            }
        }
    }
}

/// Whether some value in it was read.
pub(crate) fn is_read(node: &Node) -> bool {
    match &node.kind {
        NodeKind::Scalar(_) => node.is_seen(),
        NodeKind::List(items) => items.iter().any(is_read),
        NodeKind::Map(entries) => entries.iter().any(|(_, value)| is_read(value)),
    }
}

fn meaning(idle: IdleKeys, parent: &str, name: &str) -> Option<UnreadConsequence> {
    let is_it = |known: &str| {
        known == name || known.split_once('.').is_some_and(|(above, own)| above == parent && own == name)
    };
    idle.iter().find(|(known, _)| is_it(known)).map(|(_, meaning)| *meaning)
}

/// Whether the content of this key has an effect, and no value in it was read.
fn is_unread(node: &Node, key: &str, idle: IdleKeys) -> bool {
    fn values(node: &Node, key: &str, idle: IdleKeys) -> (usize, usize) {
        let add = |all: (usize, usize), one: (usize, usize)| (all.0 + one.0, all.1 + one.1);
        match &node.kind {
            NodeKind::Scalar(_) if node.is_empty() => (0, 0),
            NodeKind::Scalar(_) => (1, usize::from(node.is_seen())),
            NodeKind::List(items) => items.iter().map(|item| values(item, key, idle)).fold((0, 0), add),
            NodeKind::Map(entries) => entries
                .iter()
                .map(|(name, value)| (snake(name), value))
                .filter(|(name, _)| {
                    !name.starts_with('@') && meaning(idle, key, name) != Some(UnreadConsequence::Nothing)
                })
                .map(|(name, value)| values(value, &name, idle))
                .fold((0, 0), add),
        }
    }
    let (all, seen) = values(node, key, idle);
    all > 0 && seen == 0
}

fn lost(node: &Node, path: &[&str], scope: &UnreadScope<'_>, remarks: &mut Remarks) {
    // The last three names are enough to find the place: `route.retry_policy.x`.
    let place = path[path.len().saturating_sub(3)..].join(".");
    match scope.weight {
        Some(weight) => remarks.say(weight, &node.at, format!("attache has no equivalent of `{place}`.")),
        None if scope.within || scope.causes.contains(&node.at) => {}
        None => remarks.point(
            &node.at,
            format!(
                "this import doesn't read `{place}` of {}. Find out what it does, and whether you need it.",
                scope.what
            ),
        ),
    }
}
