//! Values written as YAML, in the style of the document that they go into.

use serde_json::{Map, Value};

use crate::scalar::{escaped, is_printable, quoted};

/// How a document is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    /// Columns by which a mapping inside of a mapping is indented.
    pub(crate) step: usize,
    /// Whether a list's dashes are indented under its key.
    pub(crate) indented_lists: bool,
    /// Lines end with `\r\n`.
    pub(crate) crlf: bool,
}

impl Default for Style {
    fn default() -> Self {
        Self { step: 2, indented_lists: true, crlf: false }
    }
}

impl Style {
    pub(crate) fn newline(self) -> &'static str {
        if self.crlf { "\r\n" } else { "\n" }
    }

    /// `key: value` as lines at a column, each with its line break.
    pub(crate) fn entry(self, key: &str, value: &Value, column: usize) -> String {
        let mut lines = String::new();
        self.put_entry(&mut lines, key, value, column);
        self.broken(lines)
    }

    /// `- value` as lines at a column, each with its line break.
    pub(crate) fn item(self, value: &Value, column: usize) -> String {
        let mut lines = String::new();
        self.put_item(&mut lines, value, column);
        self.broken(lines)
    }

    /// A whole document.
    pub(crate) fn document(self, value: &Value) -> String {
        let mut lines = String::new();
        match value {
            Value::Object(entries) if !entries.is_empty() => {
                for (key, value) in entries {
                    self.put_entry(&mut lines, key, value, 0);
                }
            }
            Value::Array(items) if !items.is_empty() => {
                for item in items {
                    self.put_item(&mut lines, item, 0);
                }
            }
            value => {
                lines.push_str(&inline(value));
                lines.push('\n');
            }
        }
        self.broken(lines)
    }

    fn broken(self, lines: String) -> String {
        if self.crlf { lines.replace('\n', "\r\n") } else { lines }
    }

    fn put_entry(self, out: &mut String, key: &str, value: &Value, column: usize) {
        indent(out, column);
        out.push_str(&quoted(key));
        out.push(':');
        self.put_value(out, value, column);
    }

    /// The text after a key, with the line break.
    fn put_value(self, out: &mut String, value: &Value, column: usize) {
        match value {
            Value::Object(entries) if !entries.is_empty() => {
                out.push('\n');
                for (key, value) in entries {
                    self.put_entry(out, key, value, column + self.step);
                }
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                let dash = if self.indented_lists { column + self.step } else { column };
                for item in items {
                    self.put_item(out, item, dash);
                }
            }
            Value::String(text) if is_literal(text) => put_literal(out, text, column + self.step),
            value => {
                out.push(' ');
                out.push_str(&inline(value));
                out.push('\n');
            }
        }
    }

    fn put_item(self, out: &mut String, value: &Value, column: usize) {
        let start = out.len();
        match value {
            Value::Object(entries) if !entries.is_empty() => {
                for (key, value) in entries {
                    self.put_entry(out, key, value, column + 2);
                }
            }
            Value::Array(items) if !items.is_empty() => {
                for item in items {
                    self.put_item(out, item, column + 2);
                }
            }
            Value::String(text) if is_literal(text) => {
                indent(out, column + 1);
                put_literal(out, text, column + 2);
            }
            value => {
                indent(out, column + 2);
                out.push_str(&inline(value));
                out.push('\n');
            }
        }
        // The dash is in the indentation of the first line.
        out.replace_range(start + column..=start + column, "-");
    }
}

fn indent(out: &mut String, column: usize) {
    out.extend(std::iter::repeat_n(' ', column));
}

/// A value on one line: a scalar, an empty collection, or JSON.
pub(crate) fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        value => flow(value),
    }
}

/// JSON on one line, with spaces as people write it.
pub(crate) fn flow(value: &Value) -> String {
    fn object(entries: &Map<String, Value>) -> String {
        let entries: Vec<String> = entries
            .iter()
            .map(|(key, value)| {
                format!("{}: {}", escaped(&Value::from(key.as_str()).to_string()), flow(value))
            })
            .collect();
        format!("{{{}}}", entries.join(", "))
    }
    match value {
        Value::Object(entries) => object(entries),
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        scalar => escaped(&scalar.to_string()),
    }
}

/// JSON over several lines; all but the first begin at a column.
pub(crate) fn pretty(value: &Value, column: usize, step: usize, newline: &str) -> String {
    let step = " ".repeat(step);
    let mut out = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(step.as_bytes());
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, format);
    if serde::Serialize::serialize(value, &mut serializer).is_err() {
        return flow(value);
    }
    let text = escaped(&String::from_utf8_lossy(&out));
    text.replace('\n', &format!("{newline}{}", " ".repeat(column)))
}

/// True if a `|` block can show these lines unchanged.
fn is_literal(text: &str) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    body.contains('\n')
        && !body.ends_with('\n')
        && !body.starts_with([' ', '\n'])
        && body.lines().all(|line| !line.ends_with([' ', '\t']))
        && body.chars().all(|c| is_printable(c) || c == '\n')
}

fn put_literal(out: &mut String, text: &str, column: usize) {
    out.push_str(if text.ends_with('\n') { " |\n" } else { " |-\n" });
    for line in text.lines() {
        if !line.is_empty() {
            indent(out, column);
            out.push_str(line);
        }
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_written_as_people_write_them() {
        let value = json!({
            "name": "attache", "args": ["run", "--config", "/etc/attache/attache.yaml"], "ports": [{"containerPort": 15090, "name": "m"}],
            "limits": {"cpu": "200m", "memory": "256Mi"}, "empty": {}, "none": null, "text": "a: 1\nb:\n  - c\n",
            "nested": [[1, 2], []], "yes": "yes", "port": "8080", "json": "{\"a\":1}",
        });
        insta::assert_snapshot!(Style::default().document(&value), @r#"
        name: attache
        args:
          - run
          - --config
          - /etc/attache/attache.yaml
        ports:
          - containerPort: 15090
            name: m
        limits:
          cpu: 200m
          memory: 256Mi
        empty: {}
        none: null
        text: |
          a: 1
          b:
            - c
        nested:
          - - 1
            - 2
          - []
        "yes": "yes"
        port: "8080"
        json: '{"a":1}'
        "#);
    }

    fn value() -> impl Strategy<Value = Value> {
        let text = "[ -~\n\u{e9}]{0,12}";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((text, inner), 0..4).prop_map(|entries| Value::Object(
                    entries.into_iter().filter(|(k, _)| k != "<<").collect()
                )),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_written_value_reads_back(value in value(), step in 2..5_usize, indented_lists: bool, crlf: bool) {
            let style = Style { step, indented_lists, crlf };
            for text in [style.document(&value), flow(&value), pretty(&value, 3, step, style.newline())] {
                let read = crate::yaml::parse(&text).unwrap().pop().map_or(Value::Null, |document| document.value);
                prop_assert_eq!(&read, &value, "{}", text);
            }
        }
    }
}
