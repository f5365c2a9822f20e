//! What a value of a header or a claim must be.

use attache_config::model::ValuePattern;

use crate::truth::Truth;

pub(crate) fn matches(pattern: &ValuePattern, value: &[u8]) -> Truth {
    match pattern {
        ValuePattern::Present => Truth::Yes,
        ValuePattern::Exact(text) => (value == text.as_bytes()).into(),
        ValuePattern::Prefix(text) => value.starts_with(text.as_bytes()).into(),
        ValuePattern::Suffix(text) => value.ends_with(text.as_bytes()).into(),
        // Bytes that are not text could be read as any text.
        ValuePattern::Regex(regex) => {
            std::str::from_utf8(value).map_or(Truth::Unsure, |text| regex.is_match(text).into())
        }
    }
}
