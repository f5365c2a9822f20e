//! Several JSON objects one after the other, as `jq -c` writes them and kubectl reads them. They are not YAML together,
//! so each is read as a separate text.

use serde::de::IgnoredAny;

use super::InjectedText;
use crate::yaml;

/// Whether the text is one JSON object.
pub(super) fn is_json(text: &str) -> bool {
    text.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// The objects of a stream, each with the white space before it; any other text is one piece.
pub(super) fn pieces(text: &str) -> Vec<&str> {
    let whole = vec![text];
    if !text.trim_start().starts_with('{') || is_json(text) || yaml::parse(text).is_ok() {
        return whole;
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let (mut pieces, mut begun) = (Vec::new(), 0);
    while let Some(value) = values.next() {
        let end = values.byte_offset();
        let Some(piece) = text.get(begun..end).filter(|_| value.is_ok()) else { return whole };
        // Only objects: a number could be the end of another text.
        if !piece.trim_start().starts_with('{') {
            return whole;
        }
        pieces.push(piece);
        begun = end;
    }
    match (pieces.pop(), text.get(begun..)) {
        (Some(last), Some(rest)) => {
            let from = begun - last.len();
            pieces.push(text.get(from..from + last.len() + rest.len()).unwrap_or(last));
            pieces
        }
        _ => whole,
    }
}

/// Does the work for each piece, and joins the results.
pub(super) fn each(
    text: &str,
    work: impl Fn(&str) -> Result<InjectedText, String>,
) -> Result<InjectedText, String> {
    let pieces = pieces(text);
    let mut all = InjectedText {
        text: String::new(),
        reports: Vec::new(),
        warnings: Vec::new(),
        has_unnamed_image: false,
    };
    for (index, piece) in pieces.iter().enumerate() {
        let done = work(piece).map_err(|wrong| match pieces.len() {
            1 => wrong,
            _ => format!("object {} of a stream: {wrong}", index + 1),
        })?;
        all.text.push_str(&done.text);
        all.reports.extend(done.reports);
        all.warnings.extend(done.warnings);
        all.has_unnamed_image |= done.has_unnamed_image;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_split_without_losing_a_byte() {
        for (text, count) in [
            ("{\"a\": 1}\n{\"b\": \"}{\"}\n", 2),
            ("  {}{}  {\n\t\"a\": {}}\n\n", 3),
            ("{\"a\": 1}", 1),
            ("{\n\t\"a\": 1\n}\n", 1),
            ("{a: 1}\n", 1),
            ("{}\n---\n{}\n", 1),
            ("{} 1", 1),
            ("{} {", 1),
            ("a: 1\n", 1),
            ("", 1),
        ] {
            let pieces = pieces(text);
            assert_eq!(pieces.len(), count, "{text:?}: {pieces:?}");
            assert_eq!(pieces.concat(), text);
        }
    }
}
