//! The lines of a watch: one JSON object each, in pieces of any size.

/// Bytes of one line; an object of etcd has 1.5 MiB at most.
const MAX_LINE_BYTES: usize = 4 << 20;

/// Gathers pieces to lines.
#[derive(Debug, Default)]
pub(super) struct LineReader(Vec<u8>);

/// A line is longer than any line that an API server sends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl LineReader {
    /// The lines that this piece completes, without line ends; empty lines are left out.
    pub(super) fn take(&mut self, mut piece: &[u8]) -> Result<Vec<Vec<u8>>, TooLong> {
        let mut lines = Vec::new();
        while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = piece.split_at(end);
            self.0.extend_from_slice(line);
            piece = rest.get(1..).unwrap_or_default();
            let line = std::mem::take(&mut self.0);
            if !line.trim_ascii().is_empty() {
                lines.push(line);
            }
        }
        self.0.extend_from_slice(piece);
        if self.0.len() > MAX_LINE_BYTES { Err(TooLong) } else { Ok(lines) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lines_are_the_same_however_they_are_cut(lines in prop::collection::vec("[a-z]{1,9}", 0..9), cuts in prop::collection::vec(1..5_usize, 1..9)) {
            let text = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect::<String>();
            let (mut reader, mut rest, mut found) = (LineReader::default(), text.as_bytes(), Vec::new());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                found.extend(reader.take(piece).unwrap());
                rest = after;
            }
            prop_assert_eq!(found, lines.into_iter().map(String::into_bytes).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let mut reader = LineReader::default();
        assert_eq!(reader.take(&vec![b'x'; MAX_LINE_BYTES]), Ok(Vec::new()));
        assert_eq!(reader.take(b"x"), Err(TooLong));
    }
}
