//! Quoted texts of several lines whose continuation isn't indented deeper than their key.
//!
//! YAML 1.2 requires that indentation (section 7.3, `s-flow-line-prefix`). go-yaml, and so kubectl, don't, and real
//! manifests depend on it. Inside of quotes, spaces at the begin of a line have no meaning: they are folded away. So
//! the parser gets the text with such lines indented, and every position that it reports is translated back to the
//! original text.

use std::borrow::Cow;

use serde_saphyr::granit_parser::{ErrorKind, ScanError};

/// Deeper than any mapping of a manifest.
const INDENTATION: usize = 256;
/// The most repaired lines of one text; after each repair the text is parsed once more.
const MAX_REPAIRED_LINES: usize = 2000;

/// A text, and its form for the parser.
pub(crate) struct RepairedText<'t> {
    original: &'t str,
    text: Cow<'t, str>,
    /// Where spaces were added, as offsets of the original text, in their order.
    lines: Vec<usize>,
}

impl<'t> RepairedText<'t> {
    pub(crate) fn new(original: &'t str) -> Self {
        Self { original, text: original.into(), lines: Vec::new() }
    }

    pub(crate) fn original(&self) -> &'t str {
        self.original
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Indents the line of this error, if the indentation is its problem. True if parsing again is worth it.
    pub(crate) fn repair(&mut self, error: &ScanError) -> bool {
        let is_this = matches!(error.kind(), ErrorKind::InvalidQuotedScalarIndent);
        let Some(line) = error.marker().line().checked_sub(1) else { return false };
        // The parser ends lines at LF, CR LF, and CR.
        let ends = line_ends(self.original);
        let start = if line == 0 { 0 } else { ends.get(line - 1).copied().unwrap_or(self.original.len()) };
        // A document marker ends the text, also for kubectl.
        let is_marker =
            self.original.get(start..).is_some_and(|rest| rest.starts_with("---") || rest.starts_with("..."));
        if !is_this || is_marker || self.lines.len() >= MAX_REPAIRED_LINES || self.lines.contains(&start) {
            return false;
        }
        let at = self.lines.partition_point(|other| *other < start);
        self.lines.insert(at, start);
        let mut text = String::with_capacity(self.original.len() + self.lines.len() * INDENTATION);
        let mut from = 0;
        for line in &self.lines {
            text.push_str(self.original.get(from..*line).unwrap_or_default());
            text.extend(std::iter::repeat_n(' ', INDENTATION));
            from = *line;
        }
        text.push_str(self.original.get(from..).unwrap_or_default());
        self.text = text.into();
        true
    }

    /// Translates an offset in the repaired text into one in the original.
    pub(crate) fn place(&self, offset: usize) -> usize {
        let mut added = 0;
        for line in &self.lines {
            if offset <= line + added {
                break;
            }
            // An offset inside of the added spaces has no counterpart in the original.
            added = (added + INDENTATION).min(offset - line);
        }
        offset - added
    }
}

/// Where each line but the first begins.
fn line_ends(text: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    (0..bytes.len())
        .filter(|at| match bytes.get(*at) {
            Some(b'\n') => true,
            Some(b'\r') => bytes.get(at + 1) != Some(&b'\n'),
            _ => false,
        })
        .map(|at| at + 1)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::yaml::parse;

    #[test]
    fn a_quoted_text_may_continue_at_the_indentation_of_its_key() {
        for (text, value) in [
            ("a:\n  b: \"one\n  two\"\n  c: 3\n", json!({"a": {"b": "one two", "c": 3}})),
            ("a:\n  b: 'one\ntwo\n\n three'\n  c: 3\n", json!({"a": {"b": "one two\nthree", "c": 3}})),
            ("a: \"x\\\ny\"\nb: 2\n", json!({"a": "xy", "b": 2})),
            ("- a: \"one\r\ntwo\"\r\n  b: 2\r\n", json!([{"a": "one two", "b": 2}])),
            ("a: \"one\n\"\n", json!({"a": "one "})),
        ] {
            let documents = parse(text).unwrap_or_else(|wrong| panic!("{text}: {wrong}"));
            assert_eq!(documents[0].value, value, "{text}");
        }
    }

    #[test]
    fn positions_are_those_of_the_original_text() {
        let text = "a: \"one\ntwo\"\nb: 'x\ny'\nc: [d]\n";
        let documents = parse(text).unwrap();
        for (key, written) in [("a", "a: \"one\ntwo\""), ("b", "b: 'x\ny'"), ("c", "c: [d]")] {
            let entry = documents[0].root.entry(&[key.to_owned()]).unwrap();
            assert_eq!(&text[entry.key.start..entry.value.end], written);
        }
    }

    #[test]
    fn a_text_that_never_ends_is_still_wrong() {
        assert!(parse("a: \"one\ntwo\n").is_err());
        assert!(parse("a: \"one\n---\ntwo\"\n").is_err(), "a document ends it, also for kubectl");
    }
}
