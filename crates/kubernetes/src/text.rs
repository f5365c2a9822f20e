//! Makes [`ObjectEdit`]s in the text of a document; everything else keeps every byte.
//!
//! In block style whole lines are added or removed, in flow style (JSON is flow style) the text between two commas.
//! Removing is the exact inverse of adding. An edit inside of an alias or a merge key would change other places as
//! well, so it is refused.

use std::ops::Range;

use serde_json::Value;

use crate::{
    edit::{ObjectEdit, ObjectPath},
    emit::{Style, flow, inline, pretty},
    scalar::quoted,
    yaml::{Document, SpannedEntry, SpannedKind, SpannedNode},
};

/// A range of bytes and its replacement.
#[derive(Debug)]
pub(crate) struct TextChange {
    range: Range<usize>,
    text: String,
    /// Among texts that are added at one place, the deepest comes first, because it belongs to the lines above.
    depth: usize,
}

/// A text, and the style it is written in.
pub(crate) struct StyledText<'t> {
    text: &'t str,
    style: Style,
}

impl<'t> StyledText<'t> {
    pub(crate) fn new(text: &'t str, documents: &[Document]) -> Self {
        let mut style = Style { crlf: text.contains("\r\n"), ..Style::default() };
        let mut seen = Indentation::default();
        for document in documents {
            seen.look(&document.root);
        }
        if let Some(step @ 1..=8) = seen.step {
            style.step = step;
        }
        if let Some((key, item)) = seen.list {
            style.indented_lists = dash(text, item).is_none_or(|dash| column(text, dash) > key);
        }
        Self { text, style }
    }

    /// The original text of an entry, if it is written out.
    pub(crate) fn entry(&self, root: &SpannedNode, path: &[String]) -> Option<&'t str> {
        let entry = root.entry(path)?;
        self.text.get(entry.key.start..entry.value.end)
    }

    /// The changes of the text that make these edits of the object at `base`.
    ///
    /// # Errors
    /// What can't be edited, and why.
    pub(crate) fn changes(
        &self,
        root: &SpannedNode,
        base: &[String],
        edits: &[ObjectEdit],
    ) -> Result<Vec<TextChange>, String> {
        let mut changes = Vec::new();
        for edit in edits {
            match edit {
                ObjectEdit::Set { object, key, value } => {
                    changes.push(self.set(find(root, base, object)?, key, value)?);
                }
                ObjectEdit::Swap { object, old, new, value, raw } => {
                    let mut path = [base, object].concat();
                    path.push(old.clone());
                    let parent = find(root, base, object)?;
                    let entry = root.entry(&path).ok_or_else(|| shared(&path))?;
                    changes.push(self.swap(parent, entry, new, value, raw.as_deref()));
                }
                ObjectEdit::Insert { list, before, items } => {
                    let mut path = [base, list].concat();
                    let node = find(root, base, list)?;
                    let entry = root.entry(&path).ok_or_else(|| shared(&path))?;
                    path.clear();
                    changes.extend(self.insert(entry, node, *before, items)?);
                }
                ObjectEdit::Unset { object, .. } => {
                    // All removals from one mapping are made together, by the first of its edits.
                    let mine = |e: &&ObjectEdit| matches!(e, ObjectEdit::Unset { object: other, .. } if other == object);
                    if edits.iter().find(mine) == Some(edit) {
                        let node = find(root, base, object)?;
                        let keys: Vec<&str> = edits
                            .iter()
                            .filter(mine)
                            .filter_map(|e| {
                                if let ObjectEdit::Unset { key, .. } = e { Some(key.as_str()) } else { None }
                            })
                            .collect();
                        changes.extend(self.unset(node, &keys).ok_or_else(|| shared(object))?);
                    }
                }
                ObjectEdit::Delete { list, .. } => {
                    let mine = |e: &&ObjectEdit| matches!(e, ObjectEdit::Delete { list: other, .. } if other == list);
                    if edits.iter().find(mine) == Some(edit) {
                        let node = find(root, base, list)?;
                        let indexes: Vec<usize> = edits
                            .iter()
                            .filter(mine)
                            .filter_map(|e| {
                                if let ObjectEdit::Delete { index, .. } = e { Some(*index) } else { None }
                            })
                            .collect();
                        changes.extend(self.delete(node, &indexes).ok_or_else(|| shared(list))?);
                    }
                }
            }
        }
        Ok(changes)
    }

    /// Adds whole lines at the begin of a line, or at the end of a text without a last line break.
    fn lines(&self, at: usize, lines: &str, depth: usize) -> TextChange {
        let newline = self.style.newline();
        let begun = self.text.get(..at).is_some_and(|before| before.is_empty() || before.ends_with('\n'));
        let text = if begun {
            lines.to_owned()
        } else {
            format!("{newline}{}", lines.strip_suffix(newline).unwrap_or(lines))
        };
        TextChange { range: at..at, text, depth }
    }

    fn set(&self, node: &SpannedNode, key: &str, value: &Value) -> Result<TextChange, String> {
        match &node.kind {
            SpannedKind::Mapping { flow: false, entries } => {
                let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
                    return Err("a mapping in block style is empty".to_owned());
                };
                let lines = self.style.entry(key, value, first.key.column);
                Ok(self.lines(self.line_end(last.value.end), &lines, 2 * first.key.column))
            }
            SpannedKind::Mapping { flow: true, entries } => {
                let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
                    return Err("a mapping in flow style is empty".to_owned());
                };
                let key = flow(&Value::from(key));
                let text = self.flow_text(node, &first.key, value);
                Ok(TextChange {
                    range: last.value.end..last.value.end,
                    text: format!(",{}{key}: {text}", self.flow_gap(node, &first.key)),
                    depth: 0,
                })
            }
            _ => Err("a mapping is expected where something else stands".to_owned()),
        }
    }

    fn swap(
        &self,
        parent: &SpannedNode,
        entry: &SpannedEntry,
        new: &str,
        value: &Value,
        raw: Option<&str>,
    ) -> TextChange {
        let range = entry.key.start..entry.value.end;
        if let Some(raw) = raw {
            return TextChange { range, text: raw.to_owned(), depth: 0 };
        }
        let in_flow = matches!(parent.kind, SpannedKind::Mapping { flow: true, .. });
        // A comment after it would become a part of a value of several lines.
        let alone = self.rest_of_line(range.end).trim().is_empty();
        let text = if in_flow {
            let text = match &parent.kind {
                SpannedKind::Mapping { entries, .. } => entries
                    .first()
                    .map_or_else(|| flow(value), |first| self.flow_text(parent, &first.key, value)),
                _ => flow(value),
            };
            format!("{}: {text}", flow(&Value::from(new)))
        } else if alone {
            let lines = self.style.entry(new, value, entry.key.column);
            lines.trim_start().trim_end_matches(['\r', '\n']).to_owned()
        } else {
            format!("{}: {}", quoted(new), inline(value))
        };
        TextChange { range, text, depth: 0 }
    }

    fn insert(
        &self,
        entry: &SpannedEntry,
        node: &SpannedNode,
        before: usize,
        new: &[Value],
    ) -> Result<Vec<TextChange>, String> {
        let SpannedKind::Sequence { flow: in_flow, items } = &node.kind else {
            return Err("a list is expected where something else stands".to_owned());
        };
        let (Some(first), Some(last)) = (items.first(), items.last()) else {
            return Err("a list is empty".to_owned());
        };
        if *in_flow {
            let gap = self.flow_gap(node, first);
            return Ok(new
                .iter()
                .map(|item| {
                    let text = self.flow_text(node, first, item);
                    let (at, text) = match items.get(before) {
                        Some(next) => (next.start, format!("{text},{gap}")),
                        None => (last.end, format!(",{gap}{text}")),
                    };
                    TextChange { range: at..at, text, depth: 0 }
                })
                .collect());
        }
        let dash = dash(self.text, first.start).ok_or("a list whose dashes can't be found")?;
        let column = column(self.text, dash);
        let lines: String = new.iter().map(|item| self.style.item(item, column)).collect();
        let at = match before {
            // The place before the comments that belong to the first item.
            0 => self.line_end(entry.key.end),
            _ => self.line_end(items.get(before - 1).unwrap_or(last).end),
        };
        // An item's dash may be in the column of the keys around the list.
        Ok(vec![self.lines(at, &lines, 2 * column + 1)])
    }

    fn unset(&self, node: &SpannedNode, keys: &[&str]) -> Option<Vec<TextChange>> {
        let SpannedKind::Mapping { flow, entries } = &node.kind else { return None };
        let gone = |entry: &SpannedEntry| keys.contains(&entry.name.as_str());
        if keys.iter().any(|key| !entries.iter().any(|entry| entry.name == **key)) {
            return None;
        }
        let spans: Vec<TakenEntry> = entries
            .iter()
            .map(|entry| TakenEntry { start: entry.key.start, end: entry.value.end, gone: gone(entry) })
            .collect();
        self.take(&spans, *flow)
    }

    fn delete(&self, node: &SpannedNode, indexes: &[usize]) -> Option<Vec<TextChange>> {
        let SpannedKind::Sequence { flow, items } = &node.kind else { return None };
        let spans: Option<Vec<TakenEntry>> = items
            .iter()
            .enumerate()
            .map(|(index, item)| {
                let start = if *flow { item.start } else { dash(self.text, item.start)? };
                Some(TakenEntry { start, end: item.end, gone: indexes.contains(&index) })
            })
            .collect();
        self.take(&spans?, *flow)
    }

    fn take(&self, spans: &[TakenEntry], flow: bool) -> Option<Vec<TextChange>> {
        if spans.iter().all(|span| span.gone) {
            return None; // the collection itself would have to be written as empty
        }
        let mut changes = Vec::new();
        let mut kept = None;
        for (index, span) in spans.iter().enumerate() {
            let previous = index.checked_sub(1).and_then(|index| spans.get(index));
            if !span.gone {
                kept = Some(index);
                continue;
            }
            let range = if flow {
                match (kept, previous, spans.get(index + 1)) {
                    (Some(_), Some(previous), _) => previous.end..span.end,
                    (_, _, Some(next)) => span.start..next.start,
                    _ => return None,
                }
            } else {
                self.block_range(span, spans.get(index + 1))?
            };
            changes.push(TextChange { range, text: String::new(), depth: 0 });
        }
        Some(changes)
    }

    /// The lines of an entry or item. An entry directly after a dash ends where the next key begins.
    fn block_range(&self, span: &TakenEntry, next: Option<&TakenEntry>) -> Option<Range<usize>> {
        let start = line_start(self.text, span.start);
        if self.text.get(start..span.start)?.trim().is_empty() {
            return Some(start..self.line_end(span.end));
        }
        Some(span.start..next?.start)
    }

    /// The text between two items in flow style.
    fn flow_gap(&self, collection: &SpannedNode, first: &SpannedNode) -> String {
        if self.is_spread(collection, first) {
            format!("{}{}", self.style.newline(), " ".repeat(first.column))
        } else {
            " ".to_owned()
        }
    }

    fn flow_text(&self, collection: &SpannedNode, first: &SpannedNode, value: &Value) -> String {
        if self.is_spread(collection, first) {
            let line = line_start(self.text, collection.start);
            let outer =
                self.text.get(line..).map_or(0, |text| text.len() - text.trim_start_matches(' ').len());
            let step = first.column.saturating_sub(outer).clamp(1, 8);
            pretty(value, first.column, step, self.style.newline())
        } else {
            flow(value)
        }
    }

    /// True if each of its items has its own line.
    fn is_spread(&self, collection: &SpannedNode, first: &SpannedNode) -> bool {
        self.text.get(collection.start..first.start).is_some_and(|between| between.contains('\n'))
    }

    /// The offset after the line break that ends the line of a byte.
    fn line_end(&self, at: usize) -> usize {
        self.text.get(at..).and_then(|rest| rest.find('\n')).map_or(self.text.len(), |found| at + found + 1)
    }

    fn rest_of_line(&self, at: usize) -> &str {
        self.text.get(at..self.line_end(at)).unwrap_or_default()
    }
}

/// An entry or item, and whether it is removed.
struct TakenEntry {
    start: usize,
    end: usize,
    gone: bool,
}

fn find<'n>(root: &'n SpannedNode, base: &[String], path: &ObjectPath) -> Result<&'n SpannedNode, String> {
    let whole = [base, path].concat();
    match root.find(&whole) {
        Some(SpannedNode { kind: SpannedKind::Alias, .. }) | None => Err(shared(path)),
        Some(node) => Ok(node),
    }
}

fn shared(path: &[String]) -> String {
    format!(
        "`{}` is a YAML alias or comes from a merge key: what is added there would be added elsewhere, too; write it out, or use -o json",
        path.join(".")
    )
}

fn line_start(text: &str, at: usize) -> usize {
    text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |found| found + 1)
}

fn column(text: &str, at: usize) -> usize {
    text.get(line_start(text, at)..at).map_or(0, |before| before.chars().count())
}

/// The dash of an item of a block list, whose content begins at this byte.
fn dash(text: &str, item: usize) -> Option<usize> {
    let mut end = item;
    loop {
        let start = line_start(text, end);
        let line = text.get(start..end)?;
        let indent = line.len() - line.trim_start_matches([' ', '\u{feff}']).len();
        // `- - x`: the last of the dashes that the line begins with.
        let dashes = line.get(indent..)?;
        let run = dashes.len() - dashes.trim_start_matches(['-', ' ']).len();
        if let Some(last) = dashes.get(..run)?.rfind('-') {
            return Some(start + indent + last);
        }
        end = start.checked_sub(1)?;
    }
}

/// The text with the changes made; `None` if they overlap.
pub(crate) fn change(text: &str, mut changes: Vec<TextChange>) -> Option<String> {
    // The sort is stable: equal ones keep their order.
    changes.sort_by_key(|change| (change.range.start, change.range.end, std::cmp::Reverse(change.depth)));
    take_last_break(text, &mut changes);
    let mut out = String::with_capacity(text.len() + 4096);
    let mut at = 0;
    for change in changes {
        out.push_str(text.get(at..change.range.start)?);
        out.push_str(&change.text);
        at = change.range.end;
    }
    out.push_str(text.get(at..)?);
    Some(out)
}

/// If lines are removed at the end of a text without a last line break, the line break before them is removed as well.
fn take_last_break(text: &str, changes: &mut [TextChange]) {
    if text.ends_with('\n') {
        return;
    }
    let mut end = text.len();
    let mut first = None;
    for change in changes.iter_mut().rev() {
        if change.range.end != end || change.range.is_empty() || !change.text.is_empty() {
            break;
        }
        end = change.range.start;
        first = Some(change);
    }
    if let Some(change) = first
        && let Some(before) = text.get(..end).and_then(|before| before.strip_suffix('\n'))
    {
        // The added line break is a CRLF only if the text has others; otherwise the CR belongs to the text.
        let own = before.strip_suffix('\r').filter(|own| own.contains("\r\n"));
        change.range.start = own.unwrap_or(before).len();
    }
}

/// The first mapping in a mapping, and the first list in one.
#[derive(Default)]
struct Indentation {
    step: Option<usize>,
    list: Option<(usize, usize)>,
}

impl Indentation {
    fn look(&mut self, node: &SpannedNode) {
        match &node.kind {
            SpannedKind::Mapping { flow: false, entries } => {
                for entry in entries {
                    match &entry.value.kind {
                        SpannedKind::Mapping { flow: false, .. } if self.step.is_none() => {
                            self.step = entry.value.column.checked_sub(entry.key.column);
                        }
                        SpannedKind::Sequence { flow: false, items } if self.list.is_none() => {
                            self.list = items.first().map(|first| (entry.key.column, first.start));
                        }
                        _ => {}
                    }
                    self.look(&entry.value);
                }
            }
            SpannedKind::Sequence { items, .. } => items.iter().for_each(|item| self.look(item)),
            _ => {}
        }
    }
}
