//! Captures, and the paths that are made from them.

use attache_config::model::{Name, PathPattern, PathPolicy, PathRewrite, Segment};
use attache_http::{Refusal, normalize_path, without_parameters};
use smallvec::SmallVec;

use crate::path::{behind_prefix, capture};

/// The captures of a path pattern. They are copies, since the request's path changes while they are used. They are made
/// only for routes that use captures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures(SmallVec<[String; 2]>);

impl Captures {
    /// The text of the capture at this place of the pattern; empty if there is none.
    pub(crate) fn at(&self, index: usize) -> &str {
        self.0.get(index).map_or("", String::as_str)
    }

    /// Takes a pattern's captures out of a path that it matches.
    pub(crate) fn of(pattern: &PathPattern, path: &str) -> Self {
        let mut captures = Self::default();
        match pattern {
            PathPattern::Exact(_) | PathPattern::Prefix(_) => {}
            PathPattern::Template(segments) => {
                capture(segments, path, |_, text| captures.0.push(text.to_owned()));
            }
            PathPattern::Regex(regex) => {
                if let Some(found) = regex.captures(path) {
                    let text =
                        |group: Option<regex::Match<'_>>| group.map_or("", |group| group.as_str()).to_owned();
                    captures.0.extend(found.iter().skip(1).map(text));
                }
            }
        }
        captures
    }
}

/// The names of a pattern's captures, in its order; a regex's groups can also be named by number.
pub(crate) struct CaptureNames<'p>(Vec<Option<&'p str>>);

impl<'p> CaptureNames<'p> {
    pub(crate) fn of(pattern: Option<&'p PathPattern>) -> Self {
        Self(match pattern {
            Some(PathPattern::Template(segments)) => segments
                .iter()
                .filter_map(|segment| match segment {
                    Segment::Literal(_) => None,
                    Segment::Capture(name) | Segment::Rest(name) => Some(Some(&**name)),
                })
                .collect(),
            Some(PathPattern::Regex(regex)) => regex.capture_names().skip(1).collect(),
            _ => Vec::new(),
        })
    }

    /// The position of a capture in the pattern.
    pub(crate) fn index(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|known| *known == Some(name)).or_else(|| {
            let number: usize = name.parse().ok()?;
            // Group 0 is the whole path, which has its own variable.
            (1..=self.0.len()).contains(&number).then(|| number - 1)
        })
    }
}

/// A text with `{capture}` parts.
#[derive(Debug)]
pub(crate) struct PathTemplate(Vec<RewritePiece>);

#[derive(Debug)]
enum RewritePiece {
    Text(Box<str>),
    Capture(usize),
}

impl PathTemplate {
    /// Reads `/orders/{id}/items`. Braces around other names than the pattern's captures are plain text.
    pub(crate) fn new(text: &str, names: &CaptureNames<'_>) -> Self {
        let mut pieces = Vec::new();
        let mut rest = text;
        let mut plain = String::new();
        while let Some((before, behind)) = rest.split_once('{') {
            plain.push_str(before);
            let name = behind.split_once('}');
            if let Some((index, after)) = name.and_then(|(name, after)| Some((names.index(name)?, after))) {
                if !plain.is_empty() {
                    pieces.push(RewritePiece::Text(std::mem::take(&mut plain).into()));
                }
                pieces.push(RewritePiece::Capture(index));
                rest = after;
            } else {
                plain.push('{');
                rest = behind;
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(RewritePiece::Text(plain.into()));
        }
        Self(pieces)
    }

    pub(crate) fn uses_captures(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, RewritePiece::Capture(_)))
    }

    /// The path. Every byte that a path can't contain is escaped, so that neither the config nor a capture can begin a
    /// query or a fragment.
    pub(crate) fn render(&self, captures: &Captures) -> String {
        let mut path = String::new();
        for piece in &self.0 {
            push_escaped(
                &mut path,
                match piece {
                    RewritePiece::Text(text) => text,
                    RewritePiece::Capture(index) => captures.at(*index),
                },
            );
        }
        if !path.starts_with('/') {
            path.insert(0, '/');
        }
        path
    }
}

fn push_escaped(path: &mut String, text: &str) {
    for char in text.chars() {
        match char {
            '?' => path.push_str("%3F"),
            '#' => path.push_str("%23"),
            '\\' => path.push_str("%5C"),
            '\0'..=' ' | '"' | '<' | '>' | '^' | '`' | '{' | '|' | '}' | '\x7f' => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                let byte = char as usize;
                path.push('%');
                path.extend(
                    [HEX.get(byte >> 4), HEX.get(byte & 15)].into_iter().flatten().map(|&b| char::from(b)),
                );
            }
            _ => path.push(char),
        }
    }
}

/// How a route changes paths.
#[derive(Debug)]
pub(crate) enum CompiledRewrite {
    Keep,
    /// The matched prefix is replaced.
    Prefix {
        prefix: PrefixOf,
        with: Name,
    },
    Whole(PathTemplate),
}

/// The part of the path that counts as the matched prefix.
#[derive(Debug)]
pub(crate) enum PrefixOf {
    /// This prefix, of a prefix pattern.
    Segments(Name),
    /// Exact paths, templates and regexes match the whole path.
    Whole,
    /// The route has no path pattern, so no part of the path counts.
    Nothing,
}

impl CompiledRewrite {
    pub(crate) fn new(rewrite: &PathRewrite, pattern: Option<&PathPattern>) -> Self {
        match rewrite {
            PathRewrite::Keep => Self::Keep,
            PathRewrite::Whole(text) => Self::Whole(PathTemplate::new(text, &CaptureNames::of(pattern))),
            PathRewrite::Prefix(with) => {
                let prefix = match pattern {
                    None => PrefixOf::Nothing,
                    Some(PathPattern::Prefix(prefix)) => PrefixOf::Segments(prefix.clone()),
                    Some(_) => PrefixOf::Whole,
                };
                Self::Prefix { prefix, with: with.clone() }
            }
        }
    }

    pub(crate) fn uses_captures(&self) -> bool {
        matches!(self, Self::Whole(template) if template.uses_captures())
    }

    /// The new path; `None` if it stays.
    ///
    /// # Errors The policy for the client's path also applies to the new path: pieces that were harmless alone (`.` and
    /// `.`) must not become a `..` segment together.
    pub(crate) fn apply(
        &self,
        path: &str,
        captures: &Captures,
        policy: PathPolicy,
    ) -> Result<Option<String>, Refusal> {
        if matches!(self, Self::Keep) {
            return Ok(None);
        }
        let path = &*without_parameters(path, policy);
        let new = match self {
            Self::Keep => return Ok(None),
            Self::Whole(template) => template.render(captures),
            Self::Prefix { prefix, with } => {
                let behind = match prefix {
                    PrefixOf::Segments(prefix) => behind_prefix(prefix, path).unwrap_or_default(),
                    PrefixOf::Whole => "",
                    PrefixOf::Nothing => path,
                };
                let mut new = String::with_capacity(with.len() + behind.len() + 1);
                // From `/v1/*` to `/api/` or `/`: exactly one slash stands between the two parts.
                push_escaped(
                    &mut new,
                    if behind.is_empty() { with } else { with.strip_suffix('/').unwrap_or(with) },
                );
                new.push_str(behind);
                if !new.starts_with('/') {
                    new.insert(0, '/');
                }
                new
            }
        };
        Ok(Some(normalize_path(&new, policy)?.into_owned()))
    }
}
