//! Quoted texts of several lines whose continuation isn't indented deeper than their key.
//!
//! YAML 1.2 asks for that indentation (section 7.3, `s-flow-line-prefix`), go-yaml and so kubectl don't, and manifests in the wild count on
//! it. What a line begins with means nothing inside of quotes: it is folded away. So the parser is given the text with such lines
//! indented, and every place that it names is brought back to the text as it was written.

use std::borrow::Cow;

use serde_saphyr::granit_parser::{ErrorKind, ScanError};

/// Deeper than any mapping of a manifest.
const INDENTATION: usize = 256;
/// Lines that are repaired in one text; each means that it is parsed once more.
const MAX_REPAIRED_LINES: usize = 2000;

/// A text, and how it is given to the parser.
pub(crate) struct Repaired<'t> {
    original: &'t str,
    text: Cow<'t, str>,
    /// Where spaces were put in, as offsets of the original, in their order.
    lines: Vec<usize>,
}

impl<'t> Repaired<'t> {
    pub(crate) fn new(original: &'t str) -> Self {
        Self { original, text: original.into(), lines: Vec::new() }
    }

    pub(crate) fn original(&self) -> &'t str {
        self.original
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Indents the line of this error, if that is what is wrong with it. True if it is worth another attempt.
    pub(crate) fn repair(&mut self, error: &ScanError) -> bool {
        let is_this = matches!(error.kind(), ErrorKind::InvalidQuotedScalarIndent);
        let Some(line) = error.marker().line().checked_sub(1) else { return false };
        // The parser ends lines at LF, CR LF, and CR.
        let ends = line_ends(self.original);
        let start = if line == 0 { 0 } else { ends.get(line - 1).copied().unwrap_or(self.original.len()) };
        // A marker of a document ends it, also for kubectl.
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

    /// The offset in the original of one in the repaired text.
    pub(crate) fn place(&self, offset: usize) -> usize {
        let mut added = 0;
        for line in &self.lines {
            if offset <= line + added {
                break;
            }
            // Inside of what was put in there is nothing of the original.
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
    fn a_quoted_text_may_go_on_at_the_indentation_of_its_key() {
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
    fn places_are_those_of_the_text_as_it_was_written() {
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
