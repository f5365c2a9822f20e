//! Directives of an nginx config, with their blocks.

use std::sync::Arc;

use crate::tree::{FileLine, Unreadable};

/// A directive.
#[derive(Clone, Debug)]
pub(crate) struct Directive {
    pub(crate) at: FileLine,
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

const MAX_DEPTH: usize = 30;

/// The state of the parser: the open blocks, and the unfinished directive.
struct DirectiveReader {
    file: Arc<str>,
    line: u32,
    /// The line on which the directive begins.
    at: u32,
    /// Open blocks: the directive of each, and those before it.
    stack: Vec<(Directive, Vec<Directive>)>,
    /// The directives of the innermost block.
    here: Vec<Directive>,
    /// The words of the directive.
    words: Vec<String>,
    /// The unfinished word.
    word: Option<String>,
}

impl DirectiveReader {
    fn wrong(&self, what: &str) -> Unreadable {
        Unreadable { at: FileLine { file: Arc::clone(&self.file), line: self.line }, what: what.to_owned() }
    }

    /// The directive of the words so far.
    fn directive(&mut self, block: Option<Vec<Directive>>) -> Directive {
        self.words.extend(self.word.take());
        let at = FileLine { file: Arc::clone(&self.file), line: self.at };
        Directive { at, words: std::mem::take(&mut self.words), block }
    }

    /// Reads a word in quotes, up to its end.
    fn quoted(&mut self, quote: char, chars: &mut impl Iterator<Item = char>) {
        let mut inner = String::new();
        while let Some(next) = chars.next() {
            match next {
                '\\' => {
                    if let Some(next) = chars.next() {
                        if next != quote {
                            inner.push('\\');
                        }
                        inner.push(next);
                    }
                }
                next if next == quote => break,
                next => {
                    self.line += u32::from(next == '\n');
                    inner.push(next);
                }
            }
        }
        self.words.push(inner);
    }

    fn end_directive(&mut self) {
        let directive = self.directive(None);
        if !directive.words.is_empty() {
            self.here.push(directive);
        }
    }

    fn open_block(&mut self) -> Result<(), Unreadable> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(self.wrong("blocks are nested too deep"));
        }
        let directive = self.directive(Some(Vec::new()));
        self.stack.push((directive, std::mem::take(&mut self.here)));
        Ok(())
    }

    fn close_block(&mut self) -> Result<(), Unreadable> {
        self.words.clear();
        self.word = None;
        let Some((mut directive, outer)) = self.stack.pop() else {
            return Err(self.wrong("a `}` without its `{`"));
        };
        directive.block = Some(std::mem::replace(&mut self.here, outer));
        self.here.push(directive);
        Ok(())
    }
}

pub(crate) fn parse(text: &str, file: &str) -> Result<Vec<Directive>, Unreadable> {
    let mut reader = DirectiveReader {
        file: file.into(),
        line: 1,
        at: 1,
        stack: Vec::new(),
        here: Vec::new(),
        words: Vec::new(),
        word: None,
    };
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\n' {
            reader.line += 1;
        }
        let word = reader.word.as_deref();
        if reader.words.is_empty() && word.is_none() {
            reader.at = reader.line;
        }
        match c {
            '#' if word.is_none() => {
                while chars.peek().is_some_and(|c| *c != '\n') {
                    chars.next();
                }
            }
            '"' | '\'' if word.is_none() => reader.quoted(c, &mut chars),
            ';' => reader.end_directive(),
            // `${name}` is a variable, not a block.
            '{' if word.is_none_or(|word| !word.ends_with('$')) && !regex_goes_on(&reader.words, word) => {
                reader.open_block()?;
            }
            '}' if word.is_none_or(|word| !word.contains('{')) => reader.close_block()?,
            c if c.is_whitespace() => reader.words.extend(reader.word.take()),
            c => reader.word.get_or_insert_default().push(c),
        }
    }
    if !reader.stack.is_empty() {
        return Err(reader.wrong("a `{` is not closed"));
    }
    Ok(reader.here)
}

/// `{` within an expression of a `location` or `rewrite`, such as `[0-9]{3}`.
fn regex_goes_on(words: &[String], word: Option<&str>) -> bool {
    word.is_some()
        && (words.last().is_some_and(|last| last == "~" || last == "~*")
            || words.first().is_some_and(|first| first == "rewrite"))
}
