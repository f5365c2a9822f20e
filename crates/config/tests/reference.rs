//! `docs/config.md` is the schema, written for people.
//! `UPDATE_DOCS=1 cargo test -p attache-config --test reference` rewrites it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::needless_raw_string_hashes,
    clippy::format_push_string,
    reason = "tests"
)]

use std::{collections::VecDeque, fmt::Write as _, path::Path};

use attache_config::model::RetryOn;
use serde_json::Value;

const INTRODUCTION: &str = r#"# Config reference

<!-- Generated from the schema by crates/config/tests/reference.rs: change the doc comments in crates/config/src/model. -->

A config is one YAML file.
`attache check FILE` shows every mistake in it, and `attache schema` prints its JSON schema for editors.
The smallest config is

```yaml
upstreams:
  orders: https://orders.internal:8443
```

**Defaults.** Without `listeners` there is one, `outbound`, on `127.0.0.1:15001`.
A listener with neither `routes` nor `to` sends everything to the only upstream.
With several upstreams, the `Host` of a request selects one: the upstream's name (`orders`) or the host of its address
(`orders.internal`).
The server name of TLS selects `tcp` and `tls` upstreams in the same way.
An `authority` or `original-destination` upstream gets all other requests.
The port in `Host` distinguishes two upstreams on one host.
Any other Host, also `localhost:15001`, gets `no-route`, whose answer names the known hosts.

**Environment.** In every value, `${VAR}` is the value of the environment variable (it is an error if it isn't set).
`${VAR:-default}` has a default for a variable that isn't set or is empty, and `$$` is one `$`.
Variables are replaced after the YAML is parsed, so a value can't add structure.
If a value is only one variable, its content decides the type (`workers: ${WORKERS}` is a number).

**Files.** `!file PATH` is the content of a file, without white space around it.
A relative path is relative to the config's folder.

**YAML.** Anchors, aliases and merge keys (`<<: *base`) work.
Keys that begin with `x-` at the top level are ignored, so that they can hold anchors.
A duplicate key is an error, and so is an unknown one.
Within `{ … }` a value with braces needs quotes: `{ path: "/users/{id}" }`.

**In an editor.** `attache schema > attache.schema.json` writes the JSON schema of this version.
With the YAML language server (VS Code's YAML extension, Neovim, Helix and others) the first line of a config names it:

```yaml
# yaml-language-server: $schema=./attache.schema.json
upstreams:
  orders: https://orders.internal:8443
```

Keys are then completed and described.
Wrong keys, words, and values in every [notation](#notations) are underlined as they are typed.
For `!file` its setting `yaml.customTags` needs `["!file scalar"]`.
There a path after `!file` has to begin with `/`, `./` or `../`, to distinguish it from a value; in place of a path it
has to begin with `./` or `../`.
Only `attache check` finds conflicts between keys (such as a `to` with an unknown upstream).
"#;

const NOTATIONS: &str = r"
## Notations

Durations are numbers with `us`, `ms`, `s`, `m`, `h` or `d`, also in a row.
Sizes are numbers with `B`, `KiB`, `MiB`, `GiB` (powers of 1024) or `KB`, `MB`, `GB` (powers of 1000).
Regular expressions are those of the Rust crate `regex`: linear in time, without look-around and back-references, and
always over the whole text.

";

/// Characters in a line of the page.
const WIDTH: usize = 120;

#[test]
fn the_reference_is_what_the_schema_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/config.md");
    let wanted = reference(&attache_config::described());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "docs/config.md is stale: UPDATE_DOCS=1 cargo test -p attache-config --test reference"
    );
}

#[test]
fn every_key_has_a_description() {
    let schema = attache_config::schema();
    let definitions = schema["$defs"].as_object().unwrap();
    for (name, definition) in definitions.iter().chain([(&"the file".to_owned(), &schema)]) {
        for (key, property) in definition["properties"].as_object().into_iter().flatten() {
            assert!(property["description"].is_string(), "{name}.{key}");
        }
    }
}

#[test]
fn the_schema_is_draft_2020_12_without_our_own_keywords() {
    let schema = attache_config::schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let text = schema.to_string();
    for keyword in ["\"x-at\"", "\"x-map\"", "\"x-rules\"", "\"x-what\"", "\"null\""] {
        assert!(!text.contains(keyword), "{keyword}");
    }
}

/// One section for each kind of mapping, each before its parts.
fn reference(schema: &Value) -> String {
    let mut out = INTRODUCTION.to_owned();
    let mut writer =
        ReferenceWriter { root: schema, met: Vec::new(), waiting: VecDeque::new(), formats: Vec::new() };
    out.push_str("\n## The file\n");
    writer.section(&mut out, schema, "");
    while let Some((name, path)) = writer.waiting.pop_front() {
        // The sections that a section refers to follow it, before those that its neighbours refer to.
        let later = std::mem::take(&mut writer.waiting);
        let definition = &schema["$defs"][&name];
        write!(out, "\n## {}\n\n", heading(definition)).unwrap();
        wrap(&mut out, "", &format!("At `{path}`.\n{}", sentences(&definition["description"])));
        out.push('\n');
        writer.section(&mut out, definition, &path);
        writer.waiting.extend(later);
    }
    out.push_str(NOTATIONS);
    writer.formats.sort();
    for (name, what, examples) in writer.formats {
        let examples = if examples.is_empty() { examples } else { format!(", such as {examples}") };
        wrap(&mut out, "- ", &format!("**{name}**: {what}{examples}."));
    }
    out
}

struct ReferenceWriter<'a> {
    root: &'a Value,
    met: Vec<String>,
    waiting: VecDeque<(String, String)>,
    formats: Vec<(String, String, String)>,
}

impl ReferenceWriter<'_> {
    /// Each key as an item: its name, its type, its default; what it is, a sentence a line; an example; its words.
    fn section(&mut self, out: &mut String, schema: &Value, path: &str) {
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let kind = self.kind(property, &inner);
            let required =
                schema["required"].as_array().is_some_and(|keys| keys.iter().any(|one| one == key));
            let default = match &property["default"] {
                _ if required => "; **required**".to_owned(),
                Value::Null => String::new(),
                value => format!("; default `{}`", yaml(value)),
            };
            // Beside a default, the examples of its notation show nothing new.
            let shown = !property["format"].is_string() || property["default"].is_null();
            let example = property["examples"].as_array().filter(|_| shown).and_then(|all| all.first());
            let example =
                example.map(|example| format!("\nExample: `{}`.", yaml(example))).unwrap_or_default();
            let what = sentences(&property["description"]);
            wrap(out, "- ", &format!("**`{key}`**: {kind}{default}.\n{what}{example}"));
            self.words(out, property);
        }
    }

    /// The meanings of an enumeration's words.
    fn words(&self, out: &mut String, property: &Value) {
        let target = resolve(self.root, property);
        if property.to_string().contains(r#""attache-retry-on""#) {
            for (word, meaning) in RetryOn::WORDS {
                wrap(out, "  - ", &format!("`{word}`: {}", sentences(&meaning.trim().into())));
            }
        }
        let alternatives: Vec<&Value> = match target["anyOf"].as_array() {
            Some(all) => all.iter().map(|one| resolve(self.root, one)).collect(),
            None => vec![target],
        };
        for meaning in alternatives.iter().flat_map(|one| one["oneOf"].as_array().into_iter().flatten()) {
            let word = meaning["const"].as_str().or(meaning["enum"][0].as_str());
            let meaning = sentences(&meaning["description"]);
            wrap(out, "  - ", &format!("`{}`: {meaning}", word.unwrap()));
        }
    }

    fn kind(&mut self, schema: &Value, path: &str) -> String {
        if let Some(name) = schema["$ref"].as_str().and_then(|target| target.rsplit('/').next()) {
            let definition = &self.root["$defs"][name];
            if definition["properties"].is_object() {
                if !self.met.iter().any(|met| met == name) {
                    self.met.push(name.to_owned());
                    self.waiting.push_back((name.to_owned(), path.to_owned()));
                }
                return format!("[mapping](#{})", anchor(&heading(definition)));
            }
            return self.kind(&definition.clone(), path);
        }
        if let Some(all) = schema["anyOf"].as_array() {
            let mut kinds: Vec<String> = Vec::new();
            for one in all {
                let inner = if one["type"] == "array" { format!("{path}[]") } else { path.to_owned() };
                let kind = self.kind(one, &inner);
                // "one, or a list of it" is shorter than both in full.
                let kind =
                    if one["type"] == "array" && !kinds.is_empty() { "list of these".into() } else { kind };
                if !kinds.contains(&kind) {
                    kinds.push(kind);
                }
            }
            return kinds.join(" or ");
        }
        if let Some(format) = schema["format"].as_str().and_then(|format| format.strip_prefix("attache-")) {
            let examples: Vec<String> = schema["examples"].as_array().map_or_else(Vec::new, |all| {
                all.iter().map(|example| format!("`{}`", yaml(example))).collect()
            });
            let what = schema["$comment"].as_str().unwrap_or_default().to_owned();
            if let Some(known) = self.formats.iter_mut().find(|(name, _, _)| name == format) {
                // A key may show examples of its own: the most are the type's.
                if examples.join(", ").len() > known.2.len() {
                    known.2 = examples.join(", ");
                }
            } else {
                self.formats.push((format.to_owned(), what, examples.join(", ")));
            }
            return format!("[{format}](#notations)");
        }
        if schema["oneOf"].is_array() {
            return "one of the words below".into();
        }
        if let Some(words) = schema["enum"].as_array() {
            return words.iter().map(|word| format!("`{}`", yaml(word))).collect::<Vec<_>>().join(" or ");
        }
        if let Some(word) = schema["const"].as_str() {
            return format!("`{word}`");
        }
        match schema["type"].as_str().unwrap_or_default() {
            "array" => format!("list of {}", self.kind(&schema["items"].clone(), &format!("{path}[]"))),
            "object" => {
                let of = self.kind(&schema["additionalProperties"].clone(), &format!("{path}.NAME"));
                format!("mapping of names to {of}")
            }
            "integer" => "number".into(),
            "boolean" => "`true` or `false`".into(),
            _ => "text".into(),
        }
    }
}

fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str().and_then(|target| target.strip_prefix('#')) {
        Some(pointer) => root.pointer(pointer).unwrap(),
        None => schema,
    }
}

fn heading(definition: &Value) -> String {
    let title = definition["title"].as_str().unwrap_or_default();
    let title = title.trim_start_matches("an ").trim_start_matches("a ");
    let mut letters = title.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn anchor(heading: &str) -> String {
    heading.to_lowercase().replace('`', "").replace(' ', "-")
}

/// A description with one sentence a line.
fn sentences(text: &Value) -> String {
    let text = text.as_str().unwrap_or_default().replace('\n', " ");
    let mut lines = String::new();
    // Within a code span or parentheses no sentence ends.
    let (mut code, mut depth) = (false, 0);
    let mut letters = text.chars().peekable();
    let mut last = ' ';
    while let Some(letter) = letters.next() {
        match letter {
            '`' => code = !code,
            '(' if !code => depth += 1,
            ')' if !code => depth -= 1,
            _ => {}
        }
        let next = letters.clone().nth(1);
        let begins = next.is_some_and(|next| next.is_uppercase() || matches!(next, '`' | '['));
        let ends =
            letter == '.' && last != '.' && letters.peek() == Some(&' ') && begins && !code && depth == 0;
        lines.push(letter);
        if ends {
            letters.next();
            lines.push('\n');
        }
        last = letter;
    }
    lines
}

/// Writes a sentence a line; one of more than [`WIDTH`] characters takes several. `begin` stands before the first, and its width
/// in spaces before the others.
fn wrap(out: &mut String, begin: &str, text: &str) {
    let indent = " ".repeat(begin.len());
    let mut lead = begin;
    for line in text.lines() {
        let mut rest = line;
        while begin.len() + rest.chars().count() > WIDTH {
            let Some(at) = end_of_line(rest, WIDTH - begin.len()) else { break };
            let (now, later) = rest.split_at(at);
            out.push_str(&format!("{lead}{now}\n"));
            (rest, lead) = (later.trim_start(), &indent);
        }
        out.push_str(&format!("{lead}{rest}\n"));
        lead = &indent;
    }
}

/// Where a line of at most so many characters ends: between two clauses, if they meet in its second half, or between two words.
fn end_of_line(text: &str, room: usize) -> Option<usize> {
    let (mut clause, mut word) = (None, None);
    for (count, (at, _)) in text.char_indices().enumerate().take(room + 1).filter(|(_, (_, c))| *c == ' ') {
        let before = &text[..at];
        let is_code = before.matches('`').count() % 2 == 1;
        if count * 2 > room && !is_code && before.ends_with([',', ';', ':']) {
            clause = Some(at);
        }
        word = Some(at);
    }
    clause.or(word)
}

/// A value as a person would write it in YAML's flow style.
fn yaml(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(yaml).collect::<Vec<_>>().join(", ")),
        Value::Object(object) => {
            let entries: Vec<String> = object
                .iter()
                .map(|(key, value)| match value {
                    // What YAML would read as something else than a text.
                    Value::String(text) if text.starts_with(['!', '*', '%', '~', '&', '@']) => {
                        format!("{key}: \"{text}\"")
                    }
                    value => format!("{key}: {}", yaml(value)),
                })
                .collect();
            format!("{{ {} }}", entries.join(", "))
        }
        other => other.to_string(),
    }
}

#[test]
fn an_editor_takes_a_version_without_quotes() {
    let versions = &attache_config::described()["$defs"]["TlsVersion"]["oneOf"];
    assert_eq!(versions[1]["enum"], serde_json::json!(["1.3", 1.3]));
    assert!(versions[1]["type"].is_null(), "{versions}");
}
