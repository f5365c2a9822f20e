//! Compares a value of a header or a claim with a pattern.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_pattern_matches_its_values_and_no_others() {
        let regex = regex::Regex::new("^(?:a+)$").unwrap();
        for (pattern, value, expected) in [
            (ValuePattern::Present, "", Truth::Yes),
            (ValuePattern::Exact("ab".into()), "ab", Truth::Yes),
            (ValuePattern::Exact("ab".into()), "abc", Truth::No),
            (ValuePattern::Prefix("ab".into()), "abc", Truth::Yes),
            (ValuePattern::Prefix("ab".into()), "xab", Truth::No),
            (ValuePattern::Suffix("ab".into()), "xab", Truth::Yes),
            (ValuePattern::Suffix("ab".into()), "abx", Truth::No),
            (ValuePattern::Regex(regex.clone().into()), "aa", Truth::Yes),
            (ValuePattern::Regex(regex.into()), "ab", Truth::No),
        ] {
            assert_eq!(matches(&pattern, value.as_bytes()), expected, "{pattern} {value}");
        }
    }
}
