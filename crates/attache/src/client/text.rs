//! Text for a terminal: text from other programs is escaped, and colours are used only on a terminal.

use std::{fmt::Write as _, io::IsTerminal as _, time::Duration};

use serde_json::Value;

/// Escapes everything that could move the cursor, and cuts the text to `most` characters.
pub(super) fn clean(text: &str, most: usize) -> String {
    let mut out = String::with_capacity(text.len().min(most));
    for c in text.chars() {
        // This includes bidirectional controls: they can make one text look like another.
        let hidden = c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        if hidden {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    if out.chars().count() > most {
        out = out.chars().take(most.saturating_sub(1)).chain(['…']).collect();
    }
    out
}

/// A colour, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Plain,
    Dim,
    Bold,
    Good,
    Warn,
    Bad,
}

/// Whether text is coloured.
#[derive(Clone, Copy, Debug)]
pub(super) struct ColourMode(bool);

impl ColourMode {
    /// Colours if standard output is a terminal and `NO_COLOR` isn't set.
    pub(super) fn stdout() -> Self {
        Self(std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none())
    }

    /// No colours.
    pub(super) const fn none() -> Self {
        Self(false)
    }

    pub(super) fn colour(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Plain => return text.to_owned(),
            Colour::Dim => "2",
            Colour::Bold => "1",
            Colour::Good => "32",
            Colour::Warn => "33",
            Colour::Bad => "31",
        };
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A duration such as `3d 4h` or `2m 5s`: two units at most.
pub(super) fn span(seconds: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let first = units.iter().position(|(size, _)| seconds >= *size).unwrap_or(units.len() - 1);
    let mut left = seconds;
    let mut parts = Vec::new();
    for (size, unit) in units.iter().skip(first).take(2) {
        if left / size > 0 || parts.is_empty() {
            parts.push(format!("{}{unit}", left / size));
        }
        left %= size;
    }
    parts.join(" ")
}

/// Milliseconds in a form for people; `-` if there is no value.
pub(super) fn millis(value: &Value) -> String {
    match value.as_f64() {
        None => "-".to_owned(),
        Some(millis) if millis < 10.0 => format!("{millis:.1} ms"),
        Some(millis) if millis < 1000.0 => format!("{millis:.0} ms"),
        Some(millis) => format!("{:.1} s", millis / 1000.0),
    }
}

/// A share as a percentage; `-` if there were no calls. It is never rounded up to 100 %.
pub(super) fn percent(value: &Value) -> String {
    match value.as_f64() {
        None => "-".to_owned(),
        Some(share) if share >= 1.0 => "100 %".to_owned(),
        Some(share) => format!("{:.2} %", (share * 10_000.0).floor() / 100.0),
    }
}

/// The colour for a share of successes.
pub(super) fn success_colour(value: &Value) -> Colour {
    match value.as_f64() {
        Some(share) if share < 0.95 => Colour::Bad,
        Some(share) if share < 0.999 => Colour::Warn,
        Some(_) => Colour::Good,
        None => Colour::Plain,
    }
}

pub(super) fn rate(value: &Value) -> String {
    match value.as_f64().unwrap_or(0.0) {
        rate if rate >= 100.0 => format!("{rate:.0}/s"),
        rate => format!("{rate:.1}/s"),
    }
}

/// A text field; empty if there is none.
pub(super) fn field<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A list; empty if there is none.
pub(super) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Columns of equal width: the first is aligned left, the others right.
pub(super) fn table(head: &[&str], rows: &[Vec<(Colour, String)>], paint: ColourMode) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|(_, text)| text.chars().count());
        cells.chain(head.get(column).map(|text| text.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = (Colour, &str)>| {
        let mut line = String::new();
        for (column, ((colour, text), width)) in cells.zip(&widths).enumerate() {
            let pad = " ".repeat(width.saturating_sub(text.chars().count()));
            let text = paint.colour(colour, text);
            if column == 0 {
                line.push_str(&text);
                line.push_str(&pad);
            } else {
                line.push_str("  ");
                line.push_str(&pad);
                line.push_str(&text);
            }
        }
        line.push('\n');
        line
    };
    let mut out = line(&mut head.iter().map(|text| (Colour::Dim, *text)));
    for row in rows {
        out.push_str(&line(&mut row.iter().map(|(colour, text)| (*colour, text.as_str()))));
    }
    out
}

/// A duration for a query string.
pub(super) fn duration(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_from_other_programs_can_not_move_the_cursor() {
        assert_eq!(clean("/a\u{1b}[2J\n\u{202e}b", 80), "/a\\u{1b}[2J\\u{a}\\u{202e}b");
        assert_eq!(clean("abcdef", 4), "abc…");
    }

    #[test]
    fn numbers_are_short() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (61, "1m 1s"), (3600, "1h"), (90_000, "1d 1h")] {
            assert_eq!(span(seconds), text);
        }
        assert_eq!(percent(&json!(0.99999)), "99.99 %");
        assert_eq!(percent(&json!(null)), "-");
        assert_eq!(
            (millis(&json!(1.26)), millis(&json!(12.6)), millis(&json!(1260))),
            ("1.3 ms".into(), "13 ms".into(), "1.3 s".into())
        );
    }

    #[test]
    fn columns_are_below_their_heads() {
        let rows = vec![
            vec![(Colour::Plain, "orders".to_owned()), (Colour::Good, "12/s".to_owned())],
            vec![(Colour::Plain, "a".to_owned()), (Colour::Bad, "1234/s".to_owned())],
        ];
        assert_eq!(
            table(&["upstream", "rate"], &rows, ColourMode::none()),
            "upstream    rate\norders      12/s\na         1234/s\n"
        );
    }
}
