//! Merges the header changes of several levels into one.

use crate::remark::Remarks;
use crate::tree::{FileLine, Node};
use crate::value::{ConfigValue, YamlMap};

/// The changes of one header.
#[derive(Clone, Debug, Default)]
struct HeaderEdit {
    name: String,
    removed: bool,
    set: Option<String>,
    add: Vec<String>,
}

/// The changes in one direction, merged level by level.
#[derive(Clone, Debug, Default)]
pub(crate) struct MergedEdits(Vec<HeaderEdit>);

impl MergedEdits {
    fn edit(&mut self, name: &str) -> &mut HeaderEdit {
        let name = name.to_ascii_lowercase();
        let index = match self.0.iter().position(|edit| edit.name == name) {
            Some(index) => index,
            None => {
                self.0.push(HeaderEdit { name, ..HeaderEdit::default() });
                self.0.len() - 1
            }
        };
        &mut self.0[index]
    }

    fn remove(&mut self, name: &str) {
        let edit = self.edit(name);
        *edit = HeaderEdit { name: edit.name.clone(), removed: true, ..HeaderEdit::default() };
    }

    /// Adds the removal of a header.
    pub(crate) fn removed(&mut self, name: &str, at: &FileLine, remarks: &mut Remarks) {
        if !Self::travels(name, at, remarks) {
            self.remove(name);
        }
    }

    /// Turns every change of a header into its removal.
    pub(crate) fn all_removed(self) -> Self {
        let gone = |edit: HeaderEdit| HeaderEdit { name: edit.name, removed: true, ..HeaderEdit::default() };
        Self(self.0.into_iter().map(gone).collect())
    }

    /// Adds the changes after those that a route has already.
    pub(crate) fn behind(&self, route: &mut YamlMap, way: &str) {
        if self.0.is_empty() {
            return;
        }
        let mut headers = route.child("headers");
        let mut keys = headers.child(way);
        for edit in &self.0 {
            let changed = edit.removed || edit.set.is_some();
            if changed {
                for key in ["set", "add"] {
                    if matches!(keys.get(key), Some(ConfigValue::Map(_))) {
                        keys.child(key).0.retain(|(name, _)| *name != edit.name);
                    }
                }
            }
            if let Some(value) = &edit.set {
                keys.child("set").set(&edit.name, value.clone());
            } else if edit.removed {
                keys.push("remove", &edit.name);
            }
            if !edit.add.is_empty() {
                let before = match keys.get("add") {
                    Some(ConfigValue::Map(map)) => map.get(&edit.name).cloned(),
                    _ => None,
                };
                let mut values: Vec<String> = Vec::new();
                if let Some(ConfigValue::Text(text)) = before {
                    values.push(text);
                }
                values.extend(edit.add.iter().cloned());
                keys.child("add").set(&edit.name, values.join(", "));
            }
        }
        keys.0.retain(|(_, value)| !matches!(value, ConfigValue::Map(map) if map.is_empty()));
    }

    fn set(&mut self, name: &str, value: String) {
        let edit = self.edit(name);
        edit.set = Some(value);
        edit.add.clear();
    }

    /// Whether this is a framing header: attache sets those itself for each connection.
    fn travels(name: &str, at: &FileLine, remarks: &mut Remarks) -> bool {
        let framing = attache_config::is_framing(&name.to_ascii_lowercase());
        if framing {
            remarks.soft(
                at,
                format!(
                    "`{name}` belongs to one connection, and attache sets it itself: this change is left out."
                ),
            );
        }
        framing
    }

    /// Applies the changes of a route, virtual host or route configuration. `way` is `request` or `response`.
    pub(crate) fn level(&mut self, node: &Node, way: &str, remarks: &mut Remarks) {
        for item in node.list(&format!("{way}_headers_to_remove")) {
            if let Some(name) = item.text().filter(|name| !Self::travels(name, &item.at, remarks)) {
                self.remove(name);
            }
        }
        for item in node.list(&format!("{way}_headers_to_add")) {
            self.one(item, remarks);
        }
    }

    /// One `HeaderValueOption`.
    pub(crate) fn one(&mut self, item: &Node, remarks: &mut Remarks) {
        let header = item.down(&["header"]);
        let Some(key) = header.str("key") else { return };
        let name = key.to_ascii_lowercase();
        let action = match item.str("append_action") {
            Some("0") => "APPEND_IF_EXISTS_OR_ADD",
            Some("1") => "ADD_IF_ABSENT",
            Some("2") => "OVERWRITE_IF_EXISTS_OR_ADD",
            Some("3") => "OVERWRITE_IF_EXISTS",
            Some(action) => action,
            None if item.is_false("append") => "OVERWRITE_IF_EXISTS_OR_ADD",
            None => "APPEND_IF_EXISTS_OR_ADD",
        };
        if name.starts_with(':') || name == "host" {
            remarks.point(
                &item.at,
                format!("`{name}` is not set as a header: `rewrite` of the route changes host and path."),
            );
            return;
        }
        if Self::travels(&name, &item.at, remarks) {
            return;
        }
        let value = template(header.str("value").or_else(|| header.str("raw_value")).unwrap_or_default());
        let Some(value) = value else {
            remarks.point(
                &item.at,
                format!("the value of `{key}` has a variable that attache lacks; the header is left out, and removed from what clients send."),
            );
            self.remove(&name);
            return;
        };
        match action {
            "APPEND_IF_EXISTS_OR_ADD" => {
                let edit = self.edit(&name);
                if edit.removed && edit.set.is_none() {
                    edit.set = Some(value);
                } else {
                    edit.add.push(value);
                }
            }
            "OVERWRITE_IF_EXISTS_OR_ADD" => self.set(&name, value),
            _ => {
                remarks.point(
                    &item.at,
                    format!("attache lacks `{action}`: it sets `{key}` even if the request has this header."),
                );
                self.set(&name, value);
            }
        }
    }

    /// `set`, `add` and `remove`.
    pub(crate) fn keys(&self) -> YamlMap {
        let (mut set, mut add, mut remove) = (YamlMap::default(), YamlMap::default(), Vec::new());
        for edit in &self.0 {
            if let Some(value) = &edit.set {
                set.set(&edit.name, value.clone());
            } else if edit.removed {
                remove.push(edit.name.clone());
            }
            if !edit.add.is_empty() {
                // attache has one value for each name. Several values become one list, which means the same (RFC 9110
                // section 5.3).
                add.set(&edit.name, edit.add.join(", "));
            }
        }
        let mut keys = YamlMap::default();
        if !set.is_empty() {
            keys.set("set", set);
        }
        if !add.is_empty() {
            keys.set("add", add);
        }
        if !remove.is_empty() {
            keys.set("remove", ConfigValue::from(remove));
        }
        keys
    }
}

/// A text with Envoy's variables in attache's notation. `None` if attache lacks one of them.
fn template(value: &str) -> Option<String> {
    crate::text::template(value, |rest| {
        let (name, rest) = rest.split_once('%')?;
        Some((variable(name)?, rest))
    })
}

fn variable(name: &str) -> Option<String> {
    Some(match name {
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => {
            "%{client.address}".to_owned()
        }
        "DOWNSTREAM_REMOTE_ADDRESS" | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => {
            "%{client.address}:%{client.port}".to_owned()
        }
        "DOWNSTREAM_REMOTE_PORT" => "%{client.port}".to_owned(),
        "DOWNSTREAM_PEER_URI_SAN" => "%{client.identity}".to_owned(),
        "ROUTE_NAME" => "%{route}".to_owned(),
        "UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW" => "%{upstream}".to_owned(),
        name => {
            let inner = name.strip_prefix("REQ(").and_then(|rest| rest.strip_suffix(')'))?;
            let inner = inner.split('?').next().filter(|_| !inner.contains('?'))?;
            match inner.to_ascii_lowercase().as_str() {
                ":authority" | "host" => "%{request.host}".to_owned(),
                ":path" => "%{request.path}".to_owned(),
                ":method" => "%{request.method}".to_owned(),
                ":scheme" => "%{request.scheme}".to_owned(),
                "x-request-id" => "%{request.id}".to_owned(),
                header if header.starts_with(':') => return None,
                header => format!("%{{request.header.{header}}}"),
            }
        }
    })
}
