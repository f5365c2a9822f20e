//! YAML (and JSON, which is YAML) becomes trees in which every node knows its bytes in the text.
//!
//! The events are granit-parser's. A node's `end` is where its *content* ends: without the comment and line break after
//! it, and for a block scalar without the blank lines that don't belong to its value. Values are typed as kubectl's
//! parser does (YAML 1.1: `yes`, `on` and `0644` are not texts), see [`crate::scalar`].
//!
//! Where YAML's specification and kubectl's parser (go-yaml) differ, this follows kubectl: the second line of a quoted
//! text may be indented less than its key ([`crate::repair`]), and if a key is given twice the last one counts, with a
//! warning.

use std::collections::HashMap;

use serde_json::{Map, Value};
use serde_saphyr::granit_parser::{
    Event, Parser, ScalarStyle, ScanError, Span, StructureStyle, Tag, options,
};

use crate::{repair::RepairedText, scalar};

/// The most values of one file after its aliases are expanded.
const MAX_VALUES: usize = 2_000_000;
/// The deepest nesting of collections.
const MAX_DEPTH: usize = 96;

/// A document of a stream.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) root: SpannedNode,
    pub(crate) value: Value,
    /// Warnings for its author.
    pub(crate) warnings: Vec<String>,
}

/// A node: the bytes from `start` to `end`, and what is in them.
#[derive(Debug)]
pub(crate) struct SpannedNode {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Column of `start`, from 0.
    pub(crate) column: usize,
    pub(crate) kind: SpannedKind,
}

/// What a node is.
#[derive(Debug)]
pub(crate) enum SpannedKind {
    Scalar,
    Alias,
    Sequence { flow: bool, items: Vec<SpannedNode> },
    Mapping { flow: bool, entries: Vec<SpannedEntry> },
}

/// A key and its value.
#[derive(Debug)]
pub(crate) struct SpannedEntry {
    pub(crate) name: String,
    pub(crate) key: SpannedNode,
    pub(crate) value: SpannedNode,
}

/// A collection that isn't closed yet.
struct OpenSpan {
    node: SpannedNode,
    anchor: usize,
    key: Option<(SpannedNode, String)>,
    value: Value,
    merged: Vec<Value>,
}

/// The documents of a text; those without content are left out.
///
/// # Errors
/// What is wrong, and in which line and column.
pub(crate) fn parse(text: &str) -> Result<Vec<Document>, String> {
    let mut repaired = RepairedText::new(text);
    loop {
        match parse_once(&repaired) {
            Ok(documents) => return Ok(documents),
            Err(YamlError::Yaml(error)) if repaired.repair(&error) => {}
            Err(YamlError::Yaml(error)) => {
                let marker = error.marker();
                return Err(format!(
                    "line {}, column {}: not valid YAML: {}",
                    marker.line(),
                    marker.col() + 1,
                    error.info()
                ));
            }
            Err(YamlError::Meaning(what)) => return Err(what),
        }
    }
}

enum YamlError {
    Yaml(ScanError),
    Meaning(String),
}

fn parse_once(repaired: &RepairedText<'_>) -> Result<Vec<Document>, YamlError> {
    let limits =
        options! { flow_nesting_limit: MAX_DEPTH, block_nesting_limit: MAX_DEPTH, emit_comments: false };
    let mut tree = SpanBuilder {
        repaired,
        text: repaired.original(),
        open: Vec::new(),
        anchors: HashMap::new(),
        values: 0,
        documents: Vec::new(),
        warnings: Vec::new(),
    };
    for event in Parser::new_from_str_with_options(repaired.text(), limits) {
        let (event, span) = event.map_err(YamlError::Yaml)?;
        tree.take(event, span).map_err(|what| YamlError::Meaning(at(&span, &what)))?;
    }
    Ok(tree.documents)
}

fn at(span: &Span, what: &str) -> String {
    format!("line {}, column {}: {what}", span.start.line(), span.start.col() + 1)
}

struct SpanBuilder<'t> {
    repaired: &'t RepairedText<'t>,
    text: &'t str,
    open: Vec<OpenSpan>,
    anchors: HashMap<usize, Value>,
    values: usize,
    documents: Vec<Document>,
    warnings: Vec<String>,
}

impl SpanBuilder<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), String> {
        let bytes = span.byte_range().ok_or("a position without an offset")?;
        let bytes = self.repaired.place(bytes.start)..self.repaired.place(bytes.end);
        let mut node = SpannedNode {
            start: bytes.start,
            end: bytes.end,
            column: span.start.col(),
            kind: SpannedKind::Scalar,
        };
        match event {
            Event::DocumentStart(..) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, tag) => {
                self.place_scalar(&mut node, &text, style);
                let value = scalar_value(&text, style, tag.as_deref());
                return self.close(node, value, anchor, &span);
            }
            Event::Alias(id) => {
                node.kind = SpannedKind::Alias;
                let value = self.anchors.get(&id).cloned().ok_or("an alias inside of what it refers to")?;
                self.values += size(&value);
                return self.close(node, value, 0, &span);
            }
            Event::SequenceStart(style, anchor, _) => {
                node.kind = SpannedKind::Sequence { flow: style == StructureStyle::Flow, items: Vec::new() };
                let value = Value::Array(Vec::new());
                self.open.push(OpenSpan { node, anchor, key: None, value, merged: Vec::new() });
            }
            Event::MappingStart(style, anchor, _) => {
                node.kind = SpannedKind::Mapping { flow: style == StructureStyle::Flow, entries: Vec::new() };
                let value = Value::Object(Map::new());
                self.open.push(OpenSpan { node, anchor, key: None, value, merged: Vec::new() });
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(mut open) = self.open.pop() else { return Ok(()) };
                open.node.end = match &open.node.kind {
                    SpannedKind::Sequence { flow: false, items } => {
                        items.last().map_or(bytes.end, |item| item.end)
                    }
                    SpannedKind::Mapping { flow: false, entries } => {
                        entries.last().map_or(bytes.end, |entry| entry.value.end)
                    }
                    _ => bytes.end,
                };
                for merged in open.merged {
                    merge(&mut open.value, merged)?;
                }
                return self.close(open.node, open.value, open.anchor, &span);
            }
            _ => {}
        }
        Ok(())
    }

    /// The parser's span of a block scalar reaches to the next token, and the span of an empty value is the end of its
    /// key.
    fn place_scalar(&self, node: &mut SpannedNode, text: &str, style: ScalarStyle) {
        let written = self.text.get(node.start..node.end).unwrap_or_default();
        match style {
            ScalarStyle::Literal | ScalarStyle::Folded => {
                let content = written.trim_end();
                if content.is_empty() {
                    // The scalar has only its header, and the parser is already after that line.
                    let before = self.text.get(..node.start).unwrap_or_default();
                    node.end = before.trim_end().len();
                } else if text.ends_with("\n\n") {
                    // Kept (`+`): the blank lines are content.
                    let lines = written.trim_end_matches([' ', '\t']);
                    let last = lines.strip_suffix('\n').unwrap_or(lines);
                    node.end = node.start + last.strip_suffix('\r').unwrap_or(last).len();
                } else {
                    node.end = node.start + content.len();
                }
            }
            ScalarStyle::Plain if written.is_empty() => {
                let rest = self.text.get(node.start..).unwrap_or_default();
                let gap = rest.len() - rest.trim_start_matches([' ', '\t']).len();
                if rest.get(gap..).is_some_and(|rest| rest.starts_with(':')) {
                    node.start += gap + 1;
                }
                node.end = node.start;
            }
            _ => {}
        }
    }

    /// Adds a complete node to the open collection, or makes it a document.
    fn close(&mut self, node: SpannedNode, value: Value, anchor: usize, span: &Span) -> Result<(), String> {
        self.values += 1;
        if anchor > 0 {
            self.values += size(&value);
            self.anchors.insert(anchor, value.clone());
        }
        if self.values > MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values with aliases expanded"));
        }
        let Some(open) = self.open.last_mut() else {
            if !value.is_null() {
                let warnings = std::mem::take(&mut self.warnings);
                self.documents.push(Document { root: node, value, warnings });
            }
            return Ok(());
        };
        match (&mut open.node.kind, &mut open.value) {
            (SpannedKind::Sequence { items, .. }, Value::Array(values)) => {
                items.push(node);
                values.push(value);
            }
            (SpannedKind::Mapping { entries, .. }, Value::Object(values)) => match open.key.take() {
                None => {
                    // In Kubernetes all keys are texts, even those that look like another type.
                    let written = self.text.get(node.start..node.end).unwrap_or_default();
                    let name = match value {
                        Value::String(text) => text,
                        Value::Array(_) | Value::Object(_) => return Err("a key must be a word".to_owned()),
                        _ => written.to_owned(),
                    };
                    open.key = Some((node, name));
                }
                Some((key, name)) if name == "<<" && self.text.get(key.start..key.end) == Some("<<") => {
                    open.merged.push(value);
                }
                Some((key, name)) => {
                    if values.insert(name.clone(), value).is_some() {
                        self.warnings.push(at(
                            span,
                            &format!("the key `{name}` is in one mapping twice: the last one counts, as for kubectl"),
                        ));
                    }
                    entries.push(SpannedEntry { name, key, value: node });
                }
            },
            _ => {}
        }
        Ok(())
    }
}

/// `<<`: keys that the mapping doesn't have itself.
fn merge(own: &mut Value, merged: Value) -> Result<(), String> {
    match (own, merged) {
        (own, Value::Array(sources)) => sources.into_iter().try_for_each(|source| merge(own, source)),
        (Value::Object(own), Value::Object(source)) => {
            for (key, value) in source {
                own.entry(key).or_insert(value);
            }
            Ok(())
        }
        _ => Err("`<<` merges mappings, and this is not a mapping".to_owned()),
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Object(entries) => 1 + entries.values().map(size).sum::<usize>(),
        _ => 1,
    }
}

fn scalar_value(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    match tag.and_then(Tag::core_suffix) {
        Some("str") => Value::String(text.to_owned()),
        Some("int" | "float" | "bool" | "null") => scalar::resolve(text),
        _ if style == ScalarStyle::Plain => scalar::resolve(text),
        _ => Value::String(text.to_owned()),
    }
}

impl SpannedNode {
    /// The node at a path of keys and indexes, if it was written out (without an alias or a merge).
    pub(crate) fn find(&self, path: &[String]) -> Option<&SpannedNode> {
        let Some((first, rest)) = path.split_first() else { return Some(self) };
        match &self.kind {
            SpannedKind::Mapping { entries, .. } => {
                // If a key is given twice, the last one counts.
                entries.iter().rfind(|entry| entry.name == *first)?.value.find(rest)
            }
            SpannedKind::Sequence { items, .. } => items.get(first.parse::<usize>().ok()?)?.find(rest),
            _ => None,
        }
    }

    /// The entry that a path ends at.
    pub(crate) fn entry(&self, path: &[String]) -> Option<&SpannedEntry> {
        let (name, object) = path.split_last()?;
        match &self.find(object)?.kind {
            SpannedKind::Mapping { entries, .. } => entries.iter().rfind(|entry| entry.name == *name),
            _ => None,
        }
    }
}
