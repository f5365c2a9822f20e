//! Paths as other proxies match them, in attache's notation.
//!
//! A prefix of Envoy, HAProxy and nginx is a prefix of the text: `/service/1` also matches `/service/10`. attache's
//! `/service/1/*` ends on a segment. So such a prefix becomes a regular expression with the same meaning. attache tries regular
//! expressions in the order of the file, so rules in any order can be written as regular expressions.

use regex::Regex;

/// A condition on the path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PlannedPath {
    /// Every path that begins with `/`.
    #[default]
    All,
    /// No condition: also matches `OPTIONS *` and CONNECT.
    Any,
    /// This path.
    Exact(String),
    /// This path, and every path below it (`/a` and `/a/b`, not `/ab`).
    Segments(String),
    /// Every path that begins with this text.
    Text(String),
    /// Every path that this regular expression matches as a whole.
    Regex(String),
}

impl PlannedPath {
    /// Every path that begins with this text, in its simplest form.
    pub fn prefix(text: &str) -> Self {
        match text {
            "" | "/" => Self::All,
            text => Self::Text(text.to_owned()),
        }
    }

    /// In attache's notation; as a regular expression if `regex`.
    pub fn pattern(&self, regex: bool) -> Option<String> {
        if !regex {
            match self {
                Self::Any => return None,
                Self::All => return Some("/*".to_owned()),
                Self::Exact(path) if plain(path) => return Some(path.clone()),
                Self::Segments(path) if plain(path) => return Some(format!("{path}/*")),
                _ => {}
            }
        }
        Some(format!("~{}", self.expression()))
    }

    /// A regular expression over the whole path.
    pub fn expression(&self) -> String {
        match self {
            Self::All | Self::Any => "/.*".to_owned(),
            Self::Exact(path) => regex::escape(path),
            Self::Segments(path) => format!("{}(?:/.*)?", regex::escape(path)),
            Self::Text(path) => format!("{}.*", regex::escape(path)),
            Self::Regex(regex) => regex.clone(),
        }
    }

    /// The same condition, as an expression whose group `rest` is the text after the prefix, for a rewriting.
    pub fn with_rest(&self) -> Self {
        Self::Regex(match self {
            Self::All | Self::Any => "/(?<rest>.*)".to_owned(),
            Self::Exact(path) => format!("{}(?<rest>)", regex::escape(path)),
            Self::Segments(path) => format!("{}(?<rest>(?:/.*)?)", regex::escape(path)),
            Self::Text(path) => format!("{}(?<rest>.*)", regex::escape(path)),
            Self::Regex(regex) => regex.clone(),
        })
    }

    /// Whether it can be written without a regular expression.
    pub fn is_nice(&self) -> bool {
        match self {
            Self::All | Self::Any => true,
            Self::Exact(path) | Self::Segments(path) => plain(path),
            Self::Text(_) | Self::Regex(_) => false,
        }
    }

    /// The sort key of attache's order: exact, prefix (more segments first), regular expression, none.
    pub(crate) fn rank(&self, regex: bool) -> (u8, std::cmp::Reverse<usize>) {
        let segments = |path: &str| std::cmp::Reverse(path.split('/').count());
        match self {
            Self::Any if !regex => (4, std::cmp::Reverse(0)),
            _ if regex || !self.is_nice() => (3, std::cmp::Reverse(0)),
            Self::Exact(_) => (0, std::cmp::Reverse(0)),
            Self::Segments(path) => (2, segments(path)),
            _ => (2, std::cmp::Reverse(0)),
        }
    }

    /// Whether some path may match both. Never false if there is such a path.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), b) | (b, Self::Exact(a)) => b.takes(a),
            (a, b) => match (a.start(), b.start()) {
                (Some(a), Some(b)) => a.starts_with(b) || b.starts_with(a),
                _ => true,
            },
        }
    }

    /// The text that every matching path begins with, if it is known.
    pub(crate) fn start(&self) -> Option<&str> {
        match self {
            Self::All => Some("/"),
            Self::Exact(path) | Self::Segments(path) | Self::Text(path) => Some(path),
            Self::Any | Self::Regex(_) => None,
        }
    }

    /// Whether it matches this path. True if the expression can't be parsed.
    pub fn takes(&self, path: &str) -> bool {
        match self {
            Self::Any => true,
            Self::All => path.starts_with('/'),
            Self::Exact(own) => own == path,
            Self::Segments(own) => {
                path.strip_prefix(own.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Text(own) => path.starts_with(own.as_str()),
            Self::Regex(regex) => {
                Regex::new(&format!("^(?:{regex})$")).map_or(true, |regex| regex.is_match(path))
            }
        }
    }

    /// The condition that both hold. `Some(None)`: no path matches both. `None`: it can't be expressed.
    #[allow(clippy::option_option)]
    pub fn both(&self, other: &Self) -> Option<Option<Self>> {
        if !self.overlaps(other) {
            return Some(None);
        }
        match (self, other) {
            (Self::Any, b) => Some(Some(b.clone())),
            (a, Self::Any) => Some(Some(a.clone())),
            (Self::All, b) => Some(Some(b.clone())),
            (a, Self::All) => Some(Some(a.clone())),
            (Self::Exact(a), _) | (_, Self::Exact(a)) => Some(Some(Self::Exact(a.clone()))),
            (a, b) if a == b => Some(Some(a.clone())),
            (Self::Text(a), Self::Text(b)) => {
                Some(Some(Self::Text(if a.len() >= b.len() { a.clone() } else { b.clone() })))
            }
            (Self::Segments(a), Self::Text(b)) | (Self::Text(b), Self::Segments(a))
                if a.starts_with(b.as_str()) =>
            {
                Some(Some(Self::Segments(a.clone())))
            }
            (Self::Segments(a), Self::Segments(b)) => {
                let (long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
                Some(Self::Segments(short.clone()).takes(long).then(|| Self::Segments(long.clone())))
            }
            _ => None,
        }
    }
}

/// Whether attache reads this text as the path itself.
fn plain(path: &str) -> bool {
    path.starts_with('/')
        && path.bytes().all(|b| b.is_ascii_graphic() && !b"*{}#\"<>\\^`|?".contains(&b))
        && !path.ends_with('/')
        || path == "/"
        || (path.starts_with('/')
            && path.ends_with('/')
            && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-_.".contains(&b)))
}

/// An expression of RE2, PCRE or a proxy of those, as Rust's `regex` reads it, over the whole text.
/// `None` if Rust can't parse it: look-around and back-references.
pub fn expression(text: &str) -> Option<String> {
    Regex::new(text).ok()?;
    Some(text.to_owned())
}

/// An expression that may match anywhere in the text, over the whole text.
pub fn anywhere(text: &str) -> Option<String> {
    expression(text)?;
    let (start, rest) = match text.strip_prefix('^') {
        Some(rest) if !text.contains('|') => ("", rest),
        _ => (".*", text),
    };
    let (rest, end) = match rest.strip_suffix('$') {
        Some(inner) if !text.contains('|') && !inner.ends_with('\\') => (inner, ""),
        _ => (rest, ".*"),
    };
    let whole = if text.contains('|') { format!(".*(?:{text}).*") } else { format!("{start}{rest}{end}") };
    Regex::new(&whole).ok()?;
    Some(whole)
}

/// The groups of an expression get names, `g1`, `g2` and so on, by which a rewriting inserts them.
pub fn named(regex: &str) -> String {
    let mut out = String::with_capacity(regex.len() + 8);
    let mut group = 0;
    let mut class = false;
    let mut chars = regex.chars().peekable();
    while let Some(c) = chars.next() {
        out.push(c);
        match c {
            '\\' => out.extend(chars.next()),
            '[' => class = true,
            ']' => class = false,
            '(' if !class => {
                if chars.peek() == Some(&'?') {
                    let mut rest = chars.clone();
                    rest.next();
                    let named = matches!(rest.next(), Some('<' | 'P'));
                    group += usize::from(named);
                } else {
                    group += 1;
                    out.push_str(&format!("?<g{group}>"));
                }
            }
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_of_a_text_stays_one() {
        let path = PlannedPath::prefix("/service/1");
        assert_eq!(path.pattern(false).as_deref(), Some("~/service/1.*"));
        assert!(path.takes("/service/10") && !path.takes("/service"));
        assert_eq!(PlannedPath::prefix("/a/").pattern(false).as_deref(), Some("~/a/.*"));
        assert!(!PlannedPath::prefix("/a/").takes("/a"));
        assert_eq!(PlannedPath::prefix("/").pattern(false).as_deref(), Some("/*"));
    }

    #[test]
    fn groups_get_names() {
        assert_eq!(named(r"/a/(.*)/(?:x)\((b)"), r"/a/(?<g1>.*)/(?:x)\((?<g2>b)");
        assert_eq!(named("[(](?<n>a)(b)"), "[(](?<n>a)(?<g2>b)");
    }

    #[test]
    fn what_both_match() {
        let text = |text: &str| PlannedPath::Text(text.to_owned());
        assert_eq!(text("/a").both(&text("/ab")), Some(Some(text("/ab"))));
        assert_eq!(text("/a").both(&text("/b")), Some(None));
        assert_eq!(
            PlannedPath::Exact("/a/x".to_owned()).both(&text("/a")),
            Some(Some(PlannedPath::Exact("/a/x".to_owned())))
        );
        assert_eq!(PlannedPath::Regex("/a.*".to_owned()).both(&text("/a")), None);
    }

    #[test]
    fn an_expression_that_may_match_anywhere() {
        assert_eq!(anywhere("^/a").as_deref(), Some("/a.*"));
        assert_eq!(anywhere(r"\.php$").as_deref(), Some(r".*\.php"));
        assert_eq!(anywhere("a|b").as_deref(), Some(".*(?:a|b).*"));
        assert_eq!(anywhere("(?=x)"), None);
    }
}
