//! How values are written in a line.

use std::{fmt, time::Duration};

use serde::{Serialize, Serializer};

use crate::escape::escape;

/// The duration in milliseconds, from whole microseconds.
pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// A field without quotes: it contains no whitespace, and it is never empty.
pub(super) struct UnquotedField<'a>(pub(super) &'a str);

impl fmt::Display for UnquotedField<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("-") } else { escape(self.0, plain, f) }
    }
}

/// A field in quotes.
pub(super) struct Quoted<'a>(pub(super) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(self.0, |c| plain(c) || c == ' ', f)
    }
}

fn plain(c: char) -> bool {
    c.is_ascii_graphic() && c != '"' && c != '\\'
}

/// Written as the text that it displays, without a string in between.
pub(super) struct AsText<T>(pub(super) T);

impl<T: fmt::Display> Serialize for AsText<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
