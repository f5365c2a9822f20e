//! Prints a plan as a commented config. Each line knows which part of the plan it comes from.

use std::fmt::Write as _;

use crate::order::{self, OrderedRoute};
use crate::plan::Plan;
use crate::remark::{Impact, Remarks};
use crate::value::{ConfigValue, YamlMap};

/// Columns of a line before a mapping or comment is broken up.
const WIDTH: usize = 118;

/// The part of a plan that a line came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PlanPart {
    /// A key at the top level, except `listeners` and `upstreams`.
    Top(String),
    /// A listener, except its routes.
    Listener(usize),
    /// A route of a listener, by the number of its rule; 0 if the order made it.
    Route(usize, usize),
    /// An upstream.
    Upstream(usize),
}

/// The text of a config, while it is written.
#[derive(Debug, Default)]
pub(crate) struct WrittenConfig {
    pub(crate) text: String,
    /// The first line of each part, in their order.
    parts: Vec<(u32, PlanPart)>,
    /// Bytes and lines counted so far.
    counted: (usize, u32),
}

impl WrittenConfig {
    /// The part that a line comes from.
    pub(crate) fn part(&self, line: u32) -> Option<&PlanPart> {
        let behind = self.parts.partition_point(|(first, _)| *first <= line);
        self.parts.get(behind.checked_sub(1)?).map(|(_, part)| part)
    }

    /// The lines that follow belong to this part.
    fn begin(&mut self, part: PlanPart) {
        let (bytes, lines) = self.counted;
        let more = self.text.get(bytes..).unwrap_or_default().matches('\n').count() as u32;
        self.counted = (self.text.len(), lines + more);
        self.parts.push((self.counted.1 + 1, part));
    }
}

/// The text of a config.
pub(crate) fn config(plan: &Plan, head: &[String]) -> WrittenConfig {
    let mut page = WrittenConfig::default();
    let out = &mut page.text;
    for line in head {
        comment(line, 0, out);
    }
    remarks(&plan.remarks, 0, out);
    out.push('\n');
    for (name, value) in &plan.top.0 {
        page.begin(PlanPart::Top(name.clone()));
        entry(name, value, 0, &mut page.text);
    }
    page.text.push_str("listeners:\n");
    if plan.listeners.is_empty() {
        // Without a listener, attache would listen on its default address and send everything to the only upstream.
        page.text.push_str(
            "  # The original has no listener that could be carried over: this one refuses everything.\n",
        );
        page.text.push_str("  closed:\n    bind: 127.0.0.1:15001\n    routes:\n      - respond: 503\n");
    }
    for (index, listener) in plan.listeners.iter().enumerate() {
        page.begin(PlanPart::Listener(index));
        let out = &mut page.text;
        remarks(&listener.remarks, 2, out);
        let _ = writeln!(out, "  {}:", key(&listener.name));
        entries(&listener.keys, 4, out);
        let routes = order::routes(listener);
        if routes.is_empty() {
            // Without routes a listener would go to the only upstream.
            out.push_str("    routes:\n      - respond: 404\n");
            continue;
        }
        out.push_str("    routes:\n");
        for route in &routes {
            page.begin(PlanPart::Route(index, route.rule.number));
            let out = &mut page.text;
            remarks(&route.before, 6, out);
            remarks(&route.rule.remarks, 6, out);
            item(&route_keys(route), 6, out);
        }
    }
    page.text.push_str("upstreams:\n");
    if plan.upstreams.is_empty() {
        page.text.push_str("  # No route has a destination; a config needs at least one upstream.\n  nowhere: http://nowhere.invalid:80\n");
    }
    for (index, upstream) in plan.upstreams.iter().enumerate() {
        page.begin(PlanPart::Upstream(index));
        let out = &mut page.text;
        remarks(&upstream.remarks, 2, out);
        match upstream.keys.0.as_slice() {
            [(only, ConfigValue::Text(address))] if only == "address" => {
                let _ = writeln!(out, "  {}: {}", key(&upstream.name), scalar(address));
            }
            _ => {
                let _ = writeln!(out, "  {}:", key(&upstream.name));
                entries(&upstream.keys, 4, out);
            }
        }
    }
    page
}

fn route_keys(route: &OrderedRoute) -> YamlMap {
    let when = &route.rule.when;
    let mut matches = YamlMap::default();
    if !route.hosts.is_empty() {
        matches.set("host", route.hosts.clone());
    }
    let opaque = !route.regex && when.path == crate::path::PlannedPath::Any;
    if !opaque {
        matches.put("path", when.path.pattern(route.regex));
    }
    if !when.methods.is_empty() {
        matches.set("methods", when.methods.clone());
    }
    for (name, list) in [("headers", &when.headers), ("query", &when.query)] {
        if !list.is_empty() {
            let map =
                list.iter().map(|(name, value)| (name.clone(), ConfigValue::Text(value.clone()))).collect();
            matches.set(name, YamlMap(map));
        }
    }
    if !when.identity.is_empty() {
        matches.set("identity", when.identity.clone());
    }
    if !route.sni.is_empty() {
        matches.set("sni", route.sni.clone());
    }
    if !route.destination.is_empty() {
        matches.set("destination", route.destination.clone());
    }
    let mut keys = YamlMap::default();
    keys.put("name", route.rule.name.clone());
    if !matches.is_empty() {
        keys.set("match", matches);
    }
    for (name, value) in &route.rule.keys.0 {
        keys.set(name, value.clone());
    }
    keys
}

fn remarks(remarks: &Remarks, indent: usize, out: &mut String) {
    for remark in &remarks.0 {
        let word = match remark.weight {
            Impact::Note => "Note",
            Impact::Soft => "Lost (soft)",
            Impact::Point => "LOST",
        };
        let place = if remark.at.line == 0 { String::new() } else { format!(", {}", remark.at) };
        comment(&format!("{word}{place}: {}", remark.text), indent, out);
    }
}

/// A comment, broken between words. A line break in the original's text never begins a line outside the comment.
fn comment(text: &str, indent: usize, out: &mut String) {
    let mut line = String::new();
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    for word in text.split(' ') {
        if !line.is_empty() && indent + line.len() + word.len() + 3 > WIDTH {
            let _ = writeln!(out, "{:indent$}# {line}", "");
            line.clear();
            line.push_str("  ");
            line.push_str(word);
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(out, "{:indent$}# {line}", "");
}

fn entries(map: &YamlMap, indent: usize, out: &mut String) {
    for (name, value) in &map.0 {
        let _ = write!(out, "{:indent$}", "");
        entry(name, value, indent, out);
    }
}

fn entry(name: &str, value: &ConfigValue, indent: usize, out: &mut String) {
    let name = key(name);
    let short = flow(value);
    if indent + name.len() + 2 + short.len() <= WIDTH {
        let _ = writeln!(out, "{name}: {short}");
        return;
    }
    match value {
        ConfigValue::Map(map) => {
            let _ = writeln!(out, "{name}:");
            entries(map, indent + 2, out);
        }
        ConfigValue::List(items) => {
            let _ = writeln!(out, "{name}:");
            for value in items {
                match value {
                    ConfigValue::Map(map) => item(map, indent + 2, out),
                    _ => {
                        let _ = writeln!(out, "{:1$}- {2}", "", indent + 2, flow(value));
                    }
                }
            }
        }
        _ => {
            let _ = writeln!(out, "{name}: {short}");
        }
    }
}

fn item(map: &YamlMap, indent: usize, out: &mut String) {
    for (index, (name, value)) in map.0.iter().enumerate() {
        let _ = write!(out, "{:indent$}{}", "", if index == 0 { "- " } else { "  " });
        entry(name, value, indent + 2, out);
    }
}

fn flow(value: &ConfigValue) -> String {
    match value {
        ConfigValue::Text(text) => scalar(text),
        ConfigValue::Raw(text) => text.clone(),
        ConfigValue::List(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        ConfigValue::Map(map) if map.is_empty() => "{}".to_owned(),
        ConfigValue::Map(map) => {
            let parts: Vec<_> =
                map.0.iter().map(|(name, value)| format!("{}: {}", key(name), flow(value))).collect();
            format!("{{ {} }}", parts.join(", "))
        }
    }
}

fn key(name: &str) -> String {
    if !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b))
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && !word(name)
    {
        return name.to_owned();
    }
    let mut out = String::new();
    crate::tree::quote(name, &mut out);
    out
}

/// A scalar that is read as this text: `$` begins a variable in attache's configs, and is doubled.
fn scalar(text: &str) -> String {
    let text = text.replace('$', "$$");
    let safe = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:%=+()@".contains(&b) || b == b'*')
        && !text.ends_with(':')
        && !word(&text)
        && text.parse::<f64>().is_err();
    if safe {
        return text;
    }
    let mut out = String::new();
    crate::tree::quote(&text, &mut out);
    out
}

/// Whether YAML would read this text as a boolean, a number or null.
fn word(text: &str) -> bool {
    matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "false" | "null" | "yes" | "no" | "on" | "y" | "n" | "nan" | ".inf" | ".nan"
    )
}
