//! Explains why a text is not YAML, in words for the person who wrote it. The parser's messages are about its own
//! rules, and its place is often after the cause.

use serde_saphyr::granit_parser::ScanError;

use crate::diagnostic::{NOT_YAML, Place, Problems, lines};

/// Reports why the text can't be parsed.
pub(crate) fn not_yaml(text: &str, error: &ScanError, problems: &mut Problems) {
    let (line, column) = (error.marker().line(), error.marker().col());
    let tab = indenting_tab(text, line, error);
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
    let (line, column, help) = cause(text, line, column, tab, error);
    let place = Place { line: line as u32, column: column as u32 + 1, length: 1 };
    problems.wrong(place, format!("{NOT_YAML}: {}", error.info()), help);
}

/// A tab in the indentation, and where.
fn indenting_tab(text: &str, line: usize, error: &ScanError) -> Option<(usize, usize)> {
    // The parser reports a tab in the indentation one line before or after it. In a text of several lines it reports
    // the line where that text begins.
    let within = if error.info().contains("found a tab") { usize::MAX } else { 2 };
    let near = lines(text).enumerate().skip(line.saturating_sub(1)).take(within);
    let mut tabs = near.filter_map(|(index, line)| {
        let indent = line.len() - line.trim_start().len();
        line.get(..indent).and_then(|indent| indent.find('\t')).map(|column| (index + 1, column))
    });
    tabs.next()
}

/// The likely cause of an error: its place, and what to do.
fn cause(
    text: &str,
    line: usize,
    column: usize,
    tab: Option<(usize, usize)>,
    error: &ScanError,
) -> (usize, usize, &'static str) {
    let no_colon = |line: &str| {
        let word = line.trim();
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    let above = lines(text).nth(line.saturating_sub(2)).filter(|above| line >= 2 && no_colon(above));
    match tab {
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
        None if error.info().contains("trailing content after single-quoted") => (
            line,
            column,
            "the quote before this ends the value; a `'` within `'…'` is written twice: `'it''s'`",
        ),
        None if error.info().contains("trailing content after double-quoted") => {
            (line, column, r#"the quote before this ends the value; a `"` within `"…"` is written `\"`"#)
        }
        None if error.info().contains("quoted scalar")
            && let Some((line, column)) = open_quote(text, line) =>
        {
            (line, column, "a quote is opened here and not closed")
        }
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
    }
}

/// The first line of a conflict that git or another program left in the file.
pub(crate) fn unfinished_merge(text: &str) -> Option<u32> {
    let is_mark = |line: &str| line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> ");
    lines(text).position(is_mark).map(|index| index as u32 + 1)
}

const DEEP: &str = "a config never has this many levels: is a bracket not closed?";

/// The line and column of the last value before an error whose opening quote is not closed in its line.
fn open_quote(text: &str, near: usize) -> Option<(usize, usize)> {
    let opened = |(index, line): (usize, &str)| {
        let value = line.rfind(": ").map_or(0, |at| at + 2);
        let value = value.max(line.rfind("- ").map_or(0, |at| at + 2));
        let rest = line.get(value..)?;
        let quote = rest.trim_start().chars().next().filter(|first| matches!(first, '"' | '\''))?;
        let start = value + rest.len() - rest.trim_start().len();
        (rest.matches(quote).count() % 2 == 1)
            .then(|| (index + 1, line.get(..start).unwrap_or_default().chars().count()))
    };
    lines(text).enumerate().take(near).filter_map(opened).last()
}

/// The place of the last line before an error that begins like a comment of other languages.
fn slashes(text: &str, near: usize) -> Option<(usize, usize)> {
    let slashed = |(index, line): (usize, &str)| {
        let content = line.trim_start();
        content.starts_with("//").then_some((index + 1, line.len() - content.len()))
    };
    lines(text).enumerate().take(near).filter_map(slashed).last()
}

/// The line at or just before an error whose indentation matches no line above it, or is deeper although the line above
/// has a value. Returns its number, its indentation, and those above it.
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
