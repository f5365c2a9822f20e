//! Directives of an nginx config, with their blocks.

use std::sync::Arc;

use crate::tree::{At, Unreadable};

/// A directive.
#[derive(Clone, Debug)]
pub(crate) struct Directive {
    pub(crate) at: At,
    pub(crate) words: Vec<String>,
    pub(crate) block: Option<Vec<Directive>>,
}

impl Directive {
    pub(crate) fn name(&self) -> &str {
        self.word(0)
    }

    pub(crate) fn word(&self, index: usize) -> &str {
        self.words.get(index).map_or("", String::as_str)
    }

    pub(crate) fn inner(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    /// All directives of a name in the block.
    pub(crate) fn all<'d>(&'d self, name: &'d str) -> impl Iterator<Item = &'d Self> {
        self.inner().iter().filter(move |inner| inner.name() == name)
    }

    /// The last of them.
    pub(crate) fn last(&self, name: &str) -> Option<&Self> {
        self.inner().iter().rev().find(|inner| inner.name() == name)
    }
}

const DEEPEST: usize = 30;

pub(crate) fn parse(text: &str, file: &str) -> Result<Vec<Directive>, Unreadable> {
    let file: Arc<str> = file.into();
    let mut stack: Vec<(Directive, Vec<Directive>)> = Vec::new();
    let mut here: Vec<Directive> = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut at = 1_u32;
    let mut line = 1_u32;
    let mut chars = text.chars().peekable();
    let wrong =
        |line, what: &str| Unreadable { at: At { file: Arc::clone(&file), line }, what: what.to_owned() };
    while let Some(c) = chars.next() {
        if c == '\n' {
            line += 1;
        }
        if words.is_empty() && word.is_none() {
            at = line;
        }
        match c {
            '#' if word.is_none() => {
                while chars.peek().is_some_and(|c| *c != '\n') {
                    chars.next();
                }
            }
            '"' | '\'' if word.is_none() => {
                let mut inner = String::new();
                while let Some(next) = chars.next() {
                    match next {
                        '\\' => {
                            if let Some(next) = chars.next() {
                                if next != c {
                                    inner.push('\\');
                                }
                                inner.push(next);
                            }
                        }
                        next if next == c => break,
                        next => {
                            line += u32::from(next == '\n');
                            inner.push(next);
                        }
                    }
                }
                words.push(inner);
            }
            ';' => {
                words.extend(word.take());
                if !words.is_empty() {
                    here.push(Directive {
                        at: At { file: Arc::clone(&file), line: at },
                        words: std::mem::take(&mut words),
                        block: None,
                    });
                }
            }
            // `${name}` is a variable, not a block.
            '{' if word.as_deref().is_none_or(|word| !word.ends_with('$'))
                && !regex_goes_on(&words, word.as_deref()) =>
            {
                words.extend(word.take());
                if stack.len() >= DEEPEST {
                    return Err(wrong(line, "blocks are nested too deep"));
                }
                let directive = Directive {
                    at: At { file: Arc::clone(&file), line: at },
                    words: std::mem::take(&mut words),
                    block: Some(Vec::new()),
                };
                stack.push((directive, std::mem::take(&mut here)));
            }
            '}' if word.as_deref().is_none_or(|word| !word.contains('{')) => {
                words.clear();
                word = None;
                let Some((mut directive, outer)) = stack.pop() else {
                    return Err(wrong(line, "a `}` without its `{`"));
                };
                directive.block = Some(std::mem::replace(&mut here, outer));
                here.push(directive);
            }
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    if !stack.is_empty() {
        return Err(wrong(line, "a `{` is not closed"));
    }
    Ok(here)
}

/// `{` within an expression of a `location` or `rewrite`, such as `[0-9]{3}`.
fn regex_goes_on(words: &[String], word: Option<&str>) -> bool {
    word.is_some()
        && (words.last().is_some_and(|last| last == "~" || last == "~*")
            || words.first().is_some_and(|first| first == "rewrite"))
}
