//! Lines of a HAProxy config: words with quotes and escapes, in sections.

use std::sync::Arc;

use crate::tree::FileLine;

/// A line.
#[derive(Clone, Debug)]
pub(crate) struct ConfigLine {
    pub(crate) at: FileLine,
    pub(crate) words: Vec<String>,
}

impl ConfigLine {
    pub(crate) fn word(&self, index: usize) -> &str {
        self.words.get(index).map_or("", String::as_str)
    }

    /// The words behind `index`.
    pub(crate) fn rest(&self, index: usize) -> &[String] {
        self.words.get(index..).unwrap_or_default()
    }

    /// The word behind this one.
    pub(crate) fn after(&self, word: &str) -> Option<&str> {
        let index = self.words.iter().position(|own| own == word)?;
        self.words.get(index + 1).map(String::as_str)
    }

    /// Whether the line has an environment variable.
    pub(crate) fn varies(&self) -> bool {
        self.words.iter().any(|word| word.contains(VARIABLE))
    }

    pub(crate) fn has(&self, word: &str) -> bool {
        self.words.iter().any(|own| own == word)
    }
}

/// A section: its first line, and those in it.
#[derive(Clone, Debug)]
pub(crate) struct ConfigSection {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) head: ConfigLine,
    pub(crate) lines: Vec<ConfigLine>,
}

const SECTIONS: &[&str] = &[
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "resolvers",
    "userlist",
    "peers",
    "mailers",
    "cache",
    "program",
    "http-errors",
    "ring",
    "log-forward",
    "fcgi-app",
    "crt-store",
    "log-profile",
    "traces",
    "acme",
];

pub(crate) fn sections(text: &str, file: &str) -> Vec<ConfigSection> {
    let file: Arc<str> = file.into();
    let mut out: Vec<ConfigSection> = Vec::new();
    // The innermost `.if` that is open. It is a line of the sections that begin in it, which the import refuses then.
    let mut open: Vec<ConfigLine> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let words = words(line);
        let Some(first) = words.first() else { continue };
        // Messages that HAProxy prints when it reads the config.
        if matches!(first.as_str(), ".notice" | ".diag" | ".warning" | ".alert") {
            continue;
        }
        let line = ConfigLine {
            at: FileLine { file: Arc::clone(&file), line: index as u32 + 1 },
            words: words.clone(),
        };
        match first.as_str() {
            ".if" => open.push(line.clone()),
            ".endif" => drop(open.pop()),
            _ => {}
        }
        if SECTIONS.contains(&first.as_str()) {
            let name = line.word(1).to_owned();
            let lines = open.last().cloned().into_iter().collect();
            out.push(ConfigSection { kind: first.clone(), name, head: line, lines });
        } else if let Some(section) = out.last_mut() {
            section.lines.push(line);
        }
    }
    out
}

/// Replaces the `$` of an environment variable.
const VARIABLE: &str = "\0$";

pub(crate) fn words(line: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                if let Some(c) = chars.next() {
                    // Other characters keep their backslash: `\.` and `\1` are for expressions.
                    let word = word.get_or_insert_default();
                    if !matches!(c, ' ' | '#' | '\\' | '"' | '\'') {
                        word.push('\\');
                    }
                    word.push(c);
                }
            }
            (None, '#') => break,
            (None, c) if c.is_whitespace() => out.extend(word.take()),
            // HAProxy inserts environment variables here; their values are unknown.
            (Some('"'), '$')
                if chars.clone().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_' || c == '{') =>
            {
                word.get_or_insert_default().push_str(VARIABLE);
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    out.extend(word);
    out
}

/// A time of HAProxy, milliseconds without a unit, in attache's notation.
pub(crate) fn time(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text.get(..end)?.parse().ok()?;
    let unit = match text.get(end..)? {
        "" => "ms",
        unit @ ("us" | "ms" | "s" | "m" | "h" | "d") => unit,
        _ => return None,
    };
    (number > 0).then(|| format!("{number}{unit}"))
}
