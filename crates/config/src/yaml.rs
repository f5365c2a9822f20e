//! YAML text becomes a tree in which every node knows its place.
//!
//! The events are granit-parser's (YAML 1.2). Aliases are copied in place and merge keys (`<<`) are resolved here, both
//! within [`MOST_NODES`] and [`DEEPEST`], so that a few lines can't expand without end ("billion laughs"). A key that
//! stands twice in one mapping is an error: whichever of the two was meant, the other one would be ignored silently.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag, options};

use crate::diagnostic::{NOT_YAML, Place, Problems, lines};

/// Nodes that aliases may add to one file. What is written out is bounded by the file itself.
const MOST_NODES: usize = 100_000;
/// Collections inside of each other.
const DEEPEST: usize = 64;

/// A node of the tree.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) kind: Kind,
    size: usize,
    depth: usize,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Scalar(Scalar),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
    /// Already reported.
    Broken,
}

/// A text, and whether it may be read as something else.
#[derive(Clone, Debug)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Plain (unquoted): `true`, `5` and an empty text are a boolean, a number and nothing.
    pub(crate) plain: bool,
    /// `!file`: the text is a path until it is read.
    pub(crate) file: bool,
    /// From a file: never shown.
    pub(crate) secret: bool,
}

impl Scalar {
    /// A key with nothing behind it, or with YAML's word for that.
    pub(crate) fn is_missing(&self) -> bool {
        self.plain && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) place: Place,
    pub(crate) value: Node,
}

impl Node {
    fn scalar(place: Place, scalar: Scalar) -> Self {
        Self { place, kind: Kind::Scalar(scalar), size: 1, depth: 0 }
    }

    fn broken(place: Place) -> Self {
        Self { place, kind: Kind::Broken, size: 1, depth: 0 }
    }

    /// No value: a file with nothing but comments.
    pub(crate) fn is_nothing(&self) -> bool {
        matches!(&self.kind, Kind::Scalar(scalar) if scalar.is_missing() && !scalar.file)
    }

    /// Something in it was reported before it was checked.
    pub(crate) fn has_broken(&self) -> bool {
        match &self.kind {
            Kind::Broken => true,
            Kind::Scalar(_) => false,
            Kind::Sequence(items) => items.iter().any(Self::has_broken),
            Kind::Mapping(entries) => entries.iter().any(|entry| entry.value.has_broken()),
        }
    }

    /// The value of a key, where this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.kind {
            Kind::Mapping(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value),
            _ => None,
        }
    }

    /// The keys of a mapping.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&str, Place)> {
        let entries = if let Kind::Mapping(entries) = &self.kind { entries.as_slice() } else { &[] };
        entries.iter().map(|entry| (entry.key.as_str(), entry.place))
    }
}

/// A collection that isn't closed yet.
struct Open {
    place: Place,
    anchor: usize,
    broken: bool,
    items: Items,
}

enum Items {
    Sequence(Vec<Node>),
    Mapping { entries: Vec<Entry>, key: Option<Key>, merges: Vec<Node> },
}

enum Key {
    Name(String, Place),
    Merge(Place),
    Unusable,
}

/// The root of the text's only document; `None` where there is none or the text isn't YAML (then it is reported).
pub(crate) fn parse(text: &str, problems: &mut Problems) -> Option<Node> {
    let limits = options! { flow_nesting_limit: DEEPEST, block_nesting_limit: DEEPEST, emit_comments: false };
    let mut tree = Tree { open: Vec::new(), anchors: HashMap::new(), nodes: 0, root: None, problems };
    for event in Parser::new_from_str_with_options(text, limits) {
        match event {
            Ok((Event::DocumentStart(..), span)) if tree.root.is_some() => {
                tree.problems.wrong(
                    place_of(span),
                    "a second document begins here",
                    "a config is one document: remove the `---`",
                );
                return None;
            }
            Ok((event, span)) => {
                if !tree.take(event, span) {
                    return None;
                }
            }
            Err(error) => {
                not_yaml(text, &error, tree.problems);
                return None;
            }
        }
    }
    tree.root
}

fn not_yaml(text: &str, error: &ScanError, problems: &mut Problems) {
    let (line, column) = (error.marker().line(), error.marker().col());
    // A tab in the indentation is noticed before or behind its line.
    let near = lines(text).enumerate().skip(line.saturating_sub(1)).take(2);
    let tab = near.filter_map(|(index, line)| {
        let indent = line.len() - line.trim_start().len();
        line.get(..indent).and_then(|indent| indent.find('\t')).map(|column| (index + 1, column))
    });
    let tab = tab.into_iter().next();
    if tab.is_none()
        && let Some((line, indent, others)) = misindented(text, line)
    {
        let others: Vec<String> = others.iter().map(ToString::to_string).collect();
        let help = format!(
            "it is indented by {indent}, what stands above it by {}: keys of one mapping begin in the same column",
            others.join(" and ")
        );
        let place = Place { line: line as u32, column: indent as u32 + 1, length: 0 };
        problems.wrong(place, "the indentation of this line matches no line above it", help);
        return;
    }
    let no_colon = |line: &str| {
        let word = line.trim();
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    let above = lines(text).nth(line.saturating_sub(2)).filter(|above| line >= 2 && no_colon(above));
    let (line, column, help) = match tab {
        Some((line, column)) => (line, column, "here is a tab: YAML is indented with spaces"),
        None if lines(text).nth(line.saturating_sub(1)).is_some_and(|line| line.contains('\0')) => {
            (line, column, "a config is YAML in UTF-8: save it so")
        }
        None if let Some(above) = above => {
            (line - 1, above.len(), "is a colon missing at the end of this line?")
        }
        None if error.info().contains("escape") => (
            line,
            column,
            r#"in `"…"` a `\` begins an escape: write the value in `'…'`, as a path of Windows"#,
        ),
        None if error.info().contains("quoted scalar") => {
            (line, column, "a quote is opened above and not closed")
        }
        None if error.info().contains("quote") => (line, column, "a quote is opened here and not closed"),
        None if error.info().contains("recursion") => (line, column, DEEP),
        None if let Some((line, column)) = slashes(text, line) => (line, column, "a comment begins with `#`"),
        None if error.info().contains("'-' indicator") => {
            (line, column, "indent this line like the item's first key, behind the dash, or deeper")
        }
        None if error.info().contains("unclosed bracket") => {
            (line, column, "what is opened here is not closed: `{` by `}`, `[` by `]`")
        }
        None if error.info().contains("flow") => (
            line,
            column,
            "within `{ … }` and `[ … ]` a value with `,`, `{`, `}`, `[` or `]` needs quotes: `path: \"/users/{id}\"`",
        ),
        None if error.info().contains("anchor") => (
            line,
            column,
            "`*name` stands for what `&name` above it marks; a value that begins with `*` needs quotes",
        ),
        None => {
            (line, column, "a value with `: ` or ` #`, or that begins with one of `*&!%@{[|>`, needs quotes")
        }
    };
    let place = Place { line: line as u32, column: column as u32 + 1, length: 1 };
    problems.wrong(place, format!("{NOT_YAML}: {}", error.info()), help);
}

const DEEP: &str = "this many levels are no config: is a bracket opened and not closed?";

/// The last line up to an error that begins as a comment does in other languages, and where.
fn slashes(text: &str, near: usize) -> Option<(usize, usize)> {
    let slashed = |(index, line): (usize, &str)| {
        let content = line.trim_start();
        content.starts_with("//").then_some((index + 1, line.len() - content.len()))
    };
    lines(text).enumerate().take(near).filter_map(slashed).last()
}

/// The line at or just before an error whose indentation is between those of what stands above it, or deeper below a value; with those.
fn misindented(text: &str, near: usize) -> Option<(usize, usize, Vec<usize>)> {
    let mut open: Vec<usize> = Vec::new();
    let mut takes_more = true;
    for (index, line) in lines(text).enumerate().take(near + 1) {
        let content = line.trim_start();
        if content.is_empty() || content.starts_with(['#', '%']) || content.starts_with("---") {
            continue;
        }
        let mut indent = line.len() - content.len();
        let above = open.clone();
        while open.last().is_some_and(|last| *last > indent) {
            open.pop();
        }
        let fits =
            open.last() == Some(&indent) || (above.last().is_none_or(|last| *last < indent) && takes_more);
        if !fits && index + 2 >= near {
            return Some((index + 1, indent, above));
        }
        if open.last() != Some(&indent) {
            open.push(indent);
        }
        // The items of a list start in their own column after the dash.
        let mut rest = content;
        while let Some(item) = rest.strip_prefix("- ") {
            indent += rest.len() - item.trim_start().len();
            rest = item.trim_start();
            open.push(indent);
        }
        let end = rest.split(" #").next().unwrap_or(rest).trim_end();
        takes_more = !end.contains(": ")
            || end.ends_with(['{', '[', ',', '|', '>', '&'])
            || end.ends_with("|-")
            || end.ends_with(">-");
    }
    None
}

struct Tree<'p> {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    root: Option<Node>,
    problems: &'p mut Problems,
}

impl Tree<'_> {
    /// False ends the parse.
    fn take(&mut self, event: Event<'_>, span: Span) -> bool {
        let place = place_of(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let node = self.scalar(place, &text, style, tag.as_deref());
                self.close(node, anchor, 0)
            }
            Event::SequenceStart(_, anchor, tag) => {
                let broken = !self.collection_tag(place, tag.as_deref(), "seq");
                self.open.push(Open { place, anchor, broken, items: Items::Sequence(Vec::new()) });
                true
            }
            Event::MappingStart(_, anchor, tag) => {
                let broken = !self.collection_tag(place, tag.as_deref(), "map");
                let items = Items::Mapping { entries: Vec::new(), key: None, merges: Vec::new() };
                self.open.push(Open { place, anchor, broken, items });
                true
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return true };
                let anchor = open.anchor;
                let node = self.collection(open);
                self.close(node, anchor, 0)
            }
            Event::Alias(id) => {
                let node = match self.anchors.get(&id) {
                    Some(node) if self.open.len() + node.depth > DEEPEST => {
                        self.problems.error(place, format!("nested more than {DEEPEST} levels deep"));
                        return false;
                    }
                    Some(node) if self.nodes + node.size <= MOST_NODES => node.clone(),
                    Some(_) => {
                        self.nodes = MOST_NODES; // reported by `close`
                        Node::broken(place)
                    }
                    None => {
                        self.problems.error(place, "this alias stands inside of what it refers to");
                        Node::broken(place)
                    }
                };
                let size = node.size;
                self.close(node, 0, size)
            }
            _ => true,
        }
    }

    fn scalar(&mut self, place: Place, text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Node {
        let mut scalar =
            Scalar { text: text.to_owned(), plain: style == ScalarStyle::Plain, file: false, secret: false };
        match tag.map(|tag| (tag, tag.core_suffix())) {
            None => {}
            Some((_, Some("str"))) => scalar.plain = false,
            Some((_, Some("int" | "float" | "bool" | "null"))) => scalar.plain = true,
            Some((tag, _)) if tag.handle() == "!" && tag.suffix() == "file" => scalar.file = true,
            Some((tag, _)) => {
                self.unknown_tag(place, tag);
                return Node::broken(place);
            }
        }
        Node::scalar(place, scalar)
    }

    fn collection_tag(&mut self, place: Place, tag: Option<&Tag>, core: &str) -> bool {
        match tag {
            Some(tag) if tag.core_suffix() != Some(core) => {
                self.unknown_tag(place, tag);
                false
            }
            _ => true,
        }
    }

    fn unknown_tag(&mut self, place: Place, tag: &Tag) {
        self.problems.wrong(
            place,
            format!("the tag `{}` isn't known here", tag.original()),
            "`!file PATH` reads a file; a value that begins with `!` needs quotes",
        );
    }

    /// A node is complete: it is added to the open collection, or is the root. `added` is what it adds to the count:
    /// all of an alias, nothing of what was written out. What an anchor keeps is counted.
    fn close(&mut self, mut node: Node, anchor: usize, added: usize) -> bool {
        self.nodes += added + if anchor > 0 { node.size } else { 0 };
        if self.nodes > MOST_NODES {
            self.problems.error(node.place, format!("aliases stand for more than {MOST_NODES} nodes"));
            return false;
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.items) {
            None => self.root = Some(node),
            Some(Items::Sequence(items)) => items.push(node),
            Some(Items::Mapping { entries, key, merges }) => match key.take() {
                None => {
                    *key = Some(match node.kind {
                        Kind::Scalar(Scalar { text, plain: true, .. }) if text == "<<" => {
                            Key::Merge(node.place)
                        }
                        Kind::Scalar(Scalar { text, .. }) => Key::Name(text, node.place),
                        Kind::Broken => Key::Unusable,
                        _ => {
                            self.problems.error(node.place, "a key must be a plain word");
                            Key::Unusable
                        }
                    });
                }
                Some(Key::Unusable) => {}
                Some(Key::Merge(place)) => {
                    node.place = place;
                    merges.push(node);
                }
                Some(Key::Name(name, place)) => {
                    if let Some(first) = entries.iter().find(|entry| entry.key == name) {
                        self.problems.wrong(
                            place,
                            format!("the key `{name}` is given twice"),
                            format!("it is first given in line {}: remove one", first.place.line),
                        );
                        return true;
                    }
                    if matches!(&node.kind, Kind::Scalar(scalar) if scalar.text.is_empty() && scalar.plain) {
                        node.place = place;
                    }
                    entries.push(Entry { key: name, place, value: node });
                }
            },
        }
        true
    }

    fn collection(&mut self, open: Open) -> Node {
        let (kind, size, depth) = match open.items {
            Items::Sequence(items) => {
                let size = items.iter().map(|node| node.size).sum::<usize>();
                let depth = items.iter().map(|node| node.depth).max();
                (Kind::Sequence(items), size, depth)
            }
            Items::Mapping { mut entries, merges, .. } => {
                for merge in merges {
                    self.merge(&mut entries, merge);
                }
                let size = entries.iter().map(|entry| entry.value.size).sum::<usize>();
                let depth = entries.iter().map(|entry| entry.value.depth).max();
                (Kind::Mapping(entries), size, depth)
            }
        };
        let kind = if open.broken { Kind::Broken } else { kind };
        Node { place: open.place, kind, size: size + 1, depth: depth.map_or(1, |depth| depth + 1) }
    }

    /// `<<: *base` or `<<: [*a, *b]`: keys that the mapping doesn't have itself; earlier ones win.
    fn merge(&mut self, entries: &mut Vec<Entry>, from: Node) {
        let sources = match from.kind {
            Kind::Sequence(items) => items,
            _ => vec![from.clone()],
        };
        for source in sources {
            match source.kind {
                Kind::Mapping(merged) => {
                    for entry in merged {
                        if !entries.iter().any(|own| own.key == entry.key) {
                            entries.push(entry);
                        }
                    }
                }
                Kind::Broken => {}
                _ => self.problems.wrong(
                    from.place,
                    "`<<` merges mappings, this is none",
                    "write `<<: *anchor` or `<<: [*one, *two]`",
                ),
            }
        }
    }
}

fn place_of(span: Span) -> Place {
    let (start, end) = (span.start, span.end);
    let length = if start.line() == end.line() { end.col().saturating_sub(start.col()) } else { 0 };
    Place { line: start.line() as u32, column: start.col() as u32 + 1, length: length as u32 }
}
