//! YAML text becomes a tree in which every node knows its place.
//!
//! The events are granit-parser's (YAML 1.2). Aliases are copied in place and merge keys (`<<`) are resolved here, both
//! within [`MAX_NODES`] and [`MAX_DEPTH`], so that a few lines can't expand without end ("billion laughs"). A key that
//! stands twice in one mapping is an error: whichever of the two was meant, the other one would be ignored silently.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span, Tag, options};

use crate::{
    diagnostic::{Place, Problems},
    index::FirstByKey,
    not_yaml::not_yaml,
};

/// Nodes that aliases may add to one file. What is written out is bounded by the file itself.
const MAX_NODES: usize = 100_000;
/// Collections inside of each other.
const MAX_DEPTH: usize = 64;

/// A node of the tree.
#[derive(Clone, Debug)]
pub(crate) struct YamlNode {
    pub(crate) place: Place,
    pub(crate) kind: YamlKind,
    /// `&name` stands before it.
    pub(crate) is_anchored: bool,
    size: usize,
    depth: usize,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(crate) enum YamlKind {
    Scalar(Scalar),
    Sequence(Vec<YamlNode>),
    Mapping(Vec<YamlEntry>),
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
pub(crate) struct YamlEntry {
    pub(crate) key: String,
    pub(crate) place: Place,
    pub(crate) value: YamlNode,
}

impl YamlNode {
    fn scalar(place: Place, scalar: Scalar) -> Self {
        Self { place, kind: YamlKind::Scalar(scalar), is_anchored: false, size: 1, depth: 0 }
    }

    fn broken(place: Place) -> Self {
        Self { place, kind: YamlKind::Broken, is_anchored: false, size: 1, depth: 0 }
    }

    /// Another value at the same place.
    pub(crate) fn with(&self, kind: YamlKind) -> Self {
        Self { place: self.place, kind, is_anchored: false, size: 1, depth: 0 }
    }

    /// No value: a file with nothing but comments.
    pub(crate) fn is_nothing(&self) -> bool {
        matches!(&self.kind, YamlKind::Scalar(scalar) if scalar.is_missing() && !scalar.file)
    }

    /// True if the parser has already reported an error in it.
    pub(crate) fn has_broken(&self) -> bool {
        match &self.kind {
            YamlKind::Broken => true,
            YamlKind::Scalar(_) => false,
            YamlKind::Sequence(items) => items.iter().any(Self::has_broken),
            YamlKind::Mapping(entries) => entries.iter().any(|entry| entry.value.has_broken()),
        }
    }

    /// The value of a key, where this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&YamlNode> {
        match &self.kind {
            YamlKind::Mapping(entries) => {
                entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
            }
            _ => None,
        }
    }

    /// The keys of a mapping.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&str, Place)> {
        let entries = if let YamlKind::Mapping(entries) = &self.kind { entries.as_slice() } else { &[] };
        entries.iter().map(|entry| (entry.key.as_str(), entry.place))
    }
}

/// A collection that isn't closed yet.
struct OpenCollection {
    place: Place,
    anchor: usize,
    broken: bool,
    items: OpenItems,
}

enum OpenItems {
    Sequence(Vec<YamlNode>),
    /// `places` are those of the keys.
    Mapping {
        entries: Vec<YamlEntry>,
        places: FirstByKey<String, Place>,
        key: Option<MappingKey>,
        merges: Vec<YamlNode>,
    },
}

enum MappingKey {
    Name(String, Place),
    Merge(Place),
    Unusable,
}

/// The root of the text's only document; `None` where there is none or the text isn't YAML (then it is reported).
pub(crate) fn parse(text: &str, problems: &mut Problems) -> Option<YamlNode> {
    let limits =
        options! { flow_nesting_limit: MAX_DEPTH, block_nesting_limit: MAX_DEPTH, emit_comments: false };
    let mut tree = TreeBuilder { open: Vec::new(), anchors: HashMap::new(), nodes: 0, root: None, problems };
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

struct TreeBuilder<'p> {
    open: Vec<OpenCollection>,
    anchors: HashMap<usize, YamlNode>,
    nodes: usize,
    root: Option<YamlNode>,
    problems: &'p mut Problems,
}

impl TreeBuilder<'_> {
    /// Returns false to end the parse.
    fn take(&mut self, event: Event<'_>, span: Span) -> bool {
        let place = place_of(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let node = self.scalar(place, &text, style, tag.as_deref());
                self.close(node, anchor, 0)
            }
            Event::SequenceStart(_, anchor, tag) => {
                let broken = !self.collection_tag(place, tag.as_deref(), "seq");
                self.open.push(OpenCollection {
                    place,
                    anchor,
                    broken,
                    items: OpenItems::Sequence(Vec::new()),
                });
                true
            }
            Event::MappingStart(_, anchor, tag) => {
                let broken = !self.collection_tag(place, tag.as_deref(), "map");
                let items = OpenItems::Mapping {
                    entries: Vec::new(),
                    places: FirstByKey::default(),
                    key: None,
                    merges: Vec::new(),
                };
                self.open.push(OpenCollection { place, anchor, broken, items });
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
                    Some(node) if self.open.len() + node.depth > MAX_DEPTH => {
                        self.problems.error(place, format!("nested more than {MAX_DEPTH} levels deep"));
                        return false;
                    }
                    Some(node) if self.nodes + node.size <= MAX_NODES => node.clone(),
                    Some(_) => {
                        self.nodes = MAX_NODES; // reported by `close`
                        YamlNode::broken(place)
                    }
                    None => {
                        self.problems.error(place, "this alias is inside of the value that it refers to");
                        YamlNode::broken(place)
                    }
                };
                let size = node.size;
                self.close(node, 0, size)
            }
            _ => true,
        }
    }

    fn scalar(&mut self, place: Place, text: &str, style: ScalarStyle, tag: Option<&Tag>) -> YamlNode {
        let mut scalar =
            Scalar { text: text.to_owned(), plain: style == ScalarStyle::Plain, file: false, secret: false };
        match tag.map(|tag| (tag, tag.core_suffix())) {
            None => {}
            Some((_, Some("str"))) => scalar.plain = false,
            Some((_, Some("int" | "float" | "bool" | "null"))) => scalar.plain = true,
            Some((tag, _)) if tag.handle() == "!" && tag.suffix() == "file" => scalar.file = true,
            Some((tag, _)) => {
                self.unknown_tag(place, tag);
                return YamlNode::broken(place);
            }
        }
        YamlNode::scalar(place, scalar)
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
        let help = match tag.suffix().to_ascii_lowercase().as_str() {
            "env" | "var" | "variable" => "`${NAME}` stands for the value of an environment variable",
            _ => "`!file PATH` reads a file; a value that begins with `!` needs quotes",
        };
        self.problems.wrong(place, format!("the tag `{}` isn't known here", tag.original()), help);
    }

    /// Adds a complete node to the open collection, or makes it the root. `added` is what it adds to the count of
    /// nodes: every node of an alias, none that the file writes out. Nodes that an anchor keeps are counted.
    fn close(&mut self, mut node: YamlNode, anchor: usize, added: usize) -> bool {
        self.nodes += added + if anchor > 0 { node.size } else { 0 };
        if self.nodes > MAX_NODES {
            self.problems.error(node.place, format!("aliases stand for more than {MAX_NODES} nodes"));
            return false;
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
            node.is_anchored = true;
        }
        match self.open.last_mut().map(|open| &mut open.items) {
            None => self.root = Some(node),
            Some(OpenItems::Sequence(items)) => items.push(node),
            Some(OpenItems::Mapping { entries, places, key, merges }) => match key.take() {
                None => {
                    *key = Some(match node.kind {
                        YamlKind::Scalar(Scalar { text, plain: true, .. }) if text == "<<" => {
                            MappingKey::Merge(node.place)
                        }
                        YamlKind::Scalar(Scalar { text, .. }) => MappingKey::Name(text, node.place),
                        YamlKind::Broken => MappingKey::Unusable,
                        _ => {
                            let help = "a value that begins with `{` or `[` needs quotes; `{{ … }}` of a template has to be filled in first";
                            self.problems.wrong(node.place, "a key must be a plain word", help);
                            MappingKey::Unusable
                        }
                    });
                }
                Some(MappingKey::Unusable) => {}
                Some(MappingKey::Merge(place)) => {
                    node.place = place;
                    merges.push(node);
                }
                Some(MappingKey::Name(name, place)) => {
                    if let Some(first) = places.keep(name.clone(), place) {
                        self.problems.wrong(
                            place,
                            format!("the key `{name}` is given twice"),
                            format!("it is first given in line {}: remove one", first.line),
                        );
                        return true;
                    }
                    if matches!(&node.kind, YamlKind::Scalar(scalar) if scalar.text.is_empty() && scalar.plain)
                    {
                        node.place = place;
                    }
                    entries.push(YamlEntry { key: name, place, value: node });
                }
            },
        }
        true
    }

    fn collection(&mut self, open: OpenCollection) -> YamlNode {
        let (kind, size, depth) = match open.items {
            OpenItems::Sequence(items) => {
                let size = items.iter().map(|node| node.size).sum::<usize>();
                let depth = items.iter().map(|node| node.depth).max();
                (YamlKind::Sequence(items), size, depth)
            }
            OpenItems::Mapping { mut entries, mut places, merges, .. } => {
                for merge in merges {
                    self.merge(&mut entries, &mut places, merge);
                }
                let size = entries.iter().map(|entry| entry.value.size).sum::<usize>();
                let depth = entries.iter().map(|entry| entry.value.depth).max();
                (YamlKind::Mapping(entries), size, depth)
            }
        };
        let kind = if open.broken { YamlKind::Broken } else { kind };
        let depth = depth.map_or(1, |depth| depth + 1);
        YamlNode { place: open.place, kind, is_anchored: false, size: size + 1, depth }
    }

    /// `<<: *base` or `<<: [*a, *b]`: keys that the mapping doesn't have itself; earlier ones win.
    fn merge(
        &mut self,
        entries: &mut Vec<YamlEntry>,
        places: &mut FirstByKey<String, Place>,
        from: YamlNode,
    ) {
        let sources = match from.kind {
            YamlKind::Sequence(items) => items,
            _ => vec![from.clone()],
        };
        for source in sources {
            match source.kind {
                YamlKind::Mapping(merged) => {
                    for entry in merged {
                        if places.keep(entry.key.clone(), entry.place).is_none() {
                            entries.push(entry);
                        }
                    }
                }
                YamlKind::Broken => {}
                _ => self.problems.wrong(
                    from.place,
                    "`<<` merges mappings, and this is not a mapping",
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
