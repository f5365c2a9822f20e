//! Finds the candidates whose patterns match a path, the most specific first, without a look at the others.
//!
//! Rule: the exact path, then templates (compared position by position: a literal before a capture before the rest),
//! then the longest prefix on a segment boundary, then regular expressions in the file's order, then routes without a
//! path. Templates and prefixes are tries over segments: a look-up visits a node once and ends where no pattern
//! continues, so its cost follows the depth of the patterns, not their number and not the path's length. Only regular
//! expressions are tried one by one.

use attache_config::model::{PathPattern, Segment};
use attache_http::pattern::first_segment;
pub(crate) use attache_http::pattern::{behind_prefix, capture_segments as capture, path_matches as matches};
use regex::Regex;
use smallvec::SmallVec;

use crate::text_map::TextMap;

/// Candidates by path pattern. They are inserted in order of precedence, so each list keeps it.
#[derive(Debug)]
pub(crate) struct PathIndex<C> {
    exact: TextMap<Vec<C>>,
    templates: PathNode<C>,
    prefixes: PathNode<C>,
    regexes: Vec<(Regex, C)>,
    any: Vec<C>,
}

#[derive(Debug)]
struct PathNode<C> {
    literals: TextMap<PathNode<C>>,
    capture: Option<Box<PathNode<C>>>,
    /// Templates that capture the rest of the path from here.
    rest: Vec<C>,
    /// Templates or prefixes that end here.
    here: Vec<C>,
}

impl<C> Default for PathNode<C> {
    fn default() -> Self {
        Self { literals: TextMap::default(), capture: None, rest: Vec::new(), here: Vec::new() }
    }
}

impl<C> Default for PathIndex<C> {
    fn default() -> Self {
        Self {
            exact: TextMap::default(),
            templates: PathNode::default(),
            prefixes: PathNode::default(),
            regexes: Vec::new(),
            any: Vec::new(),
        }
    }
}

impl<C> PathIndex<C> {
    /// Adds a candidate after those with the same pattern.
    pub(crate) fn insert(&mut self, pattern: Option<&PathPattern>, candidate: C) {
        match pattern {
            None => self.any.push(candidate),
            Some(PathPattern::Exact(path)) => self.exact.entry((&**path).into()).or_default().push(candidate),
            Some(PathPattern::Regex(regex)) => self.regexes.push(((**regex).clone(), candidate)),
            Some(PathPattern::Prefix(prefix)) => {
                let node = prefix_segments(prefix).fold(&mut self.prefixes, |node, segment| {
                    node.literals.entry(segment.into()).or_default()
                });
                node.here.push(candidate);
            }
            Some(PathPattern::Template(segments)) => {
                let mut node = &mut self.templates;
                for segment in segments {
                    node = match segment {
                        Segment::Literal(text) => node.literals.entry((&**text).into()).or_default(),
                        Segment::Capture(_) => node.capture.get_or_insert_default(),
                        Segment::Rest(_) => return node.rest.push(candidate),
                    };
                }
                node.here.push(candidate);
            }
        }
    }

    /// Offers the candidates whose patterns match, the most specific first, until one is taken.
    pub(crate) fn find<'t, R>(&'t self, path: &str, mut take: impl FnMut(&'t C) -> Option<R>) -> Option<R> {
        if let Some(found) = self.exact.get(path).and_then(|list| list.iter().find_map(&mut take)) {
            return Some(found);
        }
        // A CONNECT has no path, and `*` is not a path: only routes without a path, or with exactly this one, match
        // them.
        if let Some(segments) = path.strip_prefix('/') {
            if let Some(found) = self.templates.find(Some(segments), &mut take) {
                return Some(found);
            }
            // On the stack unless more than 16 routes' prefixes are nested in each other.
            let mut nested: SmallVec<[&'t PathNode<C>; 16]> = SmallVec::new();
            let mut node = Some(&self.prefixes);
            let mut rest = Some(segments);
            while let Some(here) = node {
                if !here.here.is_empty() {
                    nested.push(here);
                }
                let Some((segment, behind)) = rest.map(first_segment) else { break };
                node = here.literals.get(segment);
                rest = behind;
            }
            if let Some(found) = nested.iter().rev().find_map(|node| node.here.iter().find_map(&mut take)) {
                return Some(found);
            }
            for (_, candidate) in self.regexes.iter().filter(|(regex, _)| regex.is_match(path)) {
                if let Some(found) = take(candidate) {
                    return Some(found);
                }
            }
        }
        self.any.iter().find_map(take)
    }
}

impl<C> PathNode<C> {
    /// Each node is visited at most once, and no deeper than templates go.
    fn find<'t, R>(&'t self, rest: Option<&str>, take: &mut impl FnMut(&'t C) -> Option<R>) -> Option<R> {
        let Some((segment, behind)) = rest.map(first_segment) else {
            return self.here.iter().find_map(take);
        };
        if let Some(found) = self.literals.get(segment).and_then(|node| node.find(behind, take)) {
            return Some(found);
        }
        if !segment.is_empty()
            && let Some(found) = self.capture.as_ref().and_then(|node| node.find(behind, take))
        {
            return Some(found);
        }
        self.rest.iter().find_map(take)
    }
}

/// The segments of a prefix that was written without its final `/*`; `` and `/` are above everything.
fn prefix_segments(prefix: &str) -> impl Iterator<Item = &str> {
    let prefix = prefix.strip_prefix('/').unwrap_or(prefix);
    prefix.split('/').filter(move |_| !prefix.is_empty())
}

/// How many segments a prefix has.
pub(crate) fn prefix_depth(prefix: &str) -> usize {
    prefix_segments(prefix).count()
}
