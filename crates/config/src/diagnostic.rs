//! What is wrong with a file, where, and what would be right.
//!
//! Rule: every problem of a file is reported at once, in the order of the file; each with its line, so that the message can be understood
//! without the file.

use std::{fmt, path::Path};

use serde::{Deserialize, Serialize};

use crate::lookalikes;

/// A place in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Line, from 1; 0 is the file as a whole.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Length in characters; 0 reaches to the end of the line.
    pub length: u32,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file isn't used.
    Error,
    /// The file is used, but probably doesn't do what the user wants.
    Warning,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file's path as it was given, or a word for a text without a file.
    pub file: String,
    /// Where it is.
    #[serde(flatten)]
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
    /// The line of the file; empty where there is none.
    pub source: String,
}

/// Everything that is wrong with one file; at least one error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// The findings in the order of the file, for machines.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// For people; with ANSI colours if `coloured`.
    pub fn display(&self, coloured: bool) -> impl fmt::Display + '_ {
        Rendered { diagnostics: &self.0, coloured }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.display(false).fmt(f)
    }
}

impl std::error::Error for Diagnostics {}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.render(f, &Palette::PLAIN)
    }
}

impl Diagnostic {
    /// For people; with ANSI colours if `coloured`.
    pub fn display(&self, coloured: bool) -> impl fmt::Display + '_ {
        Rendered { diagnostics: std::slice::from_ref(self), coloured }
    }

    fn render(&self, f: &mut fmt::Formatter<'_>, palette: &Palette) -> fmt::Result {
        let Palette { bold, error, warning, place: dim, reset } = palette;
        let (colour, word) = match self.severity {
            Severity::Error => (error, "error"),
            Severity::Warning => (warning, "warning"),
        };
        write!(f, "{bold}{}", self.file)?;
        if self.place.line > 0 {
            write!(f, ":{}:{}", self.place.line, self.place.column)?;
        }
        writeln!(f, ": {colour}{word}:{reset}{bold} {}{reset}", self.message)?;
        let help = self.help.as_deref().unwrap_or_default();
        if self.place.line == 0 {
            return if help.is_empty() { Ok(()) } else { writeln!(f, "  {help}") };
        }
        let number = self.place.line.to_string();
        let gutter = " ".repeat(number.len());
        let (shown, indent, length) = window(&self.source, self.place);
        writeln!(f, "  {dim}{number} |{reset} {shown}")?;
        let carets = "^".repeat(length);
        let mut lines = help.lines();
        let first = lines.next().unwrap_or_default();
        writeln!(
            f,
            "  {dim}{gutter} |{reset} {indent}{colour}{carets}{}{first}{reset}",
            if first.is_empty() { "" } else { " " }
        )?;
        lines.try_for_each(|line| writeln!(f, "  {dim}{gutter} |{reset} {indent}{line}"))
    }
}

/// The part of a line that is shown, what stands before the caret, and the number of carets. A control character could
/// steer the reader's terminal, so each is shown as U+FFFD, a tab as one space.
fn window(source: &str, place: Place) -> (String, String, usize) {
    const WIDTH: usize = 140;
    let column = (place.column as usize).saturating_sub(1);
    let start = if column > WIDTH - 40 { column - 40 } else { 0 };
    let mut shown: String = source.chars().skip(start).take(WIDTH).map(printable).collect();
    if start > 0 {
        shown = shown.chars().skip(1).collect();
        shown.insert(0, '…');
    }
    let width = shown.trim_end().chars().count();
    let before = column - start;
    let rest = width.saturating_sub(before).max(1);
    let length = if place.length == 0 { rest } else { (place.length as usize).clamp(1, rest) };
    let shown = shown.trim_end().to_owned();
    (shown, " ".repeat(before.min(WIDTH)), length)
}

/// Lines as YAML counts them (section 5.4): a carriage return alone ends one, too.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(['\n', '\r'])
        .scan(false, |after_return, line| {
            // The line feed of a `\r\n` starts no new line.
            let feed = *after_return && line == "\n";
            *after_return = line.ends_with('\r');
            Some(if feed { None } else { Some(line.trim_end_matches(['\n', '\r'])) })
        })
        .flatten()
}

fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        // Bidirectional overrides would show another line than the one that is parsed.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

struct Rendered<'a> {
    diagnostics: &'a [Diagnostic],
    coloured: bool,
}

impl fmt::Display for Rendered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let palette = if self.coloured { &Palette::COLOURED } else { &Palette::PLAIN };
        self.diagnostics.iter().try_for_each(|item| item.render(f, palette))
    }
}

struct Palette {
    bold: &'static str,
    error: &'static str,
    warning: &'static str,
    place: &'static str,
    reset: &'static str,
}

impl Palette {
    const PLAIN: Self = Self { bold: "", error: "", warning: "", place: "", reset: "" };
    const COLOURED: Self =
        Self { bold: "\x1b[1m", error: "\x1b[31m", warning: "\x1b[33m", place: "\x1b[34m", reset: "\x1b[0m" };
}

/// Collects findings while a file is read.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    found: Vec<ReportedProblem>,
    counts: ProblemCounts,
}

/// The state of [`Problems`] at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProblemsMark {
    found: usize,
    counts: ProblemCounts,
}

/// The numbers of reports. They decide whether a file is refused; the list that is shown may be shorter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ProblemCounts {
    /// All reports, repeated ones included.
    reports: usize,
    errors: usize,
    warnings: usize,
}

#[derive(Debug)]
struct ReportedProblem {
    severity: Severity,
    place: Place,
    message: String,
    help: Option<String>,
}

impl Problems {
    /// The most errors, and the most warnings, that are shown: nobody reads a longer list.
    const MAX_SHOWN: usize = 200;

    pub(crate) fn error(&mut self, place: Place, message: impl Into<String>) {
        self.push(Severity::Error, place, message.into(), None);
    }

    /// An error with what would be right.
    pub(crate) fn wrong(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.push(Severity::Error, place, message.into(), Some(help.into()));
    }

    pub(crate) fn warn(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.push(Severity::Warning, place, message.into(), Some(help.into()));
    }

    pub(crate) fn push(&mut self, severity: Severity, place: Place, message: String, help: Option<String>) {
        self.counts.reports += 1;
        if self.found.iter().any(|item| item.place == place && item.message == message) {
            return;
        }
        let full = self.is_full(severity);
        match severity {
            Severity::Error => self.counts.errors += 1,
            Severity::Warning => self.counts.warnings += 1,
        }
        if !full {
            let help = help.filter(|help| !help.is_empty());
            self.found.push(ReportedProblem { severity, place, message, help });
        }
    }

    /// The next report of this severity will be counted and not shown, so its help isn't needed.
    pub(crate) fn is_full(&self, severity: Severity) -> bool {
        let so_far = match severity {
            Severity::Error => self.counts.errors,
            Severity::Warning => self.counts.warnings,
        };
        so_far >= Self::MAX_SHOWN
    }

    pub(crate) fn any_error(&self) -> bool {
        self.counts.errors > 0
    }

    /// The state now. It equals an earlier mark if nothing was reported in between.
    pub(crate) fn mark(&self) -> ProblemsMark {
        ProblemsMark { found: self.found.len(), counts: self.counts }
    }

    /// Removes everything that was reported after the mark.
    pub(crate) fn take_back(&mut self, mark: ProblemsMark) {
        self.found.truncate(mark.found);
        self.counts = mark.counts;
    }

    /// Warnings about a refused file are of no use, and may be caused by its errors.
    pub(crate) fn only_errors(mut self) -> Self {
        self.found.retain(|item| item.severity == Severity::Error);
        self.counts.warnings = 0;
        self
    }

    /// With names and source lines, in the order of the file.
    pub(crate) fn finish(mut self, text: &str, file: Option<&Path>) -> Vec<Diagnostic> {
        let file = file.map_or_else(|| "config".to_owned(), |file| file.to_string_lossy().into_owned());
        self.found.sort_by_key(|item| (item.place.line, item.place.column));
        let lines: Vec<&str> = lines(text).collect();
        let hidden = (self.counts.errors + self.counts.warnings).saturating_sub(self.found.len());
        let hidden = (hidden > 0).then(|| Diagnostic {
            severity: if self.counts.errors > 0 { Severity::Error } else { Severity::Warning },
            file: file.clone(),
            place: Place::default(),
            message: format!("{hidden} more are not shown"),
            help: None,
            source: String::new(),
        });
        let found = self.found.into_iter();
        found
            .map(|ReportedProblem { severity, place, message, help }| {
                let source = lines.get((place.line as usize).wrapping_sub(1)).copied().unwrap_or("");
                // The parser's place for invalid YAML is not always the place of the cause.
                let about =
                    if message.starts_with(NOT_YAML) { source.to_owned() } else { within(source, place) };
                Diagnostic {
                    severity,
                    file: file.clone(),
                    place,
                    message: message.chars().map(printable).collect(),
                    help: lookalikes::in_text(&about).filter(|_| severity == Severity::Error).or(help),
                    source: source.to_owned(),
                }
            })
            .chain(hidden)
            .collect()
    }
}

/// What a message about a text that isn't YAML begins with.
pub(crate) const NOT_YAML: &str = "not valid YAML";

/// The part of a line that a place is about.
fn within(line: &str, place: Place) -> String {
    let length = if place.length == 0 { usize::MAX } else { place.length as usize };
    line.chars().skip((place.column as usize).saturating_sub(1)).take(length).collect()
}

impl From<Vec<Diagnostic>> for Diagnostics {
    fn from(found: Vec<Diagnostic>) -> Self {
        Self(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_as_yaml_counts_them() {
        assert_eq!(lines("a\nb\r\nc\rd\n\ne").collect::<Vec<_>>(), ["a", "b", "c", "d", "", "e"]);
        assert_eq!(lines("\r\n\r\n\rx").collect::<Vec<_>>(), ["", "", "", "x"]);
    }
}
