//! Remarks of an import about the config: losses, differences, and what to do about them.

use std::fmt;

use crate::tree::{FileLine, Node};

/// What a remark means for the requests: how much is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Impact {
    /// Nothing is lost: requests are answered as before. The remark explains why the config looks different.
    Note,
    /// Something soft is lost: statistics, tracing, tuning. Requests are answered as before.
    Soft,
    /// Some requests get a different answer than before.
    Point,
}

/// One remark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The place of its cause in the original.
    pub at: FileLine,
    /// How much it weighs.
    pub weight: Impact,
    /// Its subject, the consequence, and what to do.
    pub text: String,
}

/// The result for the whole config.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// Every request is answered as before.
    Nothing,
    /// Every request is answered as before; statistics, tracing or tuning are lost.
    Soft,
    /// Some requests get a different answer, or are refused.
    Point,
}

impl Grade {
    /// The exit code of `attache import`: 0, 3 and 4. 1 and 2 are errors of the command itself.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Nothing => 0,
            Self::Soft => 3,
            Self::Point => 4,
        }
    }
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "lost nothing",
            Self::Soft => "lost something soft",
            Self::Point => "lost its point",
        })
    }
}

/// The remarks of one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remarks(pub Vec<Remark>);

impl Remarks {
    /// Adds a remark, unless there is one with the same text.
    pub fn say(&mut self, weight: Impact, at: &FileLine, text: impl Into<String>) {
        let remark = Remark { at: at.clone(), weight, text: text.into() };
        if self.0.iter().all(|other| other.text != remark.text) {
            self.0.push(remark);
        }
    }

    /// Adds a remark: nothing is lost, but the config looks different.
    pub fn note(&mut self, at: &FileLine, text: impl Into<String>) {
        self.say(Impact::Note, at, text);
    }

    /// Adds a remark: something soft is lost.
    pub fn soft(&mut self, at: &FileLine, text: impl Into<String>) {
        self.say(Impact::Soft, at, text);
    }

    /// Adds a remark: some requests get a different answer.
    pub fn point(&mut self, at: &FileLine, text: impl Into<String>) {
        self.say(Impact::Point, at, text);
    }

    /// Adds a remark: some requests may get a different answer, since no importer knows what this does. `what` names it
    /// in the original's words.
    pub fn unknown(&mut self, at: &FileLine, what: impl std::fmt::Display) {
        self.point(
            at,
            format!("this import doesn't know {what}. Find out what it does, and whether you need it."),
        );
    }

    /// Adds a remark for each key of a mapping that no importer reads. `known` are keys that are read, or that have no
    /// effect on requests. `told` are keys with an effect that attache lacks.
    pub fn rest(&mut self, node: &Node, what: &str, known: &[&str], told: &[(&str, Impact, &str)]) {
        for (key, value) in node.entries() {
            let key = crate::tree::snake(key);
            // An empty message (`{}`) can have an effect, because it is present.
            let nothing = value.is_empty() && !matches!(value.kind, crate::tree::NodeKind::Map(_));
            if key.starts_with('@') || known.contains(&key.as_str()) || nothing {
                // The caller knows the meaning of a scalar. The content of a mapping must be read (`crate::unread`).
                if matches!(value.kind, crate::tree::NodeKind::Scalar(_)) {
                    value.skip();
                }
                continue;
            }
            let at = if value.at.line == 0 { &node.at } else { &value.at };
            value.skip();
            match told.iter().find(|(name, ..)| *name == key) {
                Some((_, weight, text)) => self.say(*weight, at, format!("`{key}`: {text}")),
                None => self.unknown(at, format_args!("`{key}` of {what}")),
            }
        }
    }

    /// The heaviest weight of these remarks.
    pub fn heaviest(&self) -> Option<Impact> {
        self.0.iter().map(|remark| remark.weight).max()
    }
}
