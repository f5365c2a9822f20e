//! Parses YAML and JSON into a tree whose nodes know their file and line.
//!
//! Keys are found by their snake case names even if the file has camel case, as protobuf's JSON form allows
//! (`staticResources` is `static_resources`). Each document of a file is a root.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, options};

/// The largest number of nodes of one file, with aliases expanded: a few lines of aliases can't use up the memory.
const MAX_NODES: usize = 500_000;
/// The deepest nesting of collections.
const MAX_DEPTH: usize = 100;

/// Words that YAML 1.1 reads as true, in any case: Envoy and Kubernetes use YAML 1.1.
const TRUE: &[&str] = &["true", "yes", "on", "y"];
/// Words that YAML 1.1 reads as false, in any case.
const FALSE: &[&str] = &["false", "no", "off", "n"];

fn is_any(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// A place in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileLine {
    /// The file's path, as the user wrote it.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
}

impl fmt::Display for FileLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it stands.
    pub at: FileLine,
    /// What it is.
    pub kind: NodeKind,
    /// Whether it is a scalar in quotes: such a scalar is always a text.
    pub quoted: bool,
    /// Whether an importer has read it, if it is a scalar.
    seen: ReadMark,
}

/// A mark that all clones of a node share: importers read clones, and [`crate::unread`] looks at the original.
#[derive(Clone, Debug, Default)]
struct ReadMark(Arc<AtomicBool>);

/// What a node is.
#[derive(Clone, Debug)]
pub enum NodeKind {
    /// A text, number, boolean, or nothing.
    Scalar(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping in its order.
    Map(Vec<(String, Node)>),
}

/// The value of an absent key.
static EMPTY: std::sync::LazyLock<Node> =
    std::sync::LazyLock::new(|| Node::new(FileLine::default(), NodeKind::Scalar(String::new())));

impl Node {
    /// A node at this place.
    pub fn new(at: FileLine, kind: NodeKind) -> Self {
        Self { at, kind, quoted: false, seen: ReadMark::default() }
    }

    /// A mapping without keys.
    pub fn empty(at: FileLine) -> Self {
        Self::new(at, NodeKind::Map(Vec::new()))
    }

    /// Whether an importer has read this scalar.
    pub(crate) fn is_seen(&self) -> bool {
        self.seen.0.load(Relaxed)
    }

    /// Marks everything in it as read: either one remark reports it as a whole, or it has no effect on requests.
    pub fn skip(&self) {
        self.seen.0.store(true, Relaxed);
        match &self.kind {
            NodeKind::Scalar(_) => {}
            NodeKind::List(items) => items.iter().for_each(Self::skip),
            NodeKind::Map(entries) => entries.iter().for_each(|(_, value)| value.skip()),
        }
    }

    /// A mapping or list without anything, or an empty or null scalar.
    pub fn is_empty(&self) -> bool {
        match &self.kind {
            NodeKind::Scalar(text) => text.is_empty() || text == "null" || text == "~",
            NodeKind::List(items) => items.is_empty(),
            NodeKind::Map(entries) => entries.is_empty(),
        }
    }

    /// The first key that isn't one of these. In a guard such a key may restrict what passes.
    pub fn stranger(&self, known: &[&str]) -> Option<&str> {
        let strange = |key: &str| !key.starts_with('@') && !known.contains(&snake(key).as_str());
        self.entries().iter().map(|(key, _)| key.as_str()).find(|key| strange(key))
    }

    /// The value of a key; null counts as absent.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let NodeKind::Map(entries) = &self.kind else { return None };
        entries
            .iter()
            .find(|(name, _)| name == key || snake(name) == key)
            .map(|(_, value)| value)
            .filter(|value| !matches!(&value.kind, NodeKind::Scalar(text) if text == "null" || text == "~"))
    }

    /// The value of a key to write to.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        let NodeKind::Map(entries) = &mut self.kind else { return None };
        entries.iter_mut().find(|(name, _)| name == key || snake(name) == key).map(|(_, value)| value)
    }

    /// Removes a key.
    pub fn remove(&mut self, key: &str) {
        if let NodeKind::Map(entries) = &mut self.kind {
            entries.retain(|(name, _)| name != key && snake(name) != key);
        }
    }

    /// Sets a key.
    pub fn set(&mut self, key: &str, value: Self) {
        self.remove(key);
        if let NodeKind::Map(entries) = &mut self.kind {
            entries.push((key.to_owned(), value));
        }
    }

    /// A mapping at the same place.
    pub fn map(&self, entries: Vec<(&str, Self)>) -> Self {
        let entries = entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Self::new(self.at.clone(), NodeKind::Map(entries))
    }

    /// A list at the same place.
    pub fn seq(&self, items: Vec<Self>) -> Self {
        Self::new(self.at.clone(), NodeKind::List(items))
    }

    /// Adds a key, where there is a value.
    pub fn put(&mut self, key: &str, value: Option<Self>) {
        if let Some(value) = value {
            self.set(key, value);
        }
    }

    /// A scalar at the same place.
    pub fn scalar(&self, text: &str) -> Self {
        Self::new(self.at.clone(), NodeKind::Scalar(text.to_owned()))
    }

    /// The node at this path of keys, or an empty node.
    pub fn down(&self, way: &[&str]) -> &Self {
        let mut node = self;
        for key in way {
            match node.get(key) {
                Some(next) => node = next,
                None => return &EMPTY,
            }
        }
        node
    }

    /// Whether there is a node at this path of keys.
    pub fn has(&self, way: &[&str]) -> bool {
        let mut node = self;
        for key in way {
            match node.get(key) {
                Some(next) => node = next,
                None => return false,
            }
        }
        true
    }

    /// The text of a scalar, or of the value in a wrapper (`{ value: … }`).
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            NodeKind::Scalar(text) => {
                self.seen.0.store(true, Relaxed);
                Some(text)
            }
            NodeKind::Map(_) => self.get("value").and_then(Self::text),
            NodeKind::List(_) => None,
        }
    }

    /// The text at a key.
    pub fn str(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Self::text).filter(|text| !text.is_empty())
    }

    /// The number at a key.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.str(key).and_then(|text| text.parse().ok())
    }

    /// `true` at a key, or one of the words that YAML 1.1 reads as true.
    pub fn is(&self, key: &str) -> bool {
        self.str(key).is_some_and(|text| is_any(text, TRUE))
    }

    /// `false` at a key, or one of the words that YAML 1.1 reads as false. An absent key is not false.
    pub fn is_false(&self, key: &str) -> bool {
        self.str(key).is_some_and(|text| is_any(text, FALSE))
    }

    /// The items of a list; a single node is a list of one.
    pub fn items(&self) -> &[Self] {
        match &self.kind {
            NodeKind::List(items) => items,
            NodeKind::Scalar(text) if text.is_empty() => &[],
            _ => std::slice::from_ref(self),
        }
    }

    /// The items of a list at a key.
    pub fn list(&self, key: &str) -> &[Self] {
        self.get(key).map_or(&[], Self::items)
    }

    /// The entries of a mapping.
    pub fn entries(&self) -> &[(String, Self)] {
        if let NodeKind::Map(entries) = &self.kind { entries } else { &[] }
    }

    /// Calls `visit` for this node and everything in it.
    pub fn walk(&mut self, visit: &mut dyn FnMut(&mut Self)) {
        visit(self);
        match &mut self.kind {
            NodeKind::Scalar(_) => {}
            NodeKind::List(items) => items.iter_mut().for_each(|item| item.walk(visit)),
            NodeKind::Map(entries) => entries.iter_mut().for_each(|(_, value)| value.walk(visit)),
        }
    }
}

/// `maxRetries` is `max_retries`.
pub(crate) fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
            out.push(c.to_ascii_lowercase());
        } else {
            out.push(c);
        }
    }
    out
}

/// A file that isn't YAML or JSON, or isn't what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The place.
    pub at: FileLine,
    /// What is wrong, and what to do.
    pub what: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.at.line == 0 {
            write!(f, "{}: {}", self.at.file, self.what)
        } else {
            write!(f, "{}: {}", self.at, self.what)
        }
    }
}

impl std::error::Error for Unreadable {}

enum OpenNode {
    List(FileLine, usize, Vec<Node>),
    Map(FileLine, usize, Vec<(String, Node)>, Option<String>),
}

/// The documents of a file.
///
/// # Errors If the text isn't YAML.
pub fn parse(text: &str, file: &str) -> Result<Vec<Node>, Unreadable> {
    let file: Arc<str> = file.into();
    let limits =
        options! { flow_nesting_limit: MAX_DEPTH, block_nesting_limit: MAX_DEPTH, emit_comments: false };
    let mut roots = Vec::new();
    let mut open: Vec<OpenNode> = Vec::new();
    let mut anchors: HashMap<usize, (Node, usize)> = HashMap::new();
    let mut count = 0_usize;
    for event in Parser::new_from_str_with_options(text, limits) {
        let (event, span) = event.map_err(|error| Unreadable {
            at: FileLine { file: Arc::clone(&file), line: error.marker().line() as u32 },
            what: format!("not valid YAML: {}", error.info()),
        })?;
        let at = FileLine { file: Arc::clone(&file), line: span.start.line() as u32 };
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let text =
                    if plain && (text == "null" || text == "~") { String::new() } else { text.to_string() };
                (Node { quoted: !plain, ..Node::new(at, NodeKind::Scalar(text)) }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => {
                open.push(OpenNode::List(at, anchor, Vec::new()));
                continue;
            }
            Event::MappingStart(_, anchor, _) => {
                open.push(OpenNode::Map(at, anchor, Vec::new(), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(OpenNode::List(at, anchor, items)) => (Node::new(at, NodeKind::List(items)), anchor),
                Some(OpenNode::Map(at, anchor, entries, _)) => {
                    (Node::new(at, NodeKind::Map(merged(entries))), anchor)
                }
                None => continue,
            },
            Event::Alias(id) => match anchors.get(&id) {
                Some((node, size)) => {
                    count += size;
                    (node.clone(), 0)
                }
                None => (Node::new(at, NodeKind::Scalar(String::new())), 0),
            },
            _ => continue,
        };
        count += 1;
        if count > MAX_NODES || open.len() > MAX_DEPTH {
            return Err(Unreadable { at: node.at, what: "too large: not a config".to_owned() });
        }
        if anchor > 0 {
            let size = size(&node);
            anchors.insert(anchor, (node.clone(), size));
        }
        match open.last_mut() {
            None => roots.push(node),
            Some(OpenNode::List(_, _, items)) => items.push(node),
            Some(OpenNode::Map(_, _, entries, key)) => match key.take() {
                Some(key) => entries.push((key, node)),
                None => *key = Some(node.text().unwrap_or_default().to_owned()),
            },
        }
    }
    Ok(roots)
}

fn size(node: &Node) -> usize {
    1 + match &node.kind {
        NodeKind::Scalar(_) => 0,
        NodeKind::List(items) => items.iter().map(size).sum(),
        NodeKind::Map(entries) => entries.iter().map(|(_, value)| size(value)).sum(),
    }
}

/// `<<: *base` adds the keys that the mapping doesn't have itself.
fn merged(entries: Vec<(String, Node)>) -> Vec<(String, Node)> {
    if entries.iter().all(|(key, _)| key != "<<") {
        return entries;
    }
    let (bases, mut own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(key, _)| key == "<<");
    for (_, base) in bases {
        for base in base.items() {
            for (key, value) in base.entries() {
                if own.iter().all(|(name, _)| name != key) {
                    own.push((key.clone(), value.clone()));
                }
            }
        }
    }
    own
}

/// The tree as JSON, which every YAML parser accepts. Booleans, numbers and null are written
/// plain, all other scalars in quotes.
pub fn json(node: &Node) -> String {
    let mut out = String::new();
    write_json(node, &mut out);
    out
}

fn write_json(node: &Node, out: &mut String) {
    match &node.kind {
        NodeKind::Scalar(text) if text.is_empty() && !node.quoted => out.push_str("null"),
        NodeKind::Scalar(text) if node.quoted => quote(text, out),
        NodeKind::Scalar(text) if is_any(text, TRUE) => out.push_str("true"),
        NodeKind::Scalar(text) if is_any(text, FALSE) => out.push_str("false"),
        NodeKind::Scalar(text)
            if text.parse::<f64>().is_ok_and(f64::is_finite)
                && text.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-')
                && text.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit())
                && !(text.len() > 1 && text.starts_with('0') && !text.starts_with("0.")) =>
        {
            out.push_str(text);
        }
        NodeKind::Scalar(text) => quote(text, out),
        NodeKind::List(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_json(item, out);
            }
            out.push(']');
        }
        NodeKind::Map(entries) => {
            out.push('{');
            for (index, (key, value)) in entries.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                quote(key, out);
                out.push(':');
                write_json(value, out);
            }
            out.push('}');
        }
    }
}

/// A JSON string, which is a double-quoted YAML string too.
pub(crate) fn quote(text: &str, out: &mut String) {
    use fmt::Write as _;
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
