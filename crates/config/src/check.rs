//! One checker for the whole file: the tree against the schema of the sections.
//!
//! Rule: it never stops at a problem. What is wrong is reported and left out, so that everything else is still checked;
//! the rest is a JSON value that fits the sections exactly. Texts with a syntax of their own (durations, addresses,
//! patterns) carry a `format` in the schema and are parsed here the first time, for their diagnostics.
//!
//! Two keywords of our own tell how a value is read: `x-at` wraps a value with its place, `x-map` makes a mapping with
//! free keys a list of entries, each with the place of its key.

use serde_json::{Value, json};

use crate::{
    common_mistakes,
    describe::{
        YamlShape, accepts, describe, flag, list, quoted, resolve, shapes, shown, title, type_of, words,
    },
    diagnostic::{Place, Problems, Severity},
    relations::{self, BrokenRule},
    suggest,
    text::Syntax,
    yaml::{Scalar, YamlEntry, YamlKind, YamlNode},
};

pub(crate) struct Checker<'a> {
    /// The root schema, with its `$defs`.
    pub(crate) root: &'a Value,
    pub(crate) problems: &'a mut Problems,
    /// The key whose value is checked.
    pub(crate) key: Option<Place>,
    /// Keys of the last mapping whose values were wrong.
    pub(crate) wrong: Vec<String>,
    /// Where the values of the last mapping are, by their key.
    pub(crate) keys: serde_json::Map<String, Value>,
}

impl Checker<'_> {
    /// The node as a value that fits the schema, without what is wrong; `None` if nothing is left.
    pub(crate) fn check(&mut self, node: &YamlNode, schema: &Value) -> Option<Value> {
        let before = self.problems.mark();
        self.wrong.clear();
        self.keys.clear();
        let Some(value) = self.bare(node, resolve(self.root, schema)) else {
            if let Some(help) = common_mistakes::in_other_words(node, |other| self.fits(other, schema)) {
                self.problems.take_back(before);
                let found =
                    if let YamlKind::Scalar(scalar) = &node.kind { quoted(scalar) } else { String::new() };
                self.problems.wrong(node.place, format!("{found} doesn't fit here"), help);
            }
            return None;
        };
        let (mut wrong, keys) = (std::mem::take(&mut self.wrong), std::mem::take(&mut self.keys));
        if wrong.is_empty() && (self.problems.mark() != before || node.has_broken()) {
            wrong.push(String::new());
        }
        let wrapped = flag(schema, "x-at");
        Some(if wrapped {
            json!({ "at": node.place, "wrong": wrong, "keys": keys, "value": value })
        } else {
            value
        })
    }

    /// True if the checker would report nothing about this node.
    fn fits(&self, node: &YamlNode, schema: &Value) -> bool {
        let mut problems = Problems::default();
        let (wrong, keys) = (Vec::new(), serde_json::Map::new());
        let mut other = Checker { root: self.root, problems: &mut problems, key: None, wrong, keys };
        other.check(node, schema).is_some() && !problems.any_error()
    }

    /// The value of a key: missing parts are reported at the key.
    fn check_value(&mut self, key: Place, node: &YamlNode, schema: &Value) -> Option<Value> {
        let outer = self.key.replace(key);
        let value = self.check(node, schema);
        self.key = outer;
        value
    }

    fn bare(&mut self, node: &YamlNode, schema: &Value) -> Option<Value> {
        if let Some(alternatives) = list(schema, "anyOf") {
            return self.any_of(node, alternatives);
        }
        match &node.kind {
            YamlKind::Broken => None,
            YamlKind::Scalar(scalar) if accepts(schema, YamlShape::Scalar) => {
                self.scalar(node.place, scalar, schema)
            }
            YamlKind::Sequence(items) if accepts(schema, YamlShape::Sequence) => {
                let of = schema.get("items").unwrap_or(&Value::Null);
                let key = self.key.take();
                let values: Vec<Value> = items.iter().filter_map(|item| self.check(item, of)).collect();
                self.key = key;
                if items.is_empty() && schema.get("minItems").is_some() {
                    self.problems.error(node.place, "the list is empty");
                    return None;
                }
                Some(Value::Array(values))
            }
            YamlKind::Mapping(entries) if flag(schema, "x-map") => Some(self.map(entries, schema)),
            YamlKind::Mapping(entries) if accepts(schema, YamlShape::Mapping) => {
                self.object(node.place, entries, schema)
            }
            _ => {
                self.unfit(node, &[schema]);
                None
            }
        }
    }

    /// The alternatives of one key differ in shape. If several are scalars, the first one that accepts the text is
    /// used.
    fn any_of(&mut self, node: &YamlNode, alternatives: &[Value]) -> Option<Value> {
        let shape = YamlShape::of(node)?;
        let root = self.root;
        if matches!(&node.kind, YamlKind::Scalar(scalar) if scalar.is_missing()) {
            self.missing(node.place, describe(root, &json!({ "anyOf": alternatives })));
            return None;
        }
        let of_shape: Vec<&Value> = alternatives
            .iter()
            .filter(|alternative| shapes(root, resolve(root, alternative)).contains(&shape))
            .collect();
        match of_shape.as_slice() {
            [] => {
                let all: Vec<&Value> =
                    alternatives.iter().map(|alternative| resolve(root, alternative)).collect();
                self.unfit(node, &all);
                None
            }
            // Help that names only the key's one word would hide its other forms.
            [only] if alternatives.len() > 1 && self.is_another_word(node, only) => {
                let all: Vec<&Value> =
                    alternatives.iter().map(|alternative| resolve(root, alternative)).collect();
                self.unfit(node, &all);
                None
            }
            [only] => self.alternative(node, only),
            several => {
                let mark = self.problems.mark();
                let mut most_telling = None;
                for alternative in several {
                    let value = self.alternative(node, alternative);
                    if self.problems.mark() == mark {
                        return value;
                    }
                    self.problems.take_back(mark);
                    let telling = resolve(root, alternative).get("format").is_some_and(|format| {
                        format.as_str().is_some_and(|format| Syntax::of(format).is_some())
                    });
                    if telling {
                        most_telling = Some(*alternative);
                    }
                }
                if let Some(alternative) = most_telling {
                    return self.alternative(node, alternative);
                }
                let all: Vec<&Value> = several.iter().map(|alternative| resolve(root, alternative)).collect();
                self.unfit(node, &all);
                None
            }
        }
    }

    /// True if the schema has one word, and the node is neither this word nor similar to it.
    fn is_another_word(&self, node: &YamlNode, schema: &Value) -> bool {
        let YamlKind::Scalar(scalar) = &node.kind else { return false };
        let words = words(resolve(self.root, schema));
        words.len() == 1
            && !words.contains(&scalar.text.as_str())
            && suggest::nearest(&scalar.text, words.iter().copied()).is_none()
    }

    /// One of several forms of a value. If the form needs no place itself, the whole value gets the places of its keys.
    fn alternative(&mut self, node: &YamlNode, schema: &Value) -> Option<Value> {
        if flag(schema, "x-at") {
            self.check(node, schema)
        } else {
            self.bare(node, resolve(self.root, schema))
        }
    }

    fn scalar(&mut self, place: Place, scalar: &Scalar, schema: &Value) -> Option<Value> {
        let text = scalar.text.as_str();
        if scalar.is_missing() {
            self.missing(place, describe(self.root, schema));
            return None;
        }
        let words = words(schema);
        if !words.is_empty() {
            if words.contains(&text) {
                return Some(Value::String(text.to_owned()));
            }
            let all = || words.iter().copied();
            let help = match suggest::nearest(text, all()).or_else(|| suggest::word_of_others(text, all())) {
                Some(near) => format!("did you mean `{near}`? one of {}", suggest::list(words, "or")),
                None => format!("one of {}", suggest::list(words, "or")),
            };
            self.problems.wrong(place, format!("{} isn't known here", quoted(scalar)), help);
            return None;
        }
        match type_of(schema) {
            "boolean" => match text {
                "true" | "True" | "TRUE" if scalar.plain => Some(Value::Bool(true)),
                "false" | "False" | "FALSE" if scalar.plain => Some(Value::Bool(false)),
                _ => self.mistyped(place, scalar, schema),
            },
            "integer" => match text.replace('_', "").parse::<i128>() {
                Ok(number) if scalar.plain => self.in_range(place, number, schema),
                _ => self.mistyped(place, scalar, schema),
            },
            _ => {
                if let Some(syntax) = schema.get("format").and_then(Value::as_str).and_then(Syntax::of)
                    && let Err(wrong) = (syntax.check)(text)
                {
                    let what = wrong.message(&quoted(scalar));
                    self.problems.wrong(place, what, wrong.help);
                    return None;
                }
                Some(Value::String(text.to_owned()))
            }
        }
    }

    fn in_range(&mut self, place: Place, number: i128, schema: &Value) -> Option<Value> {
        let bound = |key: &str| {
            schema.get(key).and_then(|bound| {
                bound
                    .as_i64()
                    .map(i128::from)
                    .or_else(|| bound.as_u64().map(i128::from))
                    .or_else(|| bound.as_f64().map(|bound| bound as i128))
            })
        };
        let (low, high) = (bound("minimum").unwrap_or(0), bound("maximum").unwrap_or(i128::from(u32::MAX)));
        if number < low {
            self.problems.wrong(place, format!("{number} is too small"), format!("at least {low}"));
            return None;
        }
        if number > high {
            self.problems.wrong(place, format!("{number} is too large"), format!("at most {high}"));
            return None;
        }
        u64::try_from(number).ok().map(Value::from)
    }

    fn mistyped(&mut self, place: Place, scalar: &Scalar, schema: &Value) -> Option<Value> {
        let expected = describe(self.root, schema);
        let unquoted = !scalar.plain
            && match type_of(schema) {
                "integer" => scalar.text.parse::<i128>().is_ok(),
                _ => matches!(scalar.text.as_str(), "true" | "false"),
            };
        let help = match scalar.text.to_ascii_lowercase().as_str() {
            _ if unquoted => "remove the quotes",
            "yes" | "on" | "y" if type_of(schema) == "boolean" => "write `true`",
            "no" | "off" | "n" if type_of(schema) == "boolean" => "write `false`",
            _ => "",
        };
        let (message, help) = if help.is_empty() {
            (format!("{} doesn't fit here", quoted(scalar)), format!("expected {expected}"))
        } else {
            (format!("expected {expected}, found {}", quoted(scalar)), help.to_owned())
        };
        self.problems.wrong(place, message, help);
        None
    }

    fn map(&mut self, entries: &[YamlEntry], schema: &Value) -> Value {
        let of = schema.get("additionalProperties").unwrap_or(&Value::Null);
        let names = schema.get("propertyNames").and_then(|names| names.get("format"));
        let of_keys = names.and_then(Value::as_str).and_then(Syntax::of);
        let mut values = Vec::with_capacity(entries.len());
        // The last name without a value: the lines after it may belong to it.
        let mut above: Option<&str> = None;
        for YamlEntry { key, place, value } in entries {
            if let Some(above) = above
                && let Some(section) = common_mistakes::of_each(self.root, of, key)
            {
                let help = format!(
                    "`{key}` is a key of {section}: if it belongs to `{above}:` above, indent it deeper"
                );
                self.problems.wrong(*place, format!("the key `{key}` stands where a name is expected"), help);
                continue;
            }
            if matches!(&value.kind, YamlKind::Scalar(scalar) if scalar.is_missing()) {
                above = Some(key);
            }
            if let Some(Err(wrong)) = of_keys.map(|syntax| (syntax.check)(key)) {
                self.problems.wrong(*place, wrong.message(&format!("`{key}`")), wrong.help);
            } else if let Some(value) = self.named(key, *place, value, of) {
                values.push(json!({ "at": place, "key": key, "value": value }));
            }
        }
        Value::Array(values)
    }

    /// The value of a free key. If the name is spelt like a key of the expected section, its line most likely belongs
    /// to the name above.
    fn named(&mut self, key: &str, place: Place, value: &YamlNode, of: &Value) -> Option<Value> {
        let before = self.problems.mark();
        let checked = self.check_value(place, value, of);
        // An upstream may have any name, `timeout` too: then its value looks like an address.
        let is_value = match &value.kind {
            YamlKind::Scalar(scalar) => !scalar.text.contains([':', '/', '.']),
            YamlKind::Sequence(_) => true,
            YamlKind::Mapping(_) | YamlKind::Broken => false,
        };
        if is_value
            && self.problems.mark() != before
            && let Some(section) = common_mistakes::of_each(self.root, of, key)
        {
            self.problems.take_back(before);
            let help =
                format!("`{key}` is a key of {section}: indent it deeper than the name that it belongs to");
            self.problems.wrong(place, format!("the key `{key}` stands where a name is expected"), help);
            return None;
        }
        checked
    }

    fn object(&mut self, at: Place, entries: &[YamlEntry], schema: &Value) -> Option<Value> {
        let empty = serde_json::Map::new();
        let known = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let mut values = serde_json::Map::new();
        let (mut wrong, mut places) = (Vec::new(), serde_json::Map::new());
        // Known keys that unknown keys most likely mean.
        let mut meant: Vec<&str> = Vec::new();
        for YamlEntry { key, place, value } in entries {
            let before = self.problems.mark();
            let broken = value.has_broken();
            if let Some(of) = known.get(key) {
                let at = value.place;
                if let Some(value) = self.check_value(*place, value, of) {
                    values.insert(key.clone(), value);
                    places.insert(key.clone(), json!(at));
                }
            } else if !(std::ptr::eq(schema, self.root) && key.starts_with("x-")) {
                // A required key that is misspelt was reported already: it isn't missing as well.
                if let Some(key) = suggest::meant(key, known.keys().map(String::as_str)) {
                    meant.push(key);
                    wrong.push(key.to_owned());
                }
                let within = title(schema);
                let help = if self.problems.is_full(Severity::Error) {
                    String::new()
                } else {
                    let above = common_mistakes::above(self.root, known, entries, key);
                    let above =
                        above.map(|above| format!("if it belongs to `{above}:` above, indent it deeper"));
                    let kept = (value.is_anchored && std::ptr::eq(schema, self.root))
                        .then(|| format!("call it `x-{key}` if it only holds values for `*` and `<<`"));
                    let comment = key.starts_with("//").then(|| "a comment begins with `#`".to_owned());
                    common_mistakes::no_space(key)
                        .or(comment)
                        .or(above)
                        .or(kept)
                        .unwrap_or_else(|| self.where_else(key, known))
                };
                self.problems.wrong(*place, format!("unknown key `{key}` in {within}"), help);
            }
            if broken || self.problems.mark() != before {
                wrong.push(key.clone());
            }
        }
        for key in list(schema, "required").unwrap_or_default().iter().filter_map(Value::as_str) {
            if !values.contains_key(key) {
                if !entries.iter().any(|entry| entry.key == key) && !meant.contains(&key) {
                    let of = known.get(key).map_or(&Value::Null, |of| resolve(self.root, of));
                    self.problems.wrong(
                        self.key.unwrap_or(at),
                        format!("the key `{key}` is missing in {}", title(schema)),
                        format!("`{key}:` with {}", describe(self.root, of)),
                    );
                }
                return None;
            }
        }
        let unsure = wrong.iter().any(|key| !known.contains_key(key));
        for BrokenRule { key, message, help } in relations::broken(schema, &values, &mut wrong, unsure) {
            let place = entries.iter().find(|entry| Some(entry.key.as_str()) == key);
            self.problems.wrong(place.map_or(at, |entry| entry.value.place), message, help);
        }
        (self.wrong, self.keys) = (wrong, places);
        Some(Value::Object(values))
    }

    /// What to do about an unknown key: the key that was meant, the place where it belongs, or the known keys.
    fn where_else(&self, key: &str, known: &serde_json::Map<String, Value>) -> String {
        let names = || known.keys().map(String::as_str);
        if let Some(near) = suggest::slip(key, names()).or_else(|| suggest::of_others(key, names())) {
            return format!("did you mean `{near}`?");
        }
        if let Some(help) = suggest::elsewhere(key, names()) {
            return help.to_owned();
        }
        let homes: Vec<String> = self
            .root
            .get("$defs")
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(|definitions| definitions.values())
            .filter(|definition| {
                definition.get("properties").is_some_and(|properties| properties.get(key).is_some())
            })
            .map(title)
            .collect();
        if !homes.is_empty() && homes.len() <= 3 {
            return format!("`{key}` is a key of {}", homes.join(", and of "));
        }
        if let Some(near) = suggest::nearest(key, names()) {
            return format!("did you mean `{near}`?");
        }
        format!("known keys: {}", suggest::list(known.keys().map(String::as_str), "and"))
    }

    fn unfit(&mut self, node: &YamlNode, schemas: &[&Value]) {
        let found = match &node.kind {
            YamlKind::Scalar(scalar) => quoted(scalar),
            YamlKind::Sequence(_) => "a list".to_owned(),
            YamlKind::Mapping(_) => "a mapping".to_owned(),
            YamlKind::Broken => return,
        };
        let mut expected: Vec<String> = Vec::new();
        for schema in schemas {
            let one = describe(self.root, schema);
            if !expected.contains(&one) {
                expected.push(one);
            }
        }
        let expected = expected.join(", or ");
        let slip = match &node.kind {
            YamlKind::Scalar(scalar) if scalar.is_missing() => return self.missing(node.place, expected),
            // Other programs give a list, with a name in each item.
            YamlKind::Sequence(items) if schemas.iter().any(|schema| flag(schema, "x-map")) => {
                let first = items.first();
                let named = first.and_then(|first| first.get("name")).map(|name| &name.kind);
                let name = match named {
                    Some(YamlKind::Scalar(name)) if !name.secret => name.text.as_str(),
                    _ => first.and_then(|first| first.keys().next()).map_or("NAME", |(key, _)| key),
                };
                Some(format!("a name is a key here, without a dash: `{name}: …`"))
            }
            YamlKind::Scalar(_) | YamlKind::Sequence(_)
                if schemas.iter().any(|schema| std::ptr::eq(*schema, self.root)) =>
            {
                Some(SMALLEST_CONFIG.to_owned())
            }
            // An address alone, in place of a mapping of names.
            YamlKind::Scalar(scalar)
                if scalar.text.contains("://")
                    && !scalar.secret
                    && schemas.iter().all(|schema| flag(schema, "x-map")) =>
            {
                let name = || format!("give it a name: `{{ NAME: {} }}`", shown(scalar));
                Some(common_mistakes::no_space(&scalar.text).unwrap_or_else(name))
            }
            YamlKind::Scalar(scalar) if schemas.iter().all(|schema| accepts(schema, YamlShape::Mapping)) => {
                common_mistakes::no_space(&scalar.text).or_else(|| {
                    let is_path = scalar.text.starts_with('/') && !scalar.secret;
                    let takes_path = schemas.iter().any(|schema| !schema["properties"]["path"].is_null());
                    (is_path && takes_path).then(|| format!("`{{ path: {} }}`", shown(scalar)))
                })
            }
            // YAML reads `-to: a` as a mapping with the key `-to`.
            YamlKind::Mapping(entries) => entries
                .first()
                .and_then(|first| first.key.strip_prefix('-'))
                .map(|key| format!("write a space behind the dash: `- {key}`"))
                .or_else(|| {
                    let lists = schemas.iter().any(|schema| accepts(schema, YamlShape::Sequence));
                    let first = entries.first().filter(|_| lists)?;
                    Some(format!("expected {expected}: each item begins with a dash, `- {}: …`", first.key))
                }),
            _ => None,
        };
        let help = slip.unwrap_or_else(|| format!("expected {expected}"));
        self.problems.wrong(node.place, format!("{found} doesn't fit here"), help);
    }

    /// A key without a value. If it should be a mapping or a list, its lines may not be indented far enough.
    fn missing(&mut self, place: Place, expected: String) {
        let help = if expected.contains("mapping") || expected.contains("list") {
            format!("expected {expected}; lines that belong to a key are indented deeper than the key")
        } else {
            format!("expected {expected}")
        };
        self.problems.wrong(place, "a value is missing here", help);
    }
}

/// Help for a file that is not a mapping.
const SMALLEST_CONFIG: &str =
    "a config is a mapping of keys: the smallest is `upstreams: { orders: https://orders.internal:8443 }`";
