//! Texts with their own syntax: [`notations`] declares them; the other modules read them.

mod access;
mod address;
mod grammar;
mod header;
mod notations;
mod observe;
mod pattern;
mod retry;
mod source;
mod units;
mod web;
mod words;

pub(crate) use grammar::expand;
pub(crate) use notations::*;
pub(crate) use observe::OtlpUrl;
pub(crate) use pattern::captures;
pub(crate) use source::{Scheme, UpstreamAddress};
pub(crate) use units::{RequestRate, SplitWeight, show_duration, show_ratio, show_size, show_timeout};
pub use words::has_requests;
pub(crate) use words::{Authority, named_captures};

/// Why a text can't be read.
#[derive(Debug)]
pub(crate) struct NotationError {
    /// What is wrong; `{}` at the begin stands for the text itself.
    pub(crate) what: String,
    /// What would be right.
    pub(crate) help: String,
}

impl NotationError {
    /// What is wrong with this text, as it is shown.
    pub(crate) fn message(&self, text: &str) -> String {
        // Any further braces belong to the user's text.
        match self.what.strip_prefix("{}") {
            Some(rest) => format!("{text}{rest}"),
            None => self.what.clone(),
        }
    }

    /// The same error about a part of the text.
    fn of(self, part: &str) -> Self {
        Self { what: self.message(&format!("`{part}`")), ..self }
    }
}

pub(crate) fn wrong<T>(what: impl Into<String>, help: impl Into<String>) -> Result<T, NotationError> {
    Err(NotationError { what: what.into(), help: help.into() })
}

/// Which numbers of YAML are texts of a notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NumberTexts {
    /// None.
    None,
    /// All.
    Any,
    /// Those from the first to the second.
    From(u64, u64),
}

/// The parts of a notation that the schema shows, and the check of a text.
#[derive(Debug)]
pub(crate) struct Syntax {
    /// Its name in the schema.
    pub(crate) format: &'static str,
    /// Its name in a sentence, with its article.
    pub(crate) what: &'static str,
    /// Texts that are right.
    pub(crate) examples: &'static [&'static str],
    /// The pattern that an editor checks; see [`expand`].
    pub(crate) pattern: &'static str,
    /// Numbers that are such texts.
    pub(crate) numbers: NumberTexts,
    /// Reads a text, without its value.
    pub(crate) check: fn(&str) -> Result<(), NotationError>,
}

impl Syntax {
    /// The notation of this format.
    pub(crate) fn of(format: &str) -> Option<&'static Self> {
        all().find(|syntax| syntax.format == format)
    }
}

/// A notation that is read from one text.
pub(crate) trait TextNotation {
    /// The value that the text stands for.
    type Value;

    const SYNTAX: Syntax;

    fn parse(text: &str) -> Result<Self::Value, NotationError>;
}

/// A notation in which values of the model are shown, too.
pub(crate) trait Unit: TextNotation {
    fn show(value: &Self::Value) -> String;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_right() {
        for Syntax { format, examples, check, .. } in all() {
            for example in *examples {
                check(example).unwrap_or_else(|wrong| panic!("{format}: {example}: {wrong:?}"));
            }
        }
    }

    #[test]
    fn braces_of_the_text_itself_stay_in_the_message() {
        let wrong = PathText::parse("/{}").unwrap_err();
        assert_eq!(wrong.message("`/{}`"), "`{}` isn't a capture");
        let wrong = HeaderText::parse("{}").unwrap_err();
        assert_eq!(wrong.message("`{}`"), "`{}` isn't a header name");
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}", index in 0usize..64) {
            let syntax = all().nth(index % all().count()).unwrap();
            let _ = (syntax.check)(&text);
        }
    }
}
