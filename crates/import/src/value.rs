//! The values that an import writes.

/// A mapping in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct YamlMap(pub Vec<(String, ConfigValue)>);

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigValue {
    /// A text; quoted where YAML needs it.
    Text(String),
    /// A number or boolean.
    Raw(String),
    /// A list.
    List(Vec<ConfigValue>),
    /// A mapping.
    Map(YamlMap),
}

impl YamlMap {
    /// Sets a key.
    pub fn set(&mut self, key: &str, value: impl Into<ConfigValue>) {
        let value = value.into();
        match self.0.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key.to_owned(), value)),
        }
    }

    /// Sets a key where there is a value.
    pub fn put(&mut self, key: &str, value: Option<impl Into<ConfigValue>>) {
        if let Some(value) = value {
            self.set(key, value);
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&ConfigValue> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The mapping at a key; it is created if absent. If it is still empty when the guard is dropped, it is not kept.
    pub fn child(&mut self, key: &str) -> ChildMapping<'_> {
        let own = match self.0.iter_mut().find(|(name, _)| name == key) {
            Some((_, value)) => match std::mem::replace(value, ConfigValue::Raw(String::new())) {
                ConfigValue::Map(map) => map,
                _ => Self::default(),
            },
            None => Self::default(),
        };
        ChildMapping { parent: self, key: key.to_owned(), own }
    }

    /// Adds an item to the list at a key; the list is created if absent.
    pub fn push(&mut self, key: &str, item: &str) {
        let mut items = match self.get(key) {
            Some(ConfigValue::List(items)) => items.clone(),
            Some(one) => vec![one.clone()],
            None => Vec::new(),
        };
        let item = ConfigValue::from(item);
        if !items.contains(&item) {
            items.push(item);
        }
        self.set(key, ConfigValue::List(items));
    }

    /// Whether it has no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A mapping inside another one. It is written back when this guard is dropped.
#[derive(Debug)]
pub struct ChildMapping<'p> {
    parent: &'p mut YamlMap,
    key: String,
    own: YamlMap,
}

impl std::ops::Deref for ChildMapping<'_> {
    type Target = YamlMap;

    fn deref(&self) -> &YamlMap {
        &self.own
    }
}

impl std::ops::DerefMut for ChildMapping<'_> {
    fn deref_mut(&mut self) -> &mut YamlMap {
        &mut self.own
    }
}

impl Drop for ChildMapping<'_> {
    fn drop(&mut self) {
        if self.own.is_empty() {
            self.parent.0.retain(|(name, _)| *name != self.key);
        } else {
            self.parent.set(&self.key, std::mem::take(&mut self.own));
        }
    }
}

impl From<&str> for ConfigValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for ConfigValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for ConfigValue {
    fn from(number: u64) -> Self {
        Self::Raw(number.to_string())
    }
}

impl From<bool> for ConfigValue {
    fn from(yes: bool) -> Self {
        Self::Raw(yes.to_string())
    }
}

impl From<YamlMap> for ConfigValue {
    fn from(map: YamlMap) -> Self {
        Self::Map(map)
    }
}

impl From<Vec<String>> for ConfigValue {
    /// A list with one item becomes the item itself.
    fn from(mut items: Vec<String>) -> Self {
        match items.pop() {
            Some(only) if items.is_empty() => Self::Text(only),
            Some(last) => {
                items.push(last);
                Self::List(items.into_iter().map(Self::Text).collect())
            }
            None => Self::List(Vec::new()),
        }
    }
}
