//! One object in every way in which YAML can write it: the result means exactly the object with attache in it, and
//! `uninject` restores every byte.

#![expect(clippy::unwrap_used, clippy::format_push_string, reason = "helpers of tests stand outside of them")]

use attache_kubernetes::inject::{
    InjectionOutcome, InjectionSettings, TextFormat, convert, inject, uninject,
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The choices for one text, one after the other, repeated without an end.
struct Choices {
    bytes: Vec<u8>,
    next: usize,
    crlf: bool,
}

impl Choices {
    fn of(&mut self, n: u8) -> u8 {
        self.next += 1;
        self.bytes[self.next % self.bytes.len()] % n
    }

    fn comment(&mut self, out: &mut String, column: usize) {
        match self.of(6) {
            0 => out.push_str(&format!("{:column$}# a: [comment\n", "")),
            1 => out.push('\n'),
            2 => out.push_str("# - out of line\n"),
            _ => {}
        }
    }

    fn end(&mut self, out: &mut String) {
        out.push_str(["\n", "\n", " # why\n", "  \n"][usize::from(self.of(4))]);
    }

    fn scalar(&mut self, value: &Value) -> String {
        match value {
            Value::String(text) => match self.of(3) {
                0 if text.chars().all(|c| c.is_ascii_alphabetic())
                    && !["true", "no", "null"].contains(&text.as_str()) =>
                {
                    text.clone()
                }
                1 if !text.contains('\n') => format!("'{}'", text.replace('\'', "''")),
                _ => value.to_string(),
            },
            other => other.to_string(),
        }
    }

    fn flow(&mut self, value: &Value, column: usize) -> String {
        let (open, close, items): (_, _, Vec<String>) = match value {
            Value::Object(entries) => {
                let mut items = Vec::new();
                for (key, value) in entries {
                    let key = self.scalar(&key.as_str().into());
                    items.push(format!("{key}: {}", self.flow(value, column + 2)));
                }
                ("{", "}", items)
            }
            Value::Array(values) => {
                ("[", "]", values.iter().map(|value| self.flow(value, column + 2)).collect())
            }
            scalar => return self.scalar(scalar),
        };
        if items.is_empty() {
            return format!("{open}{close}");
        }
        match self.of(3) {
            0 => format!("{open}{}{close}", items.join(",")),
            1 => format!("{open} {} {close}", items.join(", ")),
            _ => {
                let (inner, outer) = (" ".repeat(column + 3), " ".repeat(column + 1));
                let last = if self.of(2) == 0 { "," } else { "" };
                format!("{open}\n{inner}{}{last}\n{outer}{close}", items.join(&format!(",\n{inner}")))
            }
        }
    }

    fn value(&mut self, out: &mut String, value: &Value, column: usize) {
        let empty = value.as_object().is_some_and(serde_json::Map::is_empty)
            || value.as_array().is_some_and(Vec::is_empty);
        match value {
            Value::Object(_) | Value::Array(_) if empty || self.of(5) == 0 => {
                out.push(' ');
                out.push_str(&self.flow(value, column));
                self.end(out);
            }
            Value::Object(entries) => {
                self.end(out);
                let step = 1 + usize::from(self.of(4));
                self.entries(out, entries, column + step, false);
            }
            Value::Array(items) => {
                self.end(out);
                let dash = column + usize::from(self.of(3));
                for item in items {
                    self.comment(out, dash);
                    let gap = 1 + usize::from(self.of(3));
                    out.push_str(&format!("{:dash$}-", ""));
                    match item {
                        Value::Object(entries) if !entries.is_empty() && self.of(4) > 0 => {
                            out.push_str(&" ".repeat(gap));
                            self.entries(out, entries, dash + 1 + gap, true);
                        }
                        item => {
                            out.push(' ');
                            out.push_str(&self.flow(item, dash + 2));
                            self.end(out);
                        }
                    }
                }
            }
            Value::String(text) if text.ends_with('\n') && text.len() > 1 => {
                let kept = text.ends_with("\n\n");
                out.push_str(if kept { " |+\n" } else { " |\n" });
                for line in text.lines() {
                    out.push_str(&if line.is_empty() {
                        "\n".to_owned()
                    } else {
                        format!("{:1$}{line}\n", "", column + 2)
                    });
                }
            }
            Value::Null if self.of(2) == 0 => self.end(out),
            scalar => {
                out.push(' ');
                out.push_str(&self.scalar(scalar));
                self.end(out);
            }
        }
    }

    fn entries(
        &mut self,
        out: &mut String,
        entries: &serde_json::Map<String, Value>,
        column: usize,
        begun: bool,
    ) {
        for (index, (key, value)) in entries.iter().enumerate() {
            if index > 0 || !begun {
                self.comment(out, column);
                out.push_str(&" ".repeat(column));
            }
            out.push_str(&format!("{}:", self.scalar(&key.as_str().into())));
            self.value(out, value, column);
        }
    }

    fn text(&mut self, object: &Value) -> String {
        let mut out = ["", "---\n", "# first\n"][usize::from(self.of(3))].to_owned();
        self.entries(&mut out, object.as_object().unwrap(), 0, false);
        match self.of(4) {
            0 => out.push_str("...\n"),
            1 => out.push_str("---\n# another\napiVersion: v1\nkind: Secret\n"),
            // A block scalar that keeps its line breaks would lose one.
            2 if !out.ends_with("\n\n") => out.truncate(out.trim_end().len()),
            _ => {}
        }
        if self.crlf { out.replace('\n', "\r\n") } else { out }
    }
}

fn optional(value: Value) -> impl Strategy<Value = Option<Value>> {
    prop_oneof![3 => Just(Some(value)), 1 => Just(Some(Value::Null)), 2 => Just(None)]
}

fn deployment() -> impl Strategy<Value = Value> {
    let annotations =
        prop_oneof![Just(json!({})), Just(json!({"a": "b\nc\n"})), Just(json!({"a": "b\n\n", "x y": "'"}))];
    let env = prop_oneof![
        Just(json!([])),
        Just(json!([{"name": "A", "value": "no"}])),
        Just(json!([{"name": "NO_PROXY", "value": "x"}, {"name": "B", "value": "l\n"}]))
    ];
    let init = prop_oneof![
        Just(json!([])),
        Just(json!([{"name": "one", "image": "i"}, {"name": "two", "command": ["sh", "-c", "x\ny\n"]}]))
    ];
    let volumes = prop_oneof![Just(json!([])), Just(json!([{"name": "v", "emptyDir": {}}]))];
    let metadata = prop_oneof![Just(json!({})), Just(json!({"labels": {"app": "web"}}))];
    let probe = prop_oneof![
        Just(json!({"httpGet": {"path": "/", "port": 80}, "periodSeconds": 3})),
        Just(json!({"periodSeconds": 3, "tcpSocket": {"port": 80}})),
        Just(json!({"grpc": {"port": 80}}))
    ];
    let parts = (
        annotations.prop_flat_map(optional),
        env.prop_flat_map(optional),
        init.prop_flat_map(optional),
        volumes.prop_flat_map(optional),
        metadata.prop_flat_map(optional),
        probe,
    );
    (parts, any::<bool>()).prop_map(|((annotations, env, init, volumes, metadata, probe), first)| {
        let mut container = json!({"name": "app", "image": "app"});
        let mut spec = json!({});
        if let Some(env) = env {
            container["env"] = env;
        }
        for (key, value) in [("initContainers", init), ("volumes", volumes)] {
            if let Some(value) = value {
                spec[key] = value;
            }
        }
        container["livenessProbe"] = probe;
        spec["containers"] = json!([container]);
        let mut template = json!({});
        if first {
            template["spec"] = spec.clone();
        }
        if let Some(mut metadata) = metadata {
            if let (Some(annotations), Some(metadata)) = (annotations, metadata.as_object_mut()) {
                metadata.insert("annotations".to_owned(), annotations);
            }
            template["metadata"] = metadata;
        }
        template["spec"] = spec;
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"template": template}})
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn every_way_to_write_it_is_edited_truly(
        object in deployment(),
        bytes in prop::collection::vec(any::<u8>(), 1..60),
        crlf: bool,
        way in 0..3_usize,
    ) {
        let text = Choices { bytes, next: 0, crlf }.text(&object);
        let mut settings = InjectionSettings::default();
        for (name, value) in [
            &[("traffic", "http-proxy"), ("config-map", "c")][..],
            &[("traffic", "transparent"), ("config-map", "c"), ("tls-secret", "s")],
            &[("mode", "container"), ("traffic", "http-proxy")],
        ][way] {
            settings.set(name, value).unwrap();
        }
        let done = inject(&text, &settings).unwrap();
        // `inject` itself checks that the text means what was decided; otherwise it refuses.
        prop_assert!(matches!(done.reports[0].outcome, InjectionOutcome::Injected(_)), "{}\n{}", done.reports[0], text);
        let plain = inject(&object.to_string(), &settings).unwrap().text;
        let by_json: Value = serde_json::from_str(&plain).unwrap();
        let by_text: Value = serde_json::from_str(&convert(&done.text, TextFormat::Json).unwrap()).unwrap();
        let by_text = by_text.pointer("/items/0").unwrap_or(&by_text);
        prop_assert_eq!(&by_text["spec"]["template"]["spec"], &by_json["spec"]["template"]["spec"], "{}", text);
        prop_assert_eq!(&inject(&done.text, &settings).unwrap().text, &done.text);
        prop_assert_eq!(uninject(&done.text).unwrap().text, text);
    }
}
